"""Several class tokens, registers and average pooling: every execution gives the same answers."""

import functools

import jax
import numpy as np
import pytest

import avit_jax
from avit_jax.runtime.device_mesh import make_mesh

ONE_DEVICE = make_mesh(devices=jax.devices()[:1])
BATCH = 3
SIZES = {"image_size": 32, "patch_size": 8, "depth": 4, "embed_dim": 24, "num_heads": 3}
METHODS = {
    "avit": ("avit_micro_patch4_32", {"gate_scale": 4.0, "gate_center": 0.5}),
    "adavit": ("adavit_deit_micro_patch4_32", {"initial_logit": 0.0}),
    "dense": ("deit_micro_patch4_32", {}),
}
TOKENS = {
    "registers": {"num_registers": 3},
    "two class tokens, their mean": {"num_class_tokens": 2},
    "two class tokens, their sum": {
        "num_class_tokens": 2, "class_token_merge": "sum", "num_registers": 1, "distilled": True,
    },
    "average": {"pool": "avg", "num_registers": 1, "pos_embed_prefix": False},
    "average without class token": {"pool": "avg", "num_class_tokens": 0},
}  # fmt: skip


@functools.cache
def case(method, tokens):
    """A model, its parameters, images, and what masked execution says about them."""
    name, settings = METHODS[method]
    model = avit_jax.create_model(name, method=settings, num_classes=5, **SIZES, **TOKENS[tokens])
    # Attention that looks somewhere.
    params = jax.tree.map(lambda leaf: 3.0 * leaf, model.init(jax.random.key(0)))
    images = np.random.default_rng(0).normal(size=(BATCH, 32, 32, 3)).astype(np.float32)
    return model, params, images, jax.jit(model.apply)(params, images)


def assert_alike(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize(
    ("method", "execution"),
    [(m, e) for m in METHODS for e in ("compact", "static") if (m, e) != ("dense", "static")],
)
def test_every_execution_gives_the_same_answers(method, tokens, execution):
    model, params, images, masked = case(method, tokens)
    predict = model.compile(params, batch_size=BATCH, execution=execution, mesh=ONE_DEVICE)
    answer = predict(images)
    assert_alike(answer.logits, masked.logits)
    np.testing.assert_array_equal(answer.usage[0].tokens, masked.usage[0].tokens)
