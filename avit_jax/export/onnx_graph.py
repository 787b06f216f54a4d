"""ViTs whose tokens may halt, as ONNX graphs of standard operators, written out layer by layer.

Written by hand because no converter would do: docs/export.md says what was tried. Every token is
computed, halted ones are masked keys. Arithmetic is float32 whatever the model's dtype.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from avit_jax.data.mix import MEAN, STD
from avit_jax.errors import UserError
from avit_jax.methods import avit, dense
from avit_jax.methods.base import Model
from avit_jax.models import costs
from avit_jax.models.functional import Params
from avit_jax.models.vit import ViTShape

OPSET, IR_VERSION = 20, 9
# What is computed for each execution; compacted and masked answers are the same.
EXECUTIONS = {"masked": "masked", "compact": "masked", "dense": "dense"}
_MASKED = -1e30  # finite, so that an image without live tokens gives no NaN; far below any score


class Graph:
    """Nodes and constants as they come; calling it adds a node and returns its output's name."""

    def __init__(self):
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

    def linear(self, x: str, params: Mapping[str, Any]) -> str:
        """A linear layer on the last axis."""
        product = self("MatMul", x, params["kernel"])
        return self("Add", product, params["bias"]) if "bias" in params else product

    def norm(self, x: str, params: Mapping[str, Any], eps: float) -> str:
        """A layer norm over the last axis."""
        return self("LayerNormalization", x, params["scale"], params["bias"], epsilon=eps, axis=-1)


def build(
    model: Model, params: Params, *, execution: str, description: Mapping[str, Any]
) -> onnx.ModelProto:
    """The graph from uint8 `images` `[batch, H, W, 3]` to `logits`, `depth` and `gmacs`.

    Args:
        model: dense or A-ViT.
        params: its parameters.
        execution: "masked", or "dense" for the same weights with nothing skipped.
        description: goes into the file's metadata, one JSON value for each key.

    Raises:
        UserError: a method or backbone that is not written down here.
    """
    method = type(model).__module__.rpartition(".")[2]
    if not isinstance(model, dense.Model | avit.Model) or not isinstance(model.shape, ViTShape):
        raise UserError(
            f"method {method} on {type(model.shape).__name__} cannot be written as ONNX, only "
            "dense and avit on a ViT can: leave out the .onnx of --output for a StableHLO export."
        )
    shape, graph = model.shape, Graph()
    params = jax.tree.map(np.asarray, params)  # JAX would compile a program for every slice
    tokens = _embed(graph, shape, params)
    if execution == "masked" and isinstance(model, avit.Model):
        answer, lives = _halting(graph, model, params, tokens)
    else:
        for index in range(shape.depth):
            tokens = _block(graph, shape, _layer(params["blocks"], index), tokens)
        answer = _prefix(graph, shape, tokens)
        lives = [_every_token(graph, shape)] * shape.depth
    _readout(graph, shape, params, answer)
    _costs(graph, shape, lives)
    size = shape.image_size
    outputs = {"logits": shape.num_classes, "depth": shape.num_tokens, "gmacs": None}
    body = helper.make_graph(
        graph.nodes,
        "avit_jax",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", size, size, 3])],
        [
            helper.make_tensor_value_info(
                name, TensorProto.FLOAT, ["batch", *([width] if width else [])]
            )
            for name, width in outputs.items()
        ],
        graph.constants,
    )
    opset = helper.make_opsetid("", OPSET)
    result = helper.make_model(body, opset_imports=[opset], ir_version=IR_VERSION)
    helper.set_model_props(result, {name: json.dumps(part) for name, part in description.items()})
    onnx.checker.check_model(result)
    return result


def _embed(graph: Graph, shape: ViTShape, params: Params) -> str:
    """Tokens `[B, N, D]` of the images, normalised first."""
    std = np.asarray(STD)
    pixels = graph("Cast", "images", to=TensorProto.FLOAT)
    pixels = graph("Sub", graph("Mul", pixels, 1 / (255 * std)), np.asarray(MEAN) / std)
    side, grid = shape.patch_size, shape.grid
    patches = graph("Reshape", pixels, [0, grid, side, grid, side * 3])
    patches = graph("Transpose", patches, perm=[0, 1, 3, 2, 4])
    patches = graph("Reshape", patches, [0, grid * grid, side * side * 3])
    patches = graph.linear(patches, params["patch_embed"])
    names = ["cls_token", "dist_token"][: shape.num_prefix_tokens]
    prefix = np.concatenate([np.asarray(params[name]) for name in names], axis=1)
    positions = np.asarray(params["pos_embed"])
    prefix = prefix + positions[:, : shape.num_prefix_tokens]
    prefix = graph("Expand", prefix, _per_image(graph, *prefix.shape[1:]))
    patches = graph("Add", patches, positions[:, shape.num_prefix_tokens :])
    return graph("Concat", prefix, patches, axis=1)


def _per_image(graph: Graph, *sizes: int) -> str:
    """The shape `[B, *sizes]`."""
    return graph("Concat", graph("Shape", "images", end=1), np.asarray(sizes), axis=0)


def _layer(stacked: Mapping[str, Any], index: int) -> dict[str, Any]:
    """The parameters of one of the stacked blocks."""
    return jax.tree.map(lambda leaf: leaf[index], stacked)


def _block(graph: Graph, shape: ViTShape, params: Params, x: str, keys: str | None = None) -> str:
    """One block on `[B, N, D]`; `keys` `[B, 1, 1, N]` bool says which tokens may be attended to."""
    eps, heads = shape.block.norm_eps, shape.num_heads
    width = shape.embed_dim // heads
    projected = graph.linear(graph.norm(x, params["norm1"], eps), params["attention"]["qkv"])
    projected = graph("Reshape", projected, [0, 0, 3, heads, width])
    projected = graph("Transpose", projected, perm=[2, 0, 3, 1, 4])
    query, key, value = (graph("Gather", projected, part, axis=0) for part in range(3))
    query = graph("Mul", query, width**-0.5)
    scores = graph("MatMul", query, graph("Transpose", key, perm=[0, 1, 3, 2]))
    if keys is not None:
        scores = graph("Where", keys, scores, _MASKED)
    mixed = graph("MatMul", graph("Softmax", scores, axis=-1), value)
    mixed = graph("Transpose", mixed, perm=[0, 2, 1, 3])
    mixed = graph("Reshape", mixed, [0, 0, shape.embed_dim])
    x = graph("Add", x, graph.linear(mixed, params["attention"]["proj"]))
    hidden = graph.linear(graph.norm(x, params["norm2"], eps), params["mlp"]["fc1"])
    return graph("Add", x, graph.linear(graph("Gelu", hidden), params["mlp"]["fc2"]))


def _halting(graph: Graph, model: avit.Model, params: Params, x: str) -> tuple[str, list[str]]:
    """`halting.step` behind every block: the prefix tokens' means, and who was live in each layer.

    A halted token is only left out as a key: what else becomes of it is never read.
    """
    shape, settings = model.shape, model.settings
    threshold = 1.0 - settings.eps
    every = _every_token(graph, shape)
    live = graph("Cast", every, to=TensorProto.BOOL)
    cumulative, remainder, answer = np.zeros((1, 1)), np.ones((1, 1)), np.zeros((1, 1, 1))
    lives = []
    for index in range(shape.depth):
        keys = graph("Unsqueeze", live, [1, 2])
        x = _block(graph, shape, _layer(params["blocks"], index), x, keys)
        score = every if index == shape.depth - 1 else _score(graph, settings, x)
        cumulative = graph("Add", cumulative, score)
        goes_on = graph("Less", cumulative, threshold)
        halts = graph("And", live, graph("Greater", cumulative, threshold))
        # Of the means only those of the prefix tokens are read.
        running, goes_on_, halts_ = (
            graph("Cast", _prefix(graph, shape, flags), to=TensorProto.FLOAT)
            for flags in (live, goes_on, halts)
        )
        spent = graph("Mul", _prefix(graph, shape, score), goes_on_)
        weight = graph("Add", graph("Mul", remainder, halts_), spent)
        state = graph("Mul", graph("Unsqueeze", weight, [2]), _prefix(graph, shape, x))
        answer, remainder = graph("Add", answer, state), graph("Sub", remainder, spent)
        unfinished = graph("ReduceMax", running, [1], keepdims=1)
        lives.append(graph("Mul", graph("Cast", live, to=TensorProto.FLOAT), unfinished))
        live = goes_on
    return answer, lives


def _prefix(graph: Graph, shape: ViTShape, values: str) -> str:
    """The prefix tokens of `[B, N, ...]`."""
    return graph("Slice", values, [0], [shape.num_prefix_tokens], [1])


def _score(graph: Graph, settings: avit.Settings, x: str) -> str:
    """`avit.Model.score`, `[B, N]`."""
    channel = graph("Mul", graph("Gather", x, 0, axis=2), settings.gate_scale)
    return graph("Sigmoid", graph("Sub", channel, settings.gate_center))


def _every_token(graph: Graph, shape: ViTShape) -> str:
    """Ones `[B, N]`."""
    return graph("Expand", np.ones((1, 1)), _per_image(graph, shape.num_tokens))


def _readout(graph: Graph, shape: ViTShape, params: Params, answer: str) -> None:
    features = graph.norm(answer, params["norm"], shape.block.norm_eps)
    names = ["head", "head_dist"][: shape.num_prefix_tokens]
    heads = [
        graph.linear(graph("Gather", features, position, axis=1), params[name])
        for position, name in enumerate(names)
    ]
    graph("Mean", *heads, name="logits")


def _costs(graph: Graph, shape: ViTShape, lives: list[str]) -> None:
    """`depth` and `gmacs`, as `flops.gmacs` counts: a layer of n live tokens costs a n + b n²."""

    def layer(tokens: int) -> float:
        return (costs.attention(shape, tokens) + costs.mlp(shape, tokens)) / costs.GIGA

    square = (layer(2) - 2 * layer(1)) / 2
    fixed = (costs.embedding(shape) + costs.readout(shape)) / costs.GIGA
    graph("Sum", *lives, name="depth")
    terms = []
    for live in lives:
        count = graph("ReduceSum", live, [1], keepdims=0)
        share = graph("Add", graph("Mul", count, square), layer(1) - square)
        terms.append(graph("Mul", count, share))
    graph("Add", graph("Sum", *terms), fixed, name="gmacs")
