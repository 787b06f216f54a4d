"""A-ViT's blocks in an ONNX graph: `halting.step` behind every block, in standard operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from avit_jax.models.functional import Params


def blocks(graph: Any, params: Params, x: str, settings: Any) -> tuple[str, list[str]]:
    """Means of tokens that are read, and each layer's live ones; see `base.Model.blocks_as_onnx`.

    A halted token is only left out as a key: what else becomes of it is never read.
    """
    depth, threshold = graph.shape.depth, 1.0 - settings.eps
    every = graph.every_token()
    live = graph.as_bool(every)
    cumulative, remainder, answer = np.zeros((1, 1)), np.ones((1, 1)), np.zeros((1, 1, 1))
    lives = []
    for index in range(depth):
        x = graph.block(graph.layer(params["blocks"], index), x, keys=live)
        score = every if index == depth - 1 else _score(graph, settings, x)
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
    return answer, lives


def _score(graph: Any, settings: Any, x: str) -> str:
    """`Model.score`, `[B, N]`."""
    channel = graph("Mul", graph("Gather", x, 0, axis=2), settings.gate_scale)
    return graph("Sigmoid", graph("Sub", channel, settings.gate_center))
