"""The norms of `models/norms.py` in standard operators of ONNX, by the same names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from avit_jax.errors import UserError

Params = Mapping[str, Any]


def norm(
    graph: Any, name: str, x: str, params: Params, *, eps: float, live: str | None = None
) -> str:
    """Tokens `[B, N, D]` behind a norm.

    Args:
        graph: an `export.onnx_writer.Graph`.
        name: of the norm, as in `models/norms.py`.
        x: the tokens.
        params: of the norm.
        eps: added to the variance, or to the mean square.
        live: `[B, N]` bool, tokens that count; all by default.

    Raises:
        UserError: the norm has not been written down for ONNX.
    """
    if name not in _NORMS:
        raise UserError(
            f"config.model.norm {name!r} cannot be written as ONNX: leave out the .onnx of "
            "--output for a StableHLO export."
        )
    return _NORMS[name](graph, x, params, eps, live)


def _layer_norm(graph: Any, x: str, params: Params, eps: float, live: str | None) -> str:
    scale, bias = params["scale"], params["bias"]
    return graph("LayerNormalization", x, scale, bias, epsilon=eps, axis=-1)


def _rms_norm(graph: Any, x: str, params: Params, eps: float, live: str | None) -> str:
    size = graph("ReduceMean", graph("Mul", x, x), [-1], keepdims=1)
    size = graph("Sqrt", graph("Add", size, eps))
    return graph("Mul", graph("Div", x, size), params["scale"])


def _instance_norm(graph: Any, x: str, params: Params, eps: float, live: str | None) -> str:
    counted = graph("Unsqueeze", graph.as_bool(graph.every_token()) if live is None else live, [2])
    count = graph("ReduceSum", graph.as_float(counted), [1], keepdims=1)
    count = graph("Max", count, 1.0)

    def mean(values: str) -> str:
        kept = graph("Where", counted, values, 0.0)
        return graph("Div", graph("ReduceSum", kept, [1], keepdims=1), count)

    away = graph("Sub", x, mean(x))
    deviation = graph("Sqrt", graph("Add", mean(graph("Mul", away, away)), eps))
    scaled = graph("Mul", graph("Div", away, deviation), params["scale"])
    return graph("Add", scaled, params["bias"])


_NORMS: dict[str, Callable[..., str]] = {
    "layernorm": _layer_norm,
    "rmsnorm": _rms_norm,
    "instancenorm": _instance_norm,
}
