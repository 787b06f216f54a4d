"""What each choice of the design space costs: step time, inference time and GMACs, next to default.

    python benchmarks/choices.py avit_micro_patch4_32 --batch_size 64
    python benchmarks/choices.py avit_tiny_patch16_224 --batch_size 16 --turns 7 --only norm

One choice is changed at a time, all others stay at the model's own. A training step is the gradient
of cross-entropy and penalties, masked, with what is fast on this machine; inference is the fastest
exact execution of each. Weights are fresh and no token halts, so everything runs: what is compared
is the arithmetic. All take turns in one process, and ratios to the default are taken within each
turn; above 1 is slower than the default.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import avit_jax
from avit_jax.execution import executions
from avit_jax.methods.base import Model
from avit_jax.models import costs
from avit_jax.runtime.device_mesh import make_mesh
from avit_jax.runtime.paired_timing import Timing, race
from avit_jax.runtime.tables import columns

DEFAULT = "default"
OF_SHAPE: dict[str, tuple[Any, ...]] = {
    "pos_embed": ("sinusoidal", "sinusoidal_2d", "rope_1d", "rope_2d", "none"),
    "norm": ("rmsnorm", "instancenorm"),
    "attention": ("cosine", "linear"),
    "qk_norm": (True,),
    "layer_scale": (1e-4,),
    "num_class_tokens": (2,),
    "num_registers": (4,),
    "pool": ("avg",),
    "mixer": ("mlp",),
}
OF_METHOD: dict[str, tuple[Any, ...]] = {
    "spread": ("nearby", "square", "circle"),
    "learn_gates": (True,),
    "min_depth": (2,),
}
NEVER_HALTS = {"gate_scale": 0.0, "gate_center": 30.0}


def main() -> None:
    """See the module."""
    options = _options()
    models = {DEFAULT: made(options.model)}
    for section, choices in (("shape", OF_SHAPE), ("method", OF_METHOD)):
        for name, values in choices.items():
            if options.only and name not in options.only:
                continue
            for value in values:
                models[f"{name} {value}"] = made(options.model, **{section: {name: value}})
    model = models[DEFAULT]
    rng = np.random.default_rng(0)
    size = model.shape.image_size
    images = rng.normal(size=(options.batch_size, size, size, 3)).astype(np.float32)
    labels = jnp.asarray(np.arange(options.batch_size) % model.shape.num_classes)
    steps = {name: training_step(one, images, labels) for name, one in models.items()}
    answers = {name: inference(one, images) for name, one in models.items()}
    trained = race(steps, turns=options.turns)
    answered = race(answers, turns=options.turns)
    platform = jax.devices()[0]
    print(
        f"{options.model}, {model.shape.dtype}, batch {options.batch_size}, {options.turns} turns, "
        f"{platform.device_kind}: times over the default's (quartiles)"
    )
    whole = costs.dense_inference_gmacs(model.shape)
    rows = [
        [
            name,
            executions.fastest(one, platform.platform).name,
            slowdown(trained[DEFAULT], trained[name]),
            slowdown(answered[DEFAULT], answered[name]),
            f"{one.dense_gmacs() / model.dense_gmacs():.3f}",
            f"{costs.dense_inference_gmacs(one.shape) / whole:.3f}",
        ]
        for name, one in models.items()
    ]
    head = ["choice", "execution", "training step", "inference", "GMACs", "of inference"]
    print(columns(head, rows))


def made(
    name: str, *, shape: Mapping[str, Any] | None = None, method: Mapping[str, Any] | None = None
) -> Model:
    """The named A-ViT with one choice changed, whose tokens never halt."""
    return avit_jax.create_model(name, method={**NEVER_HALTS, **(method or {})}, **(shape or {}))


def training_step(model: Model, images: np.ndarray, labels: jax.Array) -> Callable[[], Any]:
    """Loss and gradients of a batch, compiled."""
    trained = model.trained_on(jax.default_backend())
    params = trained.init(jax.random.key(0))

    def loss(params: Any, images: jax.Array) -> jax.Array:
        output = trained.apply(params, images)
        task = optax.softmax_cross_entropy_with_integer_labels(output.logits, labels).mean()
        return task + sum(output.penalties.values())

    step = jax.jit(jax.value_and_grad(loss))
    images = jnp.asarray(images)
    return lambda: step(params, images)


def inference(model: Model, images: np.ndarray) -> Callable[[], Any]:
    """The fastest exact execution of a batch, on one device."""
    predict = model.compile(
        model.init(jax.random.key(0)),
        batch_size=len(images),
        mesh=make_mesh(devices=jax.devices()[:1]),
    )
    images = jnp.asarray(images)
    return lambda: predict(images).logits


def slowdown(default: Timing, other: Timing) -> str:
    """Time of the other over the default's: median of the ratios of all turns, and quartiles."""
    ratios = np.asarray(other.wall) / np.asarray(default.wall)
    low, median, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    return f"{median:.2f} ({low:.2f}-{high:.2f})"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a named A-ViT")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--only", nargs="*", help="names of choices, such as norm")
    return parser.parse_args()


if __name__ == "__main__":
    main()
