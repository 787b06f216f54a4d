"""Weights of the original JAX vision transformers: `.npz` files and the names in them.

google-research/vision_transformer published the ViTs of "An Image is Worth 16x16 Words"
(arXiv 2010.11929) and of "How to train your ViT?" (AugReg, arXiv 2106.10270) as flat arrays under
the paths of Flax modules. Here they get timm's names and PyTorch's layouts, as which all other
weights are read.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from avit_jax.errors import UserError
from avit_jax.pretrained import torch_file
from avit_jax.pretrained.torch_objects import DAMAGED, Unreadable

# Weights hardly compress; an archive that unpacks to much more than this was made to fill a memory.
_MAX_EXPANSION = 100
Arrays = dict[str, np.ndarray]


def is_npz(path: Path) -> bool:
    """Whether a zip archive holds NumPy arrays."""
    with open(path, "rb") as file:
        return any(name.endswith(".npy") for name in torch_file.zip_members(file))


def read(path: Path) -> Arrays:
    """All arrays of a `.npz` file; arrays of Python objects are refused.

    Raises:
        Unreadable: damaged, or no plain arrays.
    """
    with open(path, "rb") as file:
        members = torch_file.zip_members(file).values()
    if sum(member.file_size for member in members) > _MAX_EXPANSION * path.stat().st_size:
        raise Unreadable("unpacks to far more than weights can: take weights from elsewhere")
    try:
        if _holds_objects(path):
            raise Unreadable(
                "holds pickled Python objects, which are not opened: save plain arrays with "
                "numpy.savez(), one for each name"
            )
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (*torch_file.BROKEN_ZIP, zlib.error):
        raise Unreadable(DAMAGED) from None


def _holds_objects(path: Path) -> bool:
    """Whether any array is one of Python objects, by the headers, without reading one of them."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as file:
                version = np.lib.format.read_magic(file)
                header = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                if header(file)[2].hasobject:
                    return True
    return False


def is_google_research(state_dict: Mapping[str, np.ndarray]) -> bool:
    """Whether names are those of google-research/vision_transformer."""
    return any(name.startswith("Transformer/") for name in state_dict)


def to_timm(state_dict: Mapping[str, np.ndarray], *, num_heads: int) -> Arrays:
    """Arrays under timm's names and in PyTorch's layouts; unknown ones stay as they are.

    Args:
        state_dict: arrays under the names of google-research/vision_transformer.
        num_heads: of the model they are for. It has to be checked here, because timm's layout no
            longer shows the number of heads.

    Raises:
        UserError: the weights have another number of heads.
    """
    arrays = {name: np.asarray(array) for name, array in state_dict.items()}
    renamed: Arrays = {}
    for pattern, template, ndim, convert in _RENAMES:
        for name in list(arrays):
            match = re.fullmatch(pattern, name)
            if match and arrays[name].ndim == ndim:
                renamed[template.format(*match.groups())] = convert(arrays.pop(name))
    for name in list(arrays):
        match = re.fullmatch(rf"{_BLOCK}/{_ATTENTION}/query/(kernel|bias)", name)
        if match:
            parts = [name.replace("/query/", f"/{part}/") for part in ("query", "key", "value")]
            if all(part in arrays and arrays[part].ndim in (2, 3) for part in parts):
                found = arrays[name].shape[-2]
                if found != num_heads:
                    raise UserError(
                        f"these weights have {found} attention heads, the model has {num_heads}: "
                        f"create the model with num_heads={found}."
                    )
                layer, leaf = match.groups()
                target = "weight" if leaf == "kernel" else "bias"
                renamed[f"blocks.{layer}.attn.qkv.{target}"] = np.concatenate(
                    [_heads_out(arrays.pop(part)) for part in parts]
                )
    return renamed | arrays


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _transposed(array: np.ndarray) -> np.ndarray:
    return array.T


def _convolution(array: np.ndarray) -> np.ndarray:
    return array.transpose(3, 2, 0, 1)


def _heads_in(array: np.ndarray) -> np.ndarray:
    """Kernel `[H, d, D]` of the output projection to `[D, H * d]`."""
    return array.reshape(-1, array.shape[-1]).T


def _heads_out(array: np.ndarray) -> np.ndarray:
    """Kernel `[D, H, d]` or bias `[H, d]` of q, k or v to `[H * d, D]` or `[H * d]`."""
    return array.reshape(*array.shape[:-2], -1).T


_BLOCK = r"Transformer/encoderblock_(\d+)"
_MLP = rf"{_BLOCK}/MlpBlock_3/Dense"
_ATTENTION = "MultiHeadDotProductAttention_1"
# Name in the file (a regular expression), name in timm, number of axes, change of layout.
_RENAMES: list[tuple[str, str, int, Callable[[np.ndarray], np.ndarray]]] = [
    ("cls", "cls_token", 3, _same),
    ("Transformer/posembed_input/pos_embedding", "pos_embed", 3, _same),
    ("embedding/kernel", "patch_embed.proj.weight", 4, _convolution),
    ("embedding/bias", "patch_embed.proj.bias", 1, _same),
    ("Transformer/encoder_norm/scale", "norm.weight", 1, _same),
    ("Transformer/encoder_norm/bias", "norm.bias", 1, _same),
    ("head/kernel", "head.weight", 2, _transposed),
    ("head/bias", "head.bias", 1, _same),
    ("pre_logits/kernel", "pre_logits.fc.weight", 2, _transposed),
    ("pre_logits/bias", "pre_logits.fc.bias", 1, _same),
    (f"{_BLOCK}/{_ATTENTION}/out/kernel", "blocks.{}.attn.proj.weight", 3, _heads_in),
    (f"{_BLOCK}/{_ATTENTION}/out/bias", "blocks.{}.attn.proj.bias", 1, _same),
    *(
        (f"{_BLOCK}/LayerNorm_{there}/{leaf}", f"blocks.{{}}.norm{here}.{target}", 1, _same)
        for there, here in ((0, 1), (2, 2))
        for leaf, target in (("scale", "weight"), ("bias", "bias"))
    ),
    *(
        (f"{_MLP}_{there}/kernel", f"blocks.{{}}.mlp.{name}.weight", 2, _transposed)
        for there, name in ((0, "fc1"), (1, "fc2"))
    ),
    *(
        (f"{_MLP}_{there}/bias", f"blocks.{{}}.mlp.{here}.bias", 1, _same)
        for there, here in ((0, "fc1"), (1, "fc2"))
    ),
]
