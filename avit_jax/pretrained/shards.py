"""Which files hold a set of weights: one, or shards with an index, as Hugging Face leaves them.

A model that is too large for one file lies in `model-00001-of-00002.safetensors` and so on, and
`model.safetensors.index.json` says which file has which tensor.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from avit_jax.pretrained.torch_objects import DAMAGED, Unreadable, shown

# In a folder of the hub, in the order in which they are looked for: what can hold nothing but
# tensors first.
WHOLE = ("model.safetensors", "pytorch_model.bin")
INDEX = ".index.json"
INDICES = tuple(name + INDEX for name in WHOLE)
_SHARD = re.compile(r"(.+)-0*(\d+)-of-0*(\d+)(\.[A-Za-z]+)")
_MAX_INDEX_BYTES = 64 * 2**20


def weight_files(path: Path) -> list[Path]:
    """The files to read for a path: itself, the shards of an index, or those of a folder.

    Raises:
        Unreadable: a folder without weights, an index without its shards, or one shard of several.
    """
    if path.is_dir():
        found = _in_folder(path)
        if not found:
            raise Unreadable(
                f"is a folder without {', '.join((*WHOLE, *INDICES))}: give the path of a weight "
                "file"
            )
        path = found[0]
    if path.name.endswith(INDEX):
        return [path.parent / name for name in shards_of(path)]
    if (match := _SHARD.fullmatch(path.name)) and match[3] != "1":
        index = f"{match[1]}{match[4]}{INDEX}"
        raise Unreadable(
            f"is shard {match[2]} of {match[3]}: give {index} or the folder that they all lie in"
        )
    return [path]


def shards_of(index: Path) -> list[str]:
    """Names of the files that an index lists, which lie beside it.

    Raises:
        Unreadable: it is no such index, or names files elsewhere or that are not there.
    """
    if index.stat().st_size > _MAX_INDEX_BYTES:
        raise Unreadable(DAMAGED)
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        elsewhere = [name for name in names if Path(name).name != name]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise Unreadable(
            "is no index of shards (it has no weight_map): give the path of a weight file"
        ) from None
    if elsewhere or not names:
        raise Unreadable(
            f"names {shown(elsewhere[0]) if elsewhere else 'no shards'}, which {DAMAGED}"
        )
    return names


def is_weight_folder(path: Path) -> bool:
    """Whether a folder holds weights as those of the hub do, whole or in shards."""
    return path.is_dir() and bool(_in_folder(path))


def _in_folder(folder: Path) -> list[Path]:
    return [folder / name for name in (*INDICES, *WHOLE) if (folder / name).is_file()]
