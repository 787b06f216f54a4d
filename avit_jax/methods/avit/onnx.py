"""A-ViT's blocks in an ONNX graph: `halting.step` behind every block, in standard operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from avit_jax.errors import UserError
from avit_jax.methods.avit.rules import HELD, Rules, may_halt
from avit_jax.methods.avit.settings import Settings
from avit_jax.models.functional import Params


def blocks(graph: Any, params: Params, x: str, settings: Settings) -> tuple[str, list[str]]:
    """Means of tokens that are read, and each layer's live ones; see `base.Model.blocks_as_onnx`.

    A halted token is only left out as a key: what else becomes of it is never read.
    """
    if settings.takes_along:
        raise UserError(
            f"method.spread is {settings.spread!r}, which cannot be written as ONNX: leave out the "
            ".onnx of --output for a StableHLO export, or write --config.method.spread none."
        )
    depth, threshold = settings.layers(graph.shape.depth), 1.0 - settings.eps
    every = graph.every_token()
    live = graph.as_bool(every)
    cumulative, remainder, answer = np.zeros((1, 1)), np.ones((1, 1)), np.zeros((1, 1, 1))
    lives = []
    for index in range(depth):
        x = graph.block(graph.layer(params["blocks"], index), x, keys=live)
        score = every
        if index < depth - 1:
            score = _spent(
                graph, settings, cumulative, _score(graph, params, settings, x, index), index
            )
        cumulative = graph("Add", cumulative, score)
        goes_on = graph("Less", cumulative, threshold)
        halts = graph("And", live, graph("Greater", cumulative, threshold))
        # Only means of these tokens are read.
        running, goes_on_, halts_ = (
            graph.as_float(graph.read(flags)) for flags in (live, goes_on, halts)
        )
        spent = graph("Mul", graph.read(score), goes_on_)
        weight = graph("Add", graph("Mul", remainder, halts_), spent)
        state = graph("Mul", graph("Unsqueeze", weight, [2]), graph.read(x))
        answer, remainder = graph("Add", answer, state), graph("Sub", remainder, spent)
        unfinished = graph("ReduceMax", running, [1], keepdims=1)
        lives.append(graph("Mul", graph.as_float(live), unfinished))
        live = goes_on
    nobody = graph("Sub", every, every)
    return answer, lives + [nobody] * (graph.shape.depth - depth)


def _score(graph: Any, params: Params, settings: Settings, x: str, index: int) -> str:
    """`Rules.score`, `[B, N]`."""
    channel = graph("Mul", graph("Gather", x, 0, axis=2), settings.gate_scale)
    offsets = params["gate_offsets"] if settings.learn_gates else None
    rules = Rules(shape=graph.shape, settings=settings, layers=graph.shape.depth, offsets=offsets)
    return graph("Sigmoid", graph("Sub", channel, np.asarray(rules.center(index))))


def _spent(graph: Any, settings: Settings, cumulative: Any, score: str, index: int) -> str:
    """`Rules.spent` in front of the last layer, `[B, N]`."""
    counts = may_halt(graph.shape, settings) & (index >= settings.halt_from - 1)
    if not counts.all():  # not a product, which would let NaN through
        score = graph("Where", graph.as_bool(graph.constant(counts[None])), score, 0.0)
    if index < settings.min_depth - 1:
        room = graph("Sub", HELD * (1.0 - settings.eps), cumulative)
        score = graph("Min", score, graph("Max", room, 0.0))
    return score
