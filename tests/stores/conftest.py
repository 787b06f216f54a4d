"""An object store on this machine: the emulator of the extra `test-stores`, a folder a test."""

import importlib.util
import os
import socket
import uuid

import pytest

# Asked for and not imported: gcsfs reads its settings when it is.
for package, extra in (("gcsfs", "gcs"), ("gcp_storage_emulator", "test-stores")):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"the extra {extra!r} is not installed", allow_module_level=True)

VARIABLES = (
    "STORAGE_EMULATOR_HOST",
    "TENSORSTORE_GCS_HTTP_URL",
    "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT",
    "GOOGLE_AUTH_TOKEN_FOR_TESTING",
)


@pytest.fixture(scope="session")
def server():
    """The address of an emulator that lives as long as the tests do."""
    from gcp_storage_emulator.server import create_server

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    before = {name: os.environ.get(name) for name in VARIABLES}
    address = f"http://localhost:{port}"
    os.environ |= dict(zip(VARIABLES, (address, address, "false", "a-token"), strict=True))
    running = create_server("localhost", port, in_memory=True, default_bucket="bucket")
    running.start()
    yield address
    running.stop()
    for name, value in before.items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})


@pytest.fixture
def folder(server):
    """A folder in a bucket that nobody else writes to."""
    from avit_jax.runtime.stores import as_path

    return as_path(f"gs://bucket/{uuid.uuid4().hex}")
