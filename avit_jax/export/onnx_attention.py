"""Attention as ONNX nodes, a function for each of `attention_kinds.KINDS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from avit_jax.errors import UserError
from avit_jax.models.attention_kinds import LARGEST_LOGIT_SCALE, SHORTEST
from avit_jax.models.positions import RotaryPositions

_MASKED = -1e30  # finite, so that an image without live tokens gives no NaN; far below any score
_NOTHING = 1e-30  # in the place of a sum of weights without any


def mixed(graph: Any, params: Mapping[str, Any], x: str, keys: str | None) -> str:
    """What attention mixes for normalised tokens `[B, N, D]`, in front of the last linear layer.

    Args:
        graph: an `onnx_writer.Graph`.
        params: of the attention half.
        x: tokens.
        keys: `[B, N]` bool, which of them may be attended to; all where `None`.
    """
    shape, heads = graph.shape, graph.shape.num_heads
    projected = graph.linear(x, params["qkv"])
    projected = graph("Reshape", projected, [0, 0, 3, heads, shape.embed_dim // heads])
    projected = graph("Transpose", projected, perm=[2, 0, 3, 1, 4])
    query, key, value = (graph("Gather", projected, part, axis=0) for part in range(3))
    if shape.qk_norm:
        query, key = graph.norm(query, params["query_norm"]), graph.norm(key, params["key_norm"])
    query, key = _turned(graph, query), _turned(graph, key)
    answer = _KINDS[shape.attention](graph, params.get("kind", {}), query, key, value, keys)
    answer = graph("Transpose", answer, perm=[0, 2, 1, 3])
    return graph("Reshape", answer, [0, 0, shape.embed_dim])


def _turned(graph: Any, heads: str) -> str:
    """Queries or keys `[B, H, N, d]` turned by their places, if positions are rotary."""
    encoding = graph.shape.position_encoding
    if not encoding.acts_on_heads:
        return heads
    if not isinstance(encoding, RotaryPositions):
        raise UserError(
            f"pos_embed {graph.shape.pos_embed!r} cannot be written as ONNX: leave out the "
            ".onnx of --output for a StableHLO export."
        )
    width = graph.shape.embed_dim // graph.shape.num_heads
    cosine, sine = np.split(encoding.turns(width), 2, axis=1)
    first, second = ([0], [width // 2]), ([width // 2], [width])
    one, other = (graph("Slice", heads, *half, [3]) for half in (first, second))
    across = graph("Concat", graph("Neg", other), one, axis=-1)
    along = graph("Mul", heads, np.tile(cosine, 2))
    return graph("Add", along, graph("Mul", across, np.tile(sine, 2)))


def _dot(graph: Any, params: Mapping[str, Any], query: str, key: str, value: str, keys) -> str:
    width = graph.shape.embed_dim // graph.shape.num_heads
    scale = graph.shape.block.attention_scale or width**-0.5
    return _softmax(graph, graph("Mul", query, scale), key, value, keys)


def _cosine(graph: Any, params: Mapping[str, Any], query: str, key: str, value: str, keys) -> str:
    factor = np.exp(np.minimum(params["logit_scale"], LARGEST_LOGIT_SCALE))
    query = graph("Mul", _unit(graph, query), factor[:, None, None])
    return _softmax(graph, query, _unit(graph, key), value, keys)


def _linear(graph: Any, params: Mapping[str, Any], query: str, key: str, value: str, keys) -> str:
    frequencies = params["frequencies"] * len(params["frequencies"]) ** -0.25

    def features(x: str) -> str:
        angle = graph("Add", graph("MatMul", x, frequencies), params["phases"])
        return graph("Add", graph("Cos", angle), 1.0)

    query, key = features(query), features(key)
    if keys is not None:
        key = graph("Where", graph("Unsqueeze", keys, [1, 3]), key, 0.0)
    total = graph("ReduceSum", key, [2])
    summary = graph("MatMul", graph("Transpose", key, perm=[0, 1, 3, 2]), value)
    total = graph("MatMul", query, graph("Transpose", total, perm=[0, 1, 3, 2]))
    return graph("Div", graph("MatMul", query, summary), graph("Max", total, _NOTHING))


def _softmax(graph: Any, query: str, key: str, value: str, keys: str | None) -> str:
    scores = graph("MatMul", query, graph("Transpose", key, perm=[0, 1, 3, 2]))
    if keys is not None:
        scores = graph("Where", graph("Unsqueeze", keys, [1, 2]), scores, _MASKED)
    return graph("MatMul", graph("Softmax", scores, axis=-1), value)


def _unit(graph: Any, x: str) -> str:
    """Vectors of length 1."""
    return graph("Div", x, graph("Max", graph("ReduceL2", x, [-1]), SHORTEST))


_KINDS: Mapping[str, Callable[..., str]] = {"dot": _dot, "cosine": _cosine, "linear": _linear}
