"""One training step of PyTorch's vision transformer, as a peer of this package's own.

No script: `train_step.py` measures it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from avit_jax.benchmark.peers import vit_config
from avit_jax.models.vit import ViTShape
from avit_jax.runtime.paired_timing import race

WEIGHT_DECAY, LABEL_SMOOTHING = 0.05, 0.1


class Contender(NamedTuple):
    """One step on a fixed batch, returning the loss when all is done; its number of parameters."""

    step: Callable[[], float]
    num_params: int


def peer(
    kind: str, shape: ViTShape, batch: dict[str, np.ndarray], learning_rate: float
) -> Contender:
    """One training step of PyTorch's ViT, eager or under `torch.compile`."""
    import torch
    import transformers

    from avit_jax.data.mix import MEAN, STD

    torch.manual_seed(0)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model = transformers.ViTForImageClassification(vit_config(transformers, shape)).train()
    mean, std = (torch.tensor(value)[:, None, None] for value in (MEAN, STD))
    images = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).contiguous()
    labels = torch.from_numpy(batch["label"]).long()

    def loss_of(images: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=shape.dtype == "bfloat16"):
            logits = model((images.float() / 255.0 - mean) / std).logits
        return torch.nn.functional.cross_entropy(
            logits.float(), labels, label_smoothing=LABEL_SMOOTHING
        )

    function = torch.compile(loss_of) if kind == "compile" else loss_of
    function(images).backward()
    missing = [name for name, value in model.named_parameters() if value.grad is None]
    if missing:
        sys.exit(f"PyTorch parameters without a gradient: {', '.join(missing)}")
    optimizer = fastest_adamw(model, learning_rate)

    def run() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = function(images)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return Contender(run, sum(value.numel() for value in model.parameters()))


def fastest_adamw(model: Any, learning_rate: float) -> Any:
    """AdamW, fused or foreach, by their shortest time of five; no decay for norms and biases."""
    import torch

    def decays(name: str, value: Any) -> bool:
        return value.ndim > 1 and "embeddings.cls" not in name and "embeddings.pos" not in name

    seconds, optimizers = {}, {}
    for implementation in ("fused", "foreach"):
        groups = [
            {
                "params": [v for n, v in model.named_parameters() if decays(n, v) == flag],
                "weight_decay": WEIGHT_DECAY * flag,
            }
            for flag in (True, False)
        ]
        optimizer = torch.optim.AdamW(groups, lr=learning_rate, **{implementation: True})
        seconds[implementation] = min(race({"step": optimizer.step}, turns=5)["step"].cpu)
        optimizers[implementation] = optimizer
    best = min(seconds, key=seconds.get)
    print(f"PyTorch's AdamW: {best}", *(f"{n} {s * 1e3:.1f} ms" for n, s in seconds.items()))
    return optimizers[best]
