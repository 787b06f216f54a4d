"""Which pixels a weight file takes, where the file itself says so.

Weights that were trained on other pixels are changed once, when they are read (`pixels.py`). A file
that is written afterwards looks like any other under its name, and would be changed again wherever
it is read as what was published under that name. So it says which pixels it takes: in the metadata
of safetensors, or in a record of its own in the zip archive of PyTorch, which PyTorch passes over.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import safetensors

from avit_jax.pretrained import torch_file
from avit_jax.pretrained.addresses import on_disk
from avit_jax.pretrained.pixels import PIXELS
from avit_jax.pretrained.shards import weight_files

FIELD = "pixels"  # of the metadata; name of the record


def written_pixels(address: str | os.PathLike[str]) -> str | None:
    """A key of `pixels.PIXELS`; `None` where a file says nothing, as those of others.

    Args:
        address: what `load_torch` has read.
    """
    file = weight_files(on_disk(os.fspath(address)))[0]
    with open(file, "rb") as opened:
        is_zip = opened.read(4) == b"PK\x03\x04"
    said = _in_zip(file) if is_zip else _in_safetensors(file)
    return said if said in PIXELS else None


def _in_safetensors(file: Path) -> str | None:
    try:
        with safetensors.safe_open(file, framework="numpy") as opened:
            return (opened.metadata() or {}).get(FIELD)
    except safetensors.SafetensorError:  # the old format of PyTorch
        return None


def _in_zip(file: Path) -> str | None:
    with open(file, "rb") as opened:
        members = torch_file.zip_members(opened)
    names = [name for name in members if name.split("/")[1:] == [FIELD]]
    longest = max(map(len, PIXELS))
    if not names or members[names[0]].file_size > longest:
        return None
    with zipfile.ZipFile(file) as archive:
        return archive.read(names[0]).decode("ascii", errors="replace")
