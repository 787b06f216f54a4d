"""Streams of models: the answers and costs of masked execution, in segments of either kind."""

import dataclasses

import jax
import numpy as np
import pytest

from avit_jax import create_model
from avit_jax.methods.dvt import early_exit
from tests.tiny_runs import HALTING

IMAGES, BATCH = 11, 2
SIZES = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 5}


@pytest.fixture(scope="module")
def images():
    return np.asarray(jax.random.normal(jax.random.key(1), (IMAGES, 32, 32, 3)))


def weights(model):
    """Any; drawn without a program that would have to be compiled."""
    generator = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: generator.normal(0, 0.3, leaf.shape).astype(np.float32),
        model.abstract_params(),
    )


def cascade(grids, images, name="dvt_deit_micro", **method):
    """A cascade whose images leave at all exits."""
    model = create_model(name, method={"grids": grids, **method}, **SIZES)
    params = weights(model)
    sure = early_exit.confidence(jax.jit(model.apply)(params, images).exits)
    thresholds = tuple(float(np.quantile(one, 0.65)) for one in sure[:-1])
    settings = dataclasses.replace(model.settings, thresholds=thresholds)
    return dataclasses.replace(model, settings=settings), params


def halting(images):
    """An A-ViT whose images are finished in various layers."""
    model = create_model("avit_micro_patch4_32", method=HALTING, **SIZES | {"depth": 4})
    return model, weights(model)


def averaging(images):
    """An A-ViT that averages its patches, whose images are finished when all of those have halted.

    Prefix tokens are scored, too, and registers do not halt before.
    """
    tokens = {"pool": "avg", "num_registers": 2}
    early = {"gate_scale": 2.0, "gate_center": -3.0}
    model = create_model("avit_micro_patch4_32", method=early, **SIZES | {"depth": 4}, **tokens)
    return model, weights(model)


def dense(images):
    model = create_model("deit_micro_patch4_32", **SIZES | {"depth": 1})
    return model, weights(model)


@pytest.mark.parametrize(
    ("make", "segments", "compact"),
    [
        pytest.param(lambda images: cascade((2, 3, 4), images), 3, False, marks=pytest.mark.slow),
        (lambda images: cascade((2, 4), images), 2, True),
        pytest.param(
            lambda images: cascade((2, 4), images, "dvt_avit_deit_micro", inner=HALTING),
            2,
            True,
            marks=pytest.mark.slow,
        ),
        (halting, 4, True),
        (halting, 4, False),
        pytest.param(averaging, 4, True, marks=pytest.mark.slow),
        pytest.param(averaging, 4, False, marks=pytest.mark.slow),
        (dense, 1, True),
    ],
    ids=[
        "three exits",
        "two exits",
        "halting exits",
        "packed",
        "masked",
        "averaged, packed",
        "averaged, masked",
        "whole",
    ],
)
def test_a_stream_gives_the_answers_of_masked_execution(
    make, segments, compact, images, monkeypatch
):
    model, params = make(images)
    wanted = jax.jit(model.apply)(params, images)
    plan = dataclasses.replace(
        model.default_plan(BATCH),
        row_sizes=(40,),
        lengths=(model.shape.num_tokens,),
        attention_images=2,
    )
    kind = type(model)
    cut = kind.segments
    monkeypatch.setattr(kind, "segments", lambda self, plan, **_: cut(self, plan, compact=compact))
    devices = jax.devices()[:1]
    with model.stream(params, batch_size=BATCH, plan=plan, devices=devices) as stream:
        found = list(stream.map(images))
    left = {answer.segment for answer in found}
    assert max(left) < segments and (len(left) > 1) == (segments > 1)
    np.testing.assert_allclose([one.logits for one in found], wanted.logits, atol=1e-5)
    np.testing.assert_allclose([one.gmacs for one in found], model.gmacs(wanted), rtol=1e-5)
