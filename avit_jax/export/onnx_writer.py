"""What ONNX graphs are written with: nodes of standard operators, and the parts of a transformer.

`graph("Add", x, y)` adds a node. Methods and backbones that can be written as ONNX are handed a
`Graph`, so that none of them needs the package onnx.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from avit_jax.export import onnx_attention, onnx_norms
from avit_jax.models.norms import of_single_tokens
from avit_jax.models.shape import Shape


class Graph:
    """Nodes and constants as they come; calling it adds a node and returns its output's name.

    Attributes:
        shape: of the backbone.
        nodes: so far.
        constants: so far.
    """

    def __init__(self, shape: Shape):
        self.shape = shape
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def __call__(self, operator: str, *inputs: Any, name: str | None = None, **attributes) -> str:
        """Add a node; inputs are names, or arrays and numbers, which become constants."""
        names = [given if isinstance(given, str) else self.constant(given) for given in inputs]
        output = name or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [output], **attributes))
        return output

    def constant(self, value: Any) -> str:
        """Add a constant, float32 unless it is of integers."""
        array = np.asarray(value)
        array = array.astype(np.int64 if array.dtype.kind in "iu" else np.float32)
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def as_float(self, x: str) -> str:
        """A cast to float32."""
        return self("Cast", x, to=TensorProto.FLOAT)

    def as_bool(self, x: str) -> str:
        """A cast to bool."""
        return self("Cast", x, to=TensorProto.BOOL)

    def linear(self, x: str, params: Mapping[str, Any]) -> str:
        """A linear layer on the last axis."""
        product = self("MatMul", x, params["kernel"])
        return self("Add", product, params["bias"]) if "bias" in params else product

    def norm(self, x: str, params: Mapping[str, Any], name: str = "layernorm") -> str:
        """A norm over the last axis: a layer norm, whatever that of the blocks is, or another."""
        return onnx_norms.norm(self, name, x, params, eps=self.shape.norm_eps)

    def block_norm(self, x: str, params: Mapping[str, Any], live: str | None = None) -> str:
        """A block's norm of `[B, N, D]`; `live` `[B, N]` bool says which tokens count."""
        shape = self.shape
        return onnx_norms.norm(self, shape.norm, x, params, eps=shape.norm_eps, live=live)

    def last_norm(self, x: str, params: Mapping[str, Any]) -> str:
        """The norm of the tokens that classifiers read."""
        return self.norm(x, params, of_single_tokens(self.shape.norm))

    def layer(self, stacked: Mapping[str, Any], index: int) -> dict[str, Any]:
        """The parameters of one of the stacked blocks."""
        return jax.tree.map(lambda leaf: leaf[index], stacked)

    def block(self, params: Mapping[str, Any], x: str, keys: str | None = None) -> str:
        """One block on `[B, N, D]`; `keys` `[B, N]` bool says which tokens are there."""
        attention, mlp = params["attention"], params["mlp"]
        normed = self.block_norm(x, params["norm1"], keys)
        mixed = onnx_attention.mixed(self, attention, normed, keys)
        x = self("Add", x, self._scaled(self.linear(mixed, attention["proj"]), attention))
        hidden = self.linear(self.block_norm(x, params["norm2"], keys), mlp["fc1"])
        return self("Add", x, self._scaled(self.linear(self("Gelu", hidden), mlp["fc2"]), mlp))

    def _scaled(self, update: str, half: Mapping[str, Any]) -> str:
        """An update times LayerScale's factors, where the half has them."""
        return self("Mul", update, half["gamma"]) if "gamma" in half else update

    def read(self, values: str) -> str:
        """The tokens of `[B, N, ...]` that classifiers read."""
        first, end, _ = self.shape.read.indices(self.shape.num_tokens)
        return self("Slice", values, [first], [end], [1])

    def per_image(self, *sizes: int) -> str:
        """The shape `[B, *sizes]`."""
        return self("Concat", self("Shape", "images", end=1), np.asarray(sizes), axis=0)

    def every_token(self) -> str:
        """Ones `[B, N]`."""
        return self("Expand", np.ones((1, 1)), self.per_image(self.shape.num_tokens))
