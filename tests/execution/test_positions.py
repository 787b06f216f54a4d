"""Positions travel with rows: what turns queries and keys does the same in every execution."""

import dataclasses

import jax
import numpy as np
import pytest

import avit_jax
from avit_jax.runtime.device_mesh import make_mesh

BORDER = 1e-4


def assert_alike(found, expected):
    """But for rounding, which weights as large as those here make larger: of the largest logit."""
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


CASES = {
    "avit": ("avit_micro_patch4_32", {"gate_scale": 4.0, "gate_center": 0.0}),
    "adavit": ("adavit_deit_micro_patch4_32", {"initial_logit": 0.0}),
    "dense": ("deit_micro_patch4_32", {}),
    "dvt of avit": (
        "dvt_avit_deit_tiny_128",
        {"grids": (2, 4), "thresholds": (0.5,), "inner": {"gate_scale": 4.0, "gate_center": 0.0}},
    ),
}


def rotary(method, kind="rope_2d"):
    name, settings = CASES[method]
    sizes = {"image_size": 32, "patch_size": 8, "depth": 4, "embed_dim": 24, "num_heads": 3}
    return avit_jax.create_model(name, method=settings, num_classes=5, pos_embed=kind, **sizes)


def weights_and_images(model):
    """Weights of attention that looks somewhere, and five images."""
    params = jax.tree.map(lambda leaf: 4.0 * leaf, model.init(jax.random.key(0)))
    return params, np.random.default_rng(0).normal(size=(5, 32, 32, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("method", "batch", "execution", "kind"),
    [
        ("avit", 1, "compact", "rope_2d"),
        ("adavit", 5, "compact", "rope_2d"),
        ("dense", 5, "compact", "rope_1d"),
        ("avit", 5, "static", "rope_2d"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("dvt of avit", 5, "compact", "rope_2d"),
                ("avit", 5, "compact", "rope_1d"),
                ("adavit", 1, "compact", "rope_1d"),
                ("adavit", 5, "static", "rope_1d"),
                ("dvt of avit", 5, "static", "rope_1d"),
            )
        ),
    ],
)
def test_rows_that_moved_still_know_their_places(method, batch, execution, kind):
    model = rotary(method, kind)
    params, images = weights_and_images(model)
    masked = jax.jit(model.apply)(params, images)
    sure = np.asarray(masked.aux.get("margin", np.ones(5))) > BORDER
    assert sure.any()
    mesh = make_mesh(devices=jax.devices()[:1])
    predict = model.compile(params, batch_size=batch, execution=execution, mesh=mesh)
    found = np.concatenate([predict(images[i : i + batch]).logits for i in range(0, 5, batch)])
    assert_alike(found[sure], masked.logits[sure])
    other = jax.jit(rotary(method, "none").apply)(params, images).logits
    lost = np.abs(other - masked.logits).max() / np.abs(masked.logits).max()
    assert lost > 1e-2, "places make no difference here"


def test_capped_execution_with_room_for_everything_places_rows_too():
    model = rotary("avit")
    params, images = weights_and_images(model)
    masked = jax.jit(model.apply)(params, images)
    live = np.asarray(masked.usage[0].tokens).sum(-1).max(1)
    places = tuple(max(1, int(n)) for n in live)
    assert places[-1] < model.shape.num_tokens
    plan = dataclasses.replace(model.default_plan(5), capacities=places)
    mesh = make_mesh(devices=jax.devices()[:1])
    predict = model.compile(params, batch_size=5, execution="capped", plan=plan, mesh=mesh)
    assert_alike(predict(images).logits, masked.logits)


@pytest.mark.slow
def test_streams_place_rows_too():
    model = rotary("avit")
    params, images = weights_and_images(model)
    masked = jax.jit(model.apply)(params, images)
    with model.stream(params, batch_size=2, max_wait=None) as stream:
        found = np.stack([answer.logits for answer in stream.map(images)])
    sure = np.asarray(masked.aux["margin"]) > BORDER
    assert_alike(found[sure], masked.logits[sure])
