"""Models as ONNX graphs of standard operators, written out layer by layer.

Written by hand because no converter would do: docs/export.md says what was tried. Every token is
computed, halted ones are masked keys. Arithmetic is float32 whatever the model's dtype. How patches
become tokens writes the backbone (`Shape.patches_as_onnx`), what an adaptive method does with the
blocks the method (`Model.blocks_as_onnx`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import onnx
from onnx import TensorProto, helper

from avit_jax.data.mix import MEAN, STD
from avit_jax.errors import UserError
from avit_jax.export.onnx_writer import Graph
from avit_jax.methods.base import Model
from avit_jax.models import costs
from avit_jax.models.functional import Params

OPSET, IR_VERSION = 20, 9


def build(
    model: Model, params: Params, *, dense: bool, description: Mapping[str, Any]
) -> onnx.ModelProto:
    """The graph from uint8 `images` `[batch, H, W, 3]` to `logits`, `depth` and `gmacs`.

    Args:
        model: any that its method and its backbone can write.
        params: its parameters.
        dense: the same weights with nothing skipped, instead of masked execution.
        description: goes into the file's metadata, one JSON value for each key.

    Raises:
        UserError: a method or backbone that has not been written down for ONNX.
    """
    shape, graph = model.shape, Graph(model.shape)
    if not model.one_network:
        raise UserError(
            f"method {model.name} cannot be written as ONNX: leave out the .onnx of --output for a "
            "StableHLO export."
        )
    if shape.tokens_keep_slots:
        raise UserError(
            f"model.mixer {shape.mixer!r} cannot be written as ONNX: leave out the .onnx of "
            "--output for a StableHLO export."
        )
    params = jax.tree.map(np.asarray, params)  # JAX would compile a program for every slice
    tokens = _embed(graph, params)
    if model.adaptive and not dense:
        answer, lives = model.blocks_as_onnx(graph, params, tokens)
    else:
        for index in range(shape.depth):
            tokens = graph.block(graph.layer(params["blocks"], index), tokens)
        answer, lives = graph.read(tokens), [graph.every_token()] * shape.depth
    _readout(graph, params, answer)
    _costs(graph, lives)
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


def _embed(graph: Graph, params: Params) -> str:
    """Tokens `[B, N, D]` of the images, normalised first."""
    shape, std = graph.shape, np.asarray(STD)
    pixels = graph.as_float("images")
    pixels = graph("Sub", graph("Mul", pixels, 1 / (255 * std)), np.asarray(MEAN) / std)
    patches = shape.patches_as_onnx(graph, params, pixels)
    table = np.zeros((1, shape.num_positions, shape.embed_dim))
    positions = np.asarray(params.get("pos_embed", table))
    places = shape.num_prefix_places
    patches = graph("Add", patches, positions[:, places:])
    if not shape.num_prefix_tokens:
        return patches
    names = [name for name in ("cls_token", "dist_token", "reg_token") if name in params]
    prefix = np.concatenate([np.asarray(params[name]) for name in names], axis=1)
    prefix[:, :places] += positions[:, :places]
    prefix = graph("Expand", prefix, graph.per_image(*prefix.shape[1:]))
    return graph("Concat", prefix, patches, axis=1)


def _readout(graph: Graph, params: Params, answer: str) -> None:
    """`logits` of the tokens `[B, n, D]` that classifiers read."""
    shape = graph.shape
    if shape.averages:
        answer = graph("ReduceMean", answer, [1], keepdims=1)
    features = graph.last_norm(answer, params["norm"])
    several = shape.num_read - shape.distilled
    classes = graph("Slice", features, [0], [several], [1])
    merge = "ReduceSum" if shape.class_token_merge == "sum" else "ReduceMean"
    heads = [graph.linear(graph(merge, classes, [1], keepdims=0), params["head"])]
    if shape.distilled:
        last = graph("Gather", features, several, axis=1)
        heads.append(graph.linear(last, params["head_dist"]))
    graph("Mean", *heads, name="logits")


def _costs(graph: Graph, lives: list[str]) -> None:
    """`depth` and `gmacs`, as `costs.gmacs` counts: a layer of n live tokens costs a n + b n²."""
    shape = graph.shape

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
