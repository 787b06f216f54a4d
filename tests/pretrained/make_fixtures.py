"""Writes tests/pretrained/fixtures with the real torch 2.13.0 and safetensors 0.8.0, once.

python -m tests.pretrained.make_fixtures

The tests read the files, never this script: they run where torch is not installed. The tensors are
such that a test can say what they must be; `tests/pretrained/files.py` does.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

FIXTURES = Path(__file__).parent / "fixtures"
GOLDEN = Path(__file__).parents[1] / "golden" / "avit" / "tiny_distilled_b4.npz"


def tensors() -> dict[str, torch.Tensor]:
    """Every dtype and every way in which a tensor can lie in its storage."""
    base = torch.arange(24, dtype=torch.float32)
    return {
        "contiguous": base.reshape(2, 3, 4),
        "transposed": base.reshape(4, 6).T,
        "offset_and_steps": base[5:21:3],
        "expanded": torch.arange(3.0).reshape(3, 1).expand(3, 4),
        "parameter": torch.nn.Parameter(torch.arange(4.0).reshape(2, 2)),
        "zero_dimensional": torch.tensor(7, dtype=torch.int64),
        "empty": torch.zeros(0, 3),
        "bfloat16": torch.arange(5).to(torch.bfloat16) / 4,
        "float16": torch.arange(5).to(torch.float16) / 4,
        "float64": torch.arange(5).to(torch.float64) / 3,
        "int32": torch.arange(-2, 3, dtype=torch.int32),
        "int16": torch.arange(-2, 3, dtype=torch.int16),
        "int8": torch.arange(-2, 3, dtype=torch.int8),
        "uint8": torch.arange(5, dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
    }


def checkpoint() -> dict:
    """What a training script leaves: weights behind a wrapper, their average, and much else."""
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = network.state_dict()  # an OrderedDict with an attribute
    state.clear()
    state.update({f"module.{name}": tensor for name, tensor in tensors().items()})
    return {
        "model": state,
        "model_ema": {name: tensor + 1 for name, tensor in tensors().items() if name != "bool"},
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "best": np.float64(81.5),
        "args": argparse.Namespace(lr=5e-4, output=Path("runs"), betas=(0.9, 0.999), names={"a"}),
    }


def skeleton(name: str, write: Callable[[dict, Path], None]) -> None:
    """A file of a golden model's weights without the weights, which lie in the golden file.

    The file itself is too large to keep twice. The tests put the weights back in and compare the
    checksum of what torch wrote.
    """
    with np.load(GOLDEN) as golden:
        arrays = {n[len("param/") :]: golden[n] for n in golden.files if n.startswith("param/")}
    path = FIXTURES / "whole"
    write({name: torch.from_numpy(array) for name, array in arrays.items()}, path)
    whole = path.read_bytes()
    path.unlink()
    offsets = {name: whole.index(array.tobytes()) for name, array in arrays.items()}
    hollow = bytearray(whole)
    for array_name, offset in offsets.items():
        size = arrays[array_name].nbytes
        hollow[offset : offset + size] = bytes(size)
    np.savez_compressed(
        FIXTURES / f"{name}.npz",
        hollow=np.frombuffer(bytes(hollow), np.uint8),
        sha256=hashlib.sha256(whole).hexdigest(),
        **{f"offset/{array_name}": offset for array_name, offset in offsets.items()},
    )


def main() -> None:
    """Writes all of them."""
    FIXTURES.mkdir(exist_ok=True)
    torch.manual_seed(0)
    saved = checkpoint()
    torch.save(saved, FIXTURES / "checkpoint.pth")
    torch.save(saved, FIXTURES / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(2, 2), FIXTURES / "module.pth")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), FIXTURES / "script.pt")
    contiguous = {name: tensor.detach().clone().contiguous() for name, tensor in tensors().items()}
    safetensors.torch.save_file(contiguous, FIXTURES / "tensors.safetensors")
    skeleton("golden_zip", torch.save)
    skeleton(
        "golden_legacy",
        lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    )
    skeleton("golden_safetensors", safetensors.torch.save_file)
    table = torch.randn(1, 16, 5)
    image = table.reshape(1, 4, 4, 5).permute(0, 3, 1, 2)
    resized = {
        f"grid{grid}": torch.nn.functional.interpolate(
            image, size=(grid, grid), mode="bicubic", antialias=True, align_corners=False
        )
        .permute(0, 2, 3, 1)
        .reshape(1, grid * grid, 5)
        .numpy()
        for grid in (3, 6, 7)
    }
    np.savez(FIXTURES / "positions.npz", table=table.numpy(), **resized)


if __name__ == "__main__":
    main()
