"""How a TPU VM says that it is one of several, against a metadata server of our own."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from avit_jax.runtime.tpu_workers import tpu_workers

WORKERS = "0:10.0.0.1:8470,1:10.0.0.2:8470,2:10.0.0.3:8470,3:10.0.0.4:8470"


class Metadata(http.server.BaseHTTPRequestHandler):
    """Answers as the metadata server does: one value, and only to who says that he is asking it."""

    def do_GET(self) -> None:
        known = self.path.endswith("/instance/attributes/worker-network-endpoints")
        asked = self.headers["Metadata-Flavor"] == "Google"
        self.send_response(200 if known and asked else 404)
        self.end_headers()
        self.wfile.write(WORKERS.encode())

    def log_message(self, *words: object) -> None:
        """Into no test's output."""


@pytest.fixture
def server() -> Iterator[str]:
    found = http.server.HTTPServer(("127.0.0.1", 0), Metadata)
    thread = threading.Thread(target=found.serve_forever)
    thread.start()
    yield f"127.0.0.1:{found.server_port}"
    found.shutdown()
    thread.join()
    found.server_close()


@pytest.fixture
def tpu(tmp_path: Path) -> Path:
    """A list of PCI devices with a TPU among them."""
    for number, maker in enumerate(("0x8086", "0x1ae0")):
        device = tmp_path / f"0000:00:0{number}.0"
        device.mkdir()
        (device / "vendor").write_text(maker + "\n")
    return tmp_path


def test_a_pod_tells_how_many_workers_it_has(server: str, tpu: Path) -> None:
    assert tpu_workers({"GCE_METADATA_IP": server}, pci=tpu) == 4
    assert tpu_workers({"GCE_METADATA_IP": server, "JAX_PLATFORMS": "tpu,cpu"}, pci=tpu) == 4


@pytest.mark.parametrize("excluding", [{"JAX_PLATFORMS": "cpu"}, {"TPU_SKIP_MDS_QUERY": "1"}])
def test_nobody_is_asked_about_a_tpu_that_is_not_to_be_used(
    excluding: dict[str, str], server: str, tpu: Path
) -> None:
    assert tpu_workers({"GCE_METADATA_IP": server} | excluding, pci=tpu) == 1


def test_other_machines_are_alone(server: str, tpu: Path, tmp_path: Path) -> None:
    assert tpu_workers({"GCE_METADATA_IP": server}, pci=tmp_path / "none") == 1
    assert tpu_workers({"GCE_METADATA_IP": "127.0.0.1:9"}, pci=tpu) == 1  # nobody listens there
