"""Files for the tests of the readers: what the fixtures must hold, and hostile ones to order."""

from __future__ import annotations

import hashlib
import io
import pickle
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np

from avit_jax.pretrained import torch_writer
from tests.parity.golden import group, load

FIXTURES = Path(__file__).parent / "fixtures"
GOLDEN = "avit/tiny_distilled_b4"
LEGACY_MAGIC, LEGACY_VERSION, LEGACY_SYSTEM = (
    pickle.dumps(value, protocol=2)
    for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
)


def expected() -> dict[str, np.ndarray]:
    """The tensors that `make_fixtures.tensors` saved."""
    base, five, signed = np.arange(24, dtype=np.float32), np.arange(5), np.arange(-2, 3)
    return {
        "contiguous": base.reshape(2, 3, 4),
        "transposed": base.reshape(4, 6).T,
        "offset_and_steps": base[5:21:3],
        "expanded": np.repeat(np.arange(3, dtype=np.float32)[:, None], 4, axis=1),
        "parameter": np.arange(4, dtype=np.float32).reshape(2, 2),
        "zero_dimensional": np.array(7),
        "empty": np.zeros((0, 3), np.float32),
        "bfloat16": (five / 4).astype(ml_dtypes.bfloat16),
        "float16": (five / 4).astype(np.float16),
        "float64": five / 3,
        "int32": signed.astype(np.int32),
        "int16": signed.astype(np.int16),
        "int8": signed.astype(np.int8),
        "uint8": five.astype(np.uint8),
        "bool": np.array([True, False, True]),
    }


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """The same names, dtypes, shapes and bits."""
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name


def golden_weights() -> dict[str, np.ndarray]:
    """The weights behind one golden file."""
    return group(load(GOLDEN), "param/")


def google_research(params: dict, *, num_heads: int, patch_size: int) -> dict[str, np.ndarray]:
    """Our parameters as google-research/vision_transformer names and shapes them."""
    blocks, dim = params["blocks"], params["cls_token"].shape[-1]
    norms = {"norm1": "LayerNorm_0", "norm2": "LayerNorm_2"}
    named = {
        "cls": params["cls_token"],
        "Transformer/posembed_input/pos_embedding": params["pos_embed"],
        "embedding/kernel": params["patch_embed"]["kernel"].reshape(patch_size, patch_size, 3, dim),
        "embedding/bias": params["patch_embed"]["bias"],
    }
    for ours, theirs in {"norm": "Transformer/encoder_norm", "head": "head"}.items():
        named |= {f"{theirs}/{leaf}": array for leaf, array in params[ours].items()}
    for layer in range(len(blocks["norm1"]["scale"])):
        prefix = f"Transformer/encoderblock_{layer}"
        attention = f"{prefix}/MultiHeadDotProductAttention_1"
        for leaf, array in blocks["attention"]["qkv"].items():
            parts = np.split(np.asarray(array[layer]), 3, axis=-1)
            for part, values in zip(("query", "key", "value"), parts, strict=True):
                shape = (*values.shape[:-1], num_heads, -1)
                named[f"{attention}/{part}/{leaf}"] = values.reshape(shape)
        out = blocks["attention"]["proj"]
        named[f"{attention}/out/kernel"] = out["kernel"][layer].reshape(num_heads, -1, dim)
        named[f"{attention}/out/bias"] = out["bias"][layer]
        for index, linear in enumerate(("fc1", "fc2")):
            for leaf, array in blocks["mlp"][linear].items():
                named[f"{prefix}/MlpBlock_3/Dense_{index}/{leaf}"] = array[layer]
        for ours, theirs in norms.items():
            named |= {f"{prefix}/{theirs}/{leaf}": a[layer] for leaf, a in blocks[ours].items()}
    return {name: np.asarray(array) for name, array in named.items()}


def whole(name: str, path: Path) -> Path:
    """A large fixture of torch with its weights put back, byte for byte what torch wrote."""
    with np.load(FIXTURES / f"{name}.npz") as parts:
        data = bytearray(parts["hollow"].tobytes())
        for array_name, array in golden_weights().items():
            offset = parts[f"offset/{array_name}"].item()
            data[offset : offset + array.nbytes] = array.tobytes()
        assert hashlib.sha256(data).hexdigest() == parts["sha256"].item()
    path.write_bytes(data)
    return path


def zip_of(
    path: Path, pickled: bytes, *, compression: int = zipfile.ZIP_STORED, **records: bytes
) -> Path:
    """A zip file of torch around a pickle; keywords are its storages, `s0=` is the key "0"."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, data in records.items():
            name = f"data/{key[1:]}" if key.startswith("s") else key
            archive.writestr(f"archive/{name}", data)
    path.write_bytes(buffer.getvalue())
    return path


def dict_of(**entries: bytes) -> bytes:
    """Instructions of a pickle for a dict, from those for its values."""
    return b"}" + b"".join(
        b"X%b%bs" % (len(name).to_bytes(4, "little") + name.encode(), value)
        for name, value in entries.items()
    )


def checkpoint_of(path: Path, **state_dicts: dict[str, np.ndarray]) -> Path:
    """What a training script leaves: several sets of weights in one file, each under its key."""
    storages, entries = {}, {}
    for wrapper, state_dict in state_dicts.items():
        tensors = {}
        for name, array in state_dict.items():
            array = np.asarray(array, order="C")
            tensors[name] = torch_writer._tensor(len(storages), array)
            storages[f"s{len(storages)}"] = array.tobytes()
        entries[wrapper] = dict_of(**tensors)
    return zip_of(path, b"\x80\x02" + dict_of(**entries) + b".", **storages)


def legacy_of(path: Path, pickled: bytes, **records: bytes) -> Path:
    """The same in the format before 1.6, for storages of float32."""
    keys = pickle.dumps([key[1:] for key in records], protocol=2)
    data = b"".join((len(r) // 4).to_bytes(8, "little") + r for r in records.values())
    path.write_bytes(LEGACY_MAGIC + LEGACY_VERSION + LEGACY_SYSTEM + pickled + keys + data)
    return path


def tensor_pickle(
    *,
    shape: tuple = (2,),
    strides: tuple = (1,),
    offset: int = 0,
    numel: int = 4,
    storage: str = "FloatStorage",
    metadata: bytes = b"",
) -> bytes:
    """The pickle of `{"x": tensor}` with whatever claims about a tensor over the storage "0"."""

    def constant(value) -> bytes:
        return pickle.dumps(value, protocol=2)[2:-1]

    identifier = b"(" + constant("storage") + b"ctorch\n" + storage.encode() + b"\n"
    identifier += constant("0") + constant("cpu") + constant(numel) + b"tQ"
    arguments = b"(" + identifier + constant(offset) + constant(shape) + constant(strides)
    arguments += constant(False) + b"ccollections\nOrderedDict\n)R" + metadata + b"t"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"
    return b"\x80\x02}" + constant("x") + call + b"s."
