"""Reads the weight files of other programs (PyTorch, safetensors, NumPy) without those programs.

A file is recognised by its content. No code from it is ever run. What is no weight file at all (a
web page, a git-LFS pointer, half a download) is refused with a message that says what it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from avit_jax.errors import UserError
from avit_jax.pretrained import npz, torch_file
from avit_jax.pretrained.addresses import on_disk
from avit_jax.pretrained.containers import CHOICES, chosen_weights, is_tensor
from avit_jax.pretrained.shards import weight_files
from avit_jax.pretrained.torch_objects import DAMAGED, Unreadable, shown

_HEAD_BYTES = 512
_SAFETENSORS = ".safetensors"


def load_torch(path: str | os.PathLike[str], *, weights: str = "auto") -> dict[str, np.ndarray]:
    """Names and arrays of a weight file, without torch and without running anything in the file.

    Args:
        path: a file of `torch.save` (the zip format and the one before 1.6), of safetensors or of
          `numpy.savez`, whatever it is called; an index of shards (`.index.json`), or the folder
          that they or a `model.safetensors` lie in; in `gs://` and `s3://`, too; or
          `hf://owner/name` for the Hugging Face Hub (extra `hub`). What wrappers put around names
          (`module.`, `model.`, `_orig_mod.`, whatever else stands in front of all blocks) is
          removed.
        weights: which of a training checkpoint's, as of a workdir's: "auto" (the moving average,
          such as `state_dict_ema`, `model_ema` or `teacher`, where there is one), "ema" or "raw"
          (such as `state_dict`, `model`, `student`). The log says which, where there are several;
          the released files of T2T-ViT hold nothing but the average.

    Returns:
        Names as the network has them, for `Model.from_torch`. Arrays of `torch.save` are read-only
        views of the file.

    Raises:
        UserError: no such file, none of these kinds, damaged, without the weights asked for, or it
          refers to something else than tensors (the name is given).
    """
    if weights not in CHOICES:
        raise UserError(f"load_torch got weights={weights!r}: write {', '.join(CHOICES)}.")
    try:
        address = os.fsdecode(path)
    except TypeError:
        raise UserError(
            f"load_torch got a {type(path).__name__}: give the path of a weight file."
        ) from None
    try:
        return _read(on_disk(address), weights)
    except Unreadable as refusal:
        raise UserError(f"{address} {refusal}.") from None
    except FileNotFoundError:
        raise UserError(f"{address} does not exist: give the path of a weight file.") from None
    except OSError as error:
        raise UserError(
            f"{address} cannot be read ({error.strerror}): give the path of a weight file."
        ) from None


def _read(path: Path, weights: str) -> dict[str, np.ndarray]:
    files = weight_files(path)
    if files == [path]:
        content, array = _opened(path)
    else:
        content, array = _joined(files), np.asarray
    return {name: array(each) for name, each in chosen_weights(content, weights).items()}


def _joined(shards: Sequence[Path]) -> dict[str, np.ndarray]:
    """The tensors of several files together."""
    whole: dict[str, np.ndarray] = {}
    for shard in shards:
        if not shard.is_file():
            raise Unreadable(f"lists {shard.name}, which is not beside it: download that one, too")
        content, array = _opened(shard)
        tensors = content if isinstance(content, dict) else {}
        if not all(map(is_tensor, tensors.values())) or not tensors:
            raise Unreadable(f"lists {shard.name}, which {DAMAGED}")
        whole |= {name: array(each) for name, each in tensors.items()}
    return whole


def _opened(path: Path) -> tuple[Any, Callable[[Any], np.ndarray]]:
    """What a file says it holds, by its content, and what makes an array of a tensor in it."""
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    if _is_safetensors(head, path.stat().st_size):
        return _read_safetensors(path), np.asarray
    _refuse_what_is_no_weights(head)
    if head.startswith(b"PK\x03\x04"):
        if npz.is_npz(path):
            return npz.read(path), np.asarray
        opened = torch_file.open_zip(path)
    elif head.startswith(b"\x80"):
        opened = torch_file.open_legacy(path)
    elif path.suffix.lower() == _SAFETENSORS:
        raise Unreadable(DAMAGED)
    else:
        raise Unreadable(
            f"is no weight file (it begins with {head[:8]!r}): give a .pth, .safetensors or .npz "
            "file"
        )
    return opened.content, opened.array


def _is_safetensors(head: bytes, size: int) -> bool:
    """Whether a file begins as safetensors do: the length of a description, and that, in JSON."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def _refuse_what_is_no_weights(head: bytes) -> None:
    if not head:
        raise Unreadable("is empty: download or copy it again")
    if head.startswith(b"version https://git-lfs"):
        raise Unreadable("is a git-LFS pointer, not the file itself: run `git lfs pull` beside it")
    if head.lstrip(b"\xef\xbb\xbf \r\n\t").lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise Unreadable("is a web page, not a weight file: download from the address of the file")
    if head.startswith(b"\x89HDF"):
        raise Unreadable("is an HDF5 file, as Keras writes them: take PyTorch's or JAX's weights")
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
