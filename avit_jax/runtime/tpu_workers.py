"""How many workers a Cloud TPU slice has, asked of the machine's metadata server.

A TPU VM, unlike GKE, does not say it in the environment, and each worker sees the chips of all of
them, so without asking nothing shows that there are other processes to join.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

_PCI = Path("/sys/bus/pci/devices")
_GOOGLE = "0x1ae0"  # the number of a PCI device's maker
_ENDPOINTS = "http://{}/computeMetadata/v1/instance/attributes/worker-network-endpoints"
_PATIENCE = 5.0  # seconds; the server is on the machine's own network


def tpu_workers(environment: Mapping[str, str], *, pci: Path = _PCI) -> int:
    """The number of workers of the slice that this machine is a part of; 1 where it is of none.

    Args:
        environment: GCE_METADATA_IP names another server, and TPU_SKIP_MDS_QUERY says that there
            is none, both as JAX reads them; with JAX_PLATFORMS set, "tpu" has to be among them.
        pci: where the system lists its devices.
    """
    platforms = environment.get("JAX_PLATFORMS", "")
    if (platforms and "tpu" not in platforms.split(",")) or not _has_tpu(pci):
        return 1
    if "TPU_SKIP_MDS_QUERY" in environment:
        return 1
    server = environment.get("GCE_METADATA_IP", "metadata.google.internal")
    request = urllib.request.Request(
        _ENDPOINTS.format(server), headers={"Metadata-Flavor": "Google"}
    )
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
            return len(answer.read().decode().split(","))
    except (urllib.error.URLError, http.client.HTTPException, OSError):
        return 1  # no TPU VM; `refuse_unjoined` has the last word


def _has_tpu(pci: Path) -> bool:
    return any(file.read_text().strip() == _GOOGLE for file in pci.glob("*/vendor"))
