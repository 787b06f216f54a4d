"""One training step of PyTorch's vision transformer, as a peer of this package's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from avit_jax.benchmark import peers
from avit_jax.data.mix import MEAN, STD
from avit_jax.errors import UserError
from avit_jax.models.vit import ViTShape
from avit_jax.runtime.paired_timing import race


class Contender(NamedTuple):
    """Steps on a fixed batch.

    Attributes:
        run: does one step or more, and returns when all is done.
        loss: of the last step.
        num_params: of the network.
    """

    run: Callable[[], Any]
    loss: Callable[[], float]
    num_params: int


def peer(
    kind: str,
    shape: ViTShape,
    batch: dict[str, np.ndarray],
    *,
    platform: str,
    learning_rate: float,
    weight_decay: float,
    label_smoothing: float,
    calls: int = 1,
) -> Contender:
    """Training steps of PyTorch's ViT with AdamW, parameters in float32.

    Args:
        kind: one of `peers.PEERS`.
        shape: sizes; in bfloat16 the forward pass runs under autocast.
        batch: `image` uint8 `[B, H, W, 3]` and `label` `[B]`.
        platform: that JAX runs on, as it names it.
        learning_rate: of every step.
        weight_decay: of all but norms, biases, class token and positions.
        label_smoothing: share of the target that all classes have in common.
        calls: steps of one `run`.

    Raises:
        UserError: unknown kind, it cannot run here, or a parameter gets no gradient.
    """
    device = peers.device_for(kind, platform)
    torch = peers.prepare(device)
    model = peers.network(kind, shape).train().to(device)
    mean, std = (torch.tensor(value, device=device)[:, None, None] for value in (MEAN, STD))
    images = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).contiguous().to(device)
    labels = torch.from_numpy(batch["label"]).long().to(device)

    def loss_of(images: Any) -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=shape.dtype == "bfloat16"):
            logits = model((images.float() / 255.0 - mean) / std)
        return torch.nn.functional.cross_entropy(
            logits.float(), labels, label_smoothing=label_smoothing
        )

    function = peers.compiled(torch, kind, loss_of)
    function(images).backward()
    missing = [name for name, value in model.named_parameters() if value.grad is None]
    if missing:
        raise UserError(
            f"peer {kind!r} has parameters without a gradient ({', '.join(missing)}), so it does "
            "not do the same work: leave it out of the peers."
        )
    optimizer = fastest_adamw(torch, model, device, learning_rate, weight_decay)
    last: list[Any] = [None]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = function(images)
        loss.backward()
        optimizer.step()
        last[0] = loss.detach().clone()  # with CUDA graphs the next step writes over it

    return Contender(
        peers.repeated(torch, kind, device, step, calls),
        lambda: float(last[0]),
        sum(value.numel() for value in model.parameters()),
    )


def fastest_adamw(
    torch: Any, model: Any, device: str, learning_rate: float, weight_decay: float
) -> Any:
    """AdamW; fused on a GPU, on a CPU fused or foreach, by their shortest time of five."""
    alone = ("cls", "pos_embed", "position")  # no decay for them, nor for norms and biases

    def decays(name: str, value: Any) -> bool:
        return value.ndim > 1 and not any(part in name for part in alone)

    def made(implementation: str) -> Any:
        groups = [
            {
                "params": [v for n, v in model.named_parameters() if decays(n, v) == flag],
                "weight_decay": weight_decay * flag,
            }
            for flag in (True, False)
        ]
        return torch.optim.AdamW(groups, lr=learning_rate, **{implementation: True})

    if device == "cuda":
        return made("fused")
    optimizers = {name: made(name) for name in ("fused", "foreach")}
    timings = race({name: one.step for name, one in optimizers.items()}, turns=5)
    seconds = {name: min(timing.cpu) for name, timing in timings.items()}
    best = min(seconds, key=seconds.get)
    print(f"PyTorch's AdamW: {best}", *(f"{n} {s * 1e3:.1f} ms" for n, s in seconds.items()))
    return optimizers[best]
