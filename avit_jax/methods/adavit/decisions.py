"""What policies decide in front of a block, and what follows from it: gates, usage, margins.

Decisions have three kinds: `heads` `[B, H]`, `layers` (the two halves of a block) `[B, 2]` and
`tokens` `[B, N]`; logits of tokens are those of the patches only. Records of all blocks have a
leading axis L. `settings` are those of AdaViT (`settings.py`).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

from avit_jax.methods.adavit import gumbel, policies
from avit_jax.methods.adavit.policies import Policy
from avit_jax.methods.adavit.settings import KINDS, Settings
from avit_jax.models.shape import Shape
from avit_jax.types import Gates, Usage

ByKind = dict[str, Array]


def outputs(shape: Shape) -> dict[str, int]:
    """Decisions of each kind in one block, per image."""
    patches = shape.num_tokens - shape.num_prefix_tokens
    return {"heads": shape.num_heads, "layers": 2, "tokens": patches}


def logits_name(kind: str) -> str:
    """Under which a record holds the logits of a kind."""
    return f"{kind[:-1]}_policy"


def shown(record: ByKind) -> ByKind:
    """A record as `Output.aux` names it: decisions are called "head_select" and so on."""
    return {
        f"{name[:-1]}_select" if name in KINDS else name: array for name, array in record.items()
    }


def draw(settings: Settings, shape: Shape, batch: int, key: Array) -> ByKind:
    """Noise of all decisions in one training step, `[L, B, ...]` by kind."""
    sizes = outputs(shape)
    return {
        kind: gumbel.noise(jax.random.fold_in(key, number), (shape.depth, batch, sizes[kind]))
        for number, kind in enumerate(KINDS)
        if kind in settings.chosen
    }


def decide(
    settings: Settings,
    x: Array,
    normed: Array,
    policy: dict[str, Policy],
    *,
    prefix: int,
    noise: ByKind | None = None,
    temperature: Array | float = 1.0,
) -> tuple[ByKind, ByKind]:
    """Logits and decisions of one block.

    Args:
        settings: thresholds and shift.
        x: tokens `[B, N, D]`.
        normed: the same behind the block's first norm.
        policy: of this block, from `Policies.per_layer`; empty where nothing is decided.
        prefix: tokens at the front, which always stay.
        noise: in training, of the logits' shapes.
        temperature: in training.
    """
    logits, choice = {}, {}
    for kind, weights in policy.items():
        # Policies over heads and halves read the class token as it is, not normed: as published.
        read = normed[:, prefix:] if kind == "tokens" else x[:, 0]
        found = policies.logits(weights, read) + settings.logit_shift
        found = found[:, :, 0] if kind == "tokens" else found
        decision = gumbel.decide(
            found,
            threshold=settings.threshold(kind),
            noise=None if noise is None else noise[kind],
            temperature=temperature,
        )
        decision = jnp.where(weights["decides"], decision, 1.0)
        if kind == "tokens":
            decision = jnp.pad(decision, ((0, 0), (prefix, 0)), constant_values=1.0)
        logits[kind], choice[kind] = found, decision
    return logits, choice


def gates(settings: Settings, choice: ByKind, *, train: bool = False) -> tuple[Gates, Gates]:
    """Gates of a block's attention half and of its MLP half; only in training with gradient."""
    if not train:
        choice = {kind: decided > 0 for kind, decided in choice.items()}
    both = Gates(
        selected=choice.get("tokens"),
        heads=choice.get("heads"),
        halves=choice.get("layers"),
        head_effect=settings.head_effect,
    )
    return both, both.replace(selected=None) if settings.every_token_in_mlp else both


def attending(choice: ByKind, size: tuple[int, int], heads: int) -> tuple[Array, Array]:
    """Which of the tokens, `[B, N]` bool with (B, N) = `size`, and heads, `[B, H]`, attend."""
    kept = {kind: decided > 0 for kind, decided in choice.items()}
    tokens = kept.get("tokens", jnp.ones(size, bool))
    if "layers" in kept:
        tokens = tokens & kept["layers"][:, :1]
    return tokens, kept.get("heads", jnp.ones((size[0], heads), bool))


def usage(settings: Settings, record: ByKind, size: tuple[int, int, int]) -> Usage:
    """What decisions let run, of `size` = (L, B, N); in a block without halves no token is live."""
    kept = {kind: record[kind] > 0 for kind in KINDS if kind in record}
    tokens = kept.get("tokens", jnp.ones(size, bool))
    if "layers" in kept:
        tokens = tokens & kept["layers"].any(-1, keepdims=True)
    return Usage(
        tokens=tokens,
        heads=kept.get("heads"),
        halves=kept.get("layers"),
        head_effect=settings.head_effect,
        every_token_in_mlp=settings.every_token_in_mlp,
    )


def margin(settings: Settings, record: ByKind, batch: int) -> Array:
    """Distance of each image's closest decision from its threshold, `[B]`, in logits."""
    closest = jnp.full(batch, jnp.inf)
    for kind in KINDS:
        if logits_name(kind) not in record:
            continue
        threshold = settings.threshold(kind)
        logits = record[logits_name(kind)][settings.first_layer(kind) :]
        distance = jnp.abs(logits - math.log(threshold / (1.0 - threshold)))
        closest = jnp.minimum(closest, distance.min((0, 2), initial=jnp.inf))
    return closest
