"""Peers that run the dense model as an ONNX graph on CPUs: onnxruntime, and OpenVINO in two ways.

The graph is what `--mode export --output model.onnx` writes for the dense model, for one number of
images and with logits alone. Weights are random: a dense network takes the same time for all.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from avit_jax.errors import UserError
from avit_jax.methods import plain
from avit_jax.models.vit import ViTShape
from avit_jax.runtime.cpu_devices import cores_for_jax

# The package of each, and the arithmetic that it is asked for.
PEERS = {
    "onnxruntime": ("onnxruntime", "f32"),
    "openvino": ("openvino", "f32"),
    "openvino-bf16": ("openvino", "bf16"),
}


def packages(kinds: Sequence[str]) -> tuple[str, ...]:
    """What the figures of these peers depend on."""
    return tuple(dict.fromkeys(PEERS[kind][0] for kind in kinds if kind in PEERS))


def require(kind: str, platform: str) -> None:
    """Raises UserError where a peer cannot run: without its packages, or beside an accelerator."""
    missing = [name for name in ("onnx", PEERS[kind][0]) if not importlib.util.find_spec(name)]
    if missing:
        raise UserError(
            f"peer {kind!r} needs {' and '.join(missing)}: pip install -e '.[benchmark-onnx]', or "
            "leave it out of config.benchmark.peers."
        )
    if platform != "cpu":
        raise UserError(
            f"peer {kind!r} runs on a CPU and JAX on a {platform}: leave it out of "
            "config.benchmark.peers."
        )


def peer(kind: str, shape: ViTShape, images: np.ndarray, *, calls: int = 1) -> Callable[[], Any]:
    """Dense inference on as many images as `images` `[B, H, W, 3]` are, so many times in a row.

    Args:
        kind: one of `PEERS`.
        shape: sizes; the arithmetic is what the peer's name says.
        images: give the number.
        calls: of the network in one call of what is returned.

    Raises:
        UserError: it cannot run here.
    """
    require(kind, "cpu")
    graph = dense_graph(shape, batch_size=len(images))
    pixels = np.random.default_rng(0).integers(0, 256, images.shape, np.uint8)
    start = _onnxruntime if kind == "onnxruntime" else _openvino
    answer = start(graph, pixels, PEERS[kind][1])
    return lambda: [answer() for _ in range(calls)]


def dense_graph(shape: ViTShape, *, batch_size: int) -> bytes:
    """The dense model with random weights as an ONNX file: uint8 `images` to `logits`."""
    from avit_jax.export import onnx_graph  # with the package onnx, which is not always there

    model, rng = plain.Model(shape, plain.Settings()), np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: 0.02 * rng.standard_normal(leaf.shape, np.float32),
        model.abstract_params(),
    )
    graph = onnx_graph.build(model, params, dense=True, description={})
    del graph.graph.output[1:]  # depth and cost, the same for all images
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch_size
    return graph.SerializeToString()


def _onnxruntime(graph: bytes, pixels: np.ndarray, precision: str) -> Callable[[], np.ndarray]:
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores_for_jax()
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(["logits"], {"images": pixels})[0]


def _openvino(graph: bytes, pixels: np.ndarray, precision: str) -> Callable[[], np.ndarray]:
    openvino = importlib.import_module("openvino")
    core = openvino.Core()
    can = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and "BF16" not in can:
        raise UserError(
            "this processor has no arithmetic in bfloat16 for OpenVINO: leave openvino-bf16 out of "
            "config.benchmark.peers."
        )
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": cores_for_jax(),
        "PERFORMANCE_HINT": "LATENCY",  # all cores for one batch
    }
    compiled = core.compile_model(core.read_model(graph), "CPU", settings)
    request = compiled.create_infer_request()
    return lambda: request.infer({"images": pixels})[compiled.output(0)]
