"""Reads the weight files of other programs (PyTorch, safetensors, NumPy) without those programs.

A file is recognised by its content. No code from it is ever run. What is no weight file at all (a
web page, a git-LFS pointer, half a download) is refused with a message that says what it is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from avit_jax.errors import UserError
from avit_jax.pretrained import hub, npz, torch_file
from avit_jax.pretrained.torch_objects import DAMAGED, Global, Inert, Tensor, Unreadable, shown

_logger = logging.getLogger(__name__)

CHOICES = ("auto", "ema", "raw")
# Where training scripts keep the weights in their checkpoints: (trained, moving average).
_WRAPPERS = (("state_dict", "state_dict_ema"), ("model", "model_ema"))
# Put before every name by DistributedDataParallel and by torch.compile.
_PREFIXES = ("module.", "_orig_mod.")
_REMEDY = "write weights='auto' (--config.eval.weights auto)"
_HEAD_BYTES = 512
_NAMES_SHOWN = 12


def load_torch(path: str | os.PathLike[str], *, weights: str = "auto") -> dict[str, np.ndarray]:
    """Names and arrays of a weight file, without torch and without running anything in the file.

    Args:
        path: a file of `torch.save` (`.pth`, `.pt`, `.pth.tar`, `.bin`; the zip format and the one
          before 1.6), a `.safetensors` file, a `.npz` file, or `hf://owner/name` for the Hugging
          Face Hub (extra `hub`). Prefixes of wrappers (`module.`) are removed from the names.
        weights: which of a training checkpoint's, as of a workdir's: "auto" (the moving average,
          `state_dict_ema` or `model_ema`, where there is one), "ema" or "raw" (`state_dict`,
          `model`). The log says which, where there is an average; the released files of T2T-ViT
          hold nothing else.

    Returns:
        Names as in the file, for `Model.from_torch`. Arrays of `torch.save` are read-only views of
        the file.

    Raises:
        UserError: no such file, none of these kinds, damaged, without the weights asked for, or it
          refers to something else than tensors (the name is given).
    """
    if weights not in CHOICES:
        raise UserError(f"load_torch got weights={weights!r}: write {', '.join(CHOICES)}.")
    address = os.fspath(path)
    if address.startswith(hub.PREFIX):
        local = hub.fetch(address)
    elif "://" in address:
        raise UserError(f"{address} is not a local file: copy it to a local disk first.")
    else:
        local = Path(address)
    try:
        return _read(local, weights)
    except Unreadable as refusal:
        raise UserError(f"{address} {refusal}.") from None
    except FileNotFoundError:
        raise UserError(f"{address} does not exist: give the path of a weight file.") from None
    except OSError as error:
        raise UserError(
            f"{address} cannot be read ({error.strerror}): give the path of a weight file."
        ) from None


def _read(path: Path, weights: str) -> dict[str, np.ndarray]:
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    _refuse_what_is_no_weights(head)
    if path.suffix == ".safetensors":
        return _plain(_read_safetensors(path), weights)
    if head.startswith(b"PK\x03\x04"):
        if npz.is_npz(path):
            return _plain(npz.read(path), weights)
        opened = torch_file.open_zip(path)
    elif head.startswith(b"\x80"):
        opened = torch_file.open_legacy(path)
    else:
        raise Unreadable(
            f"is no weight file (it begins with {head[:8]!r}): give a .pth, .safetensors or .npz "
            "file"
        )
    tensors = _without_prefix(_state_dict(opened.content, weights))
    return {name: opened.array(tensor) for name, tensor in tensors.items()}


def _refuse_what_is_no_weights(head: bytes) -> None:
    if not head:
        raise Unreadable("is empty: download or copy it again")
    if head.startswith(b"version https://git-lfs"):
        raise Unreadable("is a git-LFS pointer, not the file itself: run `git lfs pull` beside it")
    if head.lstrip(b"\xef\xbb\xbf \r\n\t").lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise Unreadable("is a web page, not a weight file: download from the address of the file")
    if head[257:262] == b"ustar":
        raise Unreadable("is a tar archive: unpack it and give the weight file inside")
    if head.startswith(b"\x1f\x8b"):
        raise Unreadable("is compressed with gzip: unpack it with `gunzip` first")


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except safetensors.SafetensorError:
        raise Unreadable(DAMAGED) from None
    except (AttributeError, TypeError, ValueError) as error:
        raise Unreadable(
            f"has tensors of a type that NumPy cannot hold ({shown(str(error))}): convert it to "
            "float32 or bfloat16"
        ) from None


def _plain(arrays: dict[str, np.ndarray], weights: str) -> dict[str, np.ndarray]:
    """The arrays of a format that holds one set of weights, without prefixes in their names."""
    if weights == "ema":
        raise Unreadable(f"has no moving average of the weights: {_REMEDY}")
    if not arrays:
        raise Unreadable("holds no tensors: give a file with weights")
    return _without_prefix(arrays)


def _state_dict(content: Any, weights: str) -> dict[str, Tensor]:
    """The mapping of names to tensors, wherever in a checkpoint it is."""
    if not isinstance(content, dict):
        raise Unreadable(
            f"holds a {_kind(content)} and no state dict: save model.state_dict() with torch.save()"
        )
    found = _chosen(content, weights)
    for _ in _WRAPPERS:
        if any(isinstance(value, Tensor) for value in found.values()):
            break
        found = next((found[k] for k, _ in _WRAPPERS if isinstance(found.get(k), dict)), found)
    strays = [name for name, value in found.items() if not _is_weight(name, value)]
    if not found or len(strays) == len(found):
        raise Unreadable(
            f"holds no state dict, only {_listed(found)}: save model.state_dict() with torch.save()"
        )
    if strays:
        raise Unreadable(
            f"mixes its tensors with other things, {_listed(strays)}: save model.state_dict() alone"
        )
    return found


def _chosen(content: dict[Any, Any], weights: str) -> dict[Any, Any]:
    """The part of a checkpoint to take weights from: its moving average, or the whole of it."""
    raw, average = (
        next((name for name in names if isinstance(content.get(name), dict)), None)
        for names in zip(*_WRAPPERS, strict=True)
    )
    if average is None:
        if weights == "ema":
            raise Unreadable(
                f"has no moving average of the weights, only {_listed(content)}: {_REMEDY}"
            )
        return content
    if weights == "raw":
        if raw is None:
            raise Unreadable(
                f"has no weights but their moving average, only {_listed(content)}: {_REMEDY}"
            )
        _logger.info("the weights in %s are taken, not their moving average in %s", raw, average)
        return content
    beside = "there are no others" if raw is None else f"not those in {raw}"
    _logger.info("the moving average of the weights in %s is taken, %s", average, beside)
    return content[average]


def _is_weight(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def _without_prefix(named: dict[str, Any]) -> dict[str, Any]:
    """Removes the prefix that a wrapper has put before the names, if all of them have it."""
    for prefix in _PREFIXES * 2:
        if all(name.startswith(prefix) for name in named):
            named = {name[len(prefix) :]: value for name, value in named.items()}
    return named


def _kind(content: Any) -> str:
    if isinstance(content, Inert | Global):
        return shown(content.name)
    return type(content).__name__.lower()


def _listed(names: Iterable[Any]) -> str:
    """Names for a message, the first few of them."""
    names = [shown(name) if isinstance(name, str) else _kind(name) for name in names]
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return (", ".join(names[:_NAMES_SHOWN]) or "nothing") + more
