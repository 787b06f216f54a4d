"""The types that everything else speaks: `Gates` in, `Output` (with its `Usage`) out; `Dial`s.

Shapes: `B` images, `N` tokens (class token first, then the distillation token where there is one,
then the patches row by row), `D` channels, `H` heads, `L` layers, `C` classes, `E` exits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from flax import struct
from jax import Array

# What a dropped head takes with it. "channels": its q, k, v and attention output, and its channels
# of the MLP's input. "hidden": instead of the MLP's input channels, the hidden units that belong to
# them. "attention": its attention only, which becomes the identity; its values stay.
HEAD_EFFECTS = ("channels", "hidden", "attention")
SATURATED = 1e4  # far enough from 0 that a logit moved by so much decides by itself


@struct.dataclass(kw_only=True)
class Gates:
    """What a block may skip; `None` means that everything runs.

    Numbers are factors, for training. Bool gates carry no gradient, and nothing that is not finite
    comes through where they are False.

    Attributes:
        tokens: `[B, N]`, 0..1. Tokens at 0 are gone for good: no keys, and zeros at the block's
          entrance. Acts as a boolean and carries no gradient. For tokens that halt.
        selected: `[B, N]`, 0..1. Tokens at 0 sit this block out: nobody attends to them, they
          attend to themselves alone, and no update reaches them. The factor on the update carries
          gradient. For tokens that a policy leaves out and that come back.
        heads: `[B, H]`, 0..1. What a dropped head takes with it says `head_effect`; carries
          gradient.
        halves: `[B, 2]`, 0..1. Attention half and MLP half of the block; carries gradient.
        head_effect: one of `HEAD_EFFECTS`.
    """

    tokens: Array | None = None
    selected: Array | None = None
    heads: Array | None = None
    halves: Array | None = None
    head_effect: str = struct.field(pytree_node=False, default="channels")


@struct.dataclass(kw_only=True)
class Usage:
    """What really had to run: all that `models/costs.py` needs beside the model's shape.

    Attributes:
        tokens: `[L, B, N]` bool, tokens live in each layer, of images that are not finished yet.
        heads: `[L, B, H]` bool, or `None` where every head ran.
        halves: `[L, B, 2]` bool (attention, MLP), or `None` where both halves ran.
        head_effect: what heads that did not run took with them, one of `HEAD_EFFECTS`.
        every_token_in_mlp: whether `tokens` holds for the attention halves only.
    """

    tokens: Array
    heads: Array | None = None
    halves: Array | None = None
    head_effect: str = struct.field(pytree_node=False, default="channels")
    every_token_in_mlp: bool = struct.field(pytree_node=False, default=False)


@struct.dataclass(kw_only=True)
class Output:
    """Everything a model says about a batch; the same fields whatever the method.

    Attributes:
        logits: `[B, C]` float32, the answer.
        usage: what ran in each stage of the model, see `Model.stages`; in a stage behind the one
          that an image left after, nothing ran for it.
        exits: `[E, B, C]`, the answer if it has to be given by each exit at the latest: that of the
            exit itself, or of an earlier one by which an image left. `None` for models with one.
        fits: `[B]` bool, whether all live work of an image found a place; only of programs with
          numbers of places that are fixed in advance, which another execution then answers for.
        penalties: weighted scalars that the trainer adds to the task loss.
        metrics: scalars worth logging.
        aux: per-token and per-layer arrays for pictures and parity tests; `docs/architecture.md`
          lists the names.
    """

    logits: Array
    usage: tuple[Usage, ...]
    exits: Array | None = None
    fits: Array | None = None
    penalties: dict[str, Array] = struct.field(default_factory=dict)
    metrics: dict[str, Array] = struct.field(default_factory=dict)
    aux: dict[str, Array] = struct.field(default_factory=dict)


DialSettings = dict[str, float | tuple[float, ...]]  # of a method, by name


@dataclasses.dataclass(frozen=True)
class Dial:
    """How a finished model is made to cost more or less without training: one real number.

    Attributes:
        settings: from a position to the settings of the method there, of the same structure
            everywhere. Position 0 gives the model's own; larger positions cost more, or at least
            hardly ever less.
        low: position of the least that the model can cost.
        high: position of the most.
        gmacs: from a position to GMACs per image, over the images that the dial was fitted to;
            `None` where only running the model tells.
    """

    settings: Callable[[float], DialSettings]
    low: float
    high: float
    gmacs: Callable[[float], float] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class ExitAnswers:
    """What a model with several exits makes of some images, each of which ran through all exits.

    Attributes:
        logits: `[E, n, C]` float32.
        labels: `[n]` whole numbers.
        gmacs: `[E, n]`, multiply-adds of an image up to and with each exit, in units of 1e9.
    """

    logits: np.ndarray
    labels: np.ndarray
    gmacs: np.ndarray
