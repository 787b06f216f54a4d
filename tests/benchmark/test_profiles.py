"""Synthetic profiles: the model itself skips what the profile says, at the wanted cost."""

import jax
import numpy as np
import pytest

import avit_jax
from avit_jax.benchmark import profiles
from avit_jax.methods.avit import synthetic as halting_profiles
from avit_jax.models import costs
from avit_jax.types import Usage


@pytest.mark.parametrize(
    ("size", "share", "gmacs"),
    [
        ("tiny", halting_profiles.PAPER[192, 12], 0.8),
        ("small", halting_profiles.PAPER[384, 12], 3.6),
        ("tiny", 0.5, 0.627),
    ],
)
def test_halting_profiles_cost_what_they_are_named_for(size, share, gmacs):
    model = avit_jax.create_model(f"avit_{size}_patch16_224")
    depth = halting_profiles.patch_depths(model, share, 16)
    usage = Usage(tokens=halting_profiles.tokens_of(model, depth))
    assert np.mean(costs.gmacs(model.shape, usage)) == pytest.approx(gmacs, rel=0.01)
    assert len(np.unique(depth)) > 5


def test_an_image_painted_for_a_depth_halts_there():
    model = avit_jax.create_model("avit_tiny_patch16_224", image_size=64, depth=6, num_classes=3)
    params = halting_profiles.scripted_params(model, model.init(jax.random.key(0)))
    depth = np.random.default_rng(0).integers(1, 7, (3, 16))
    images = halting_profiles.scripted_images(model, depth)
    output = model.apply(params, images)
    np.testing.assert_array_equal(output.usage[0].tokens, halting_profiles.tokens_of(model, depth))


POLICIES = {
    "DeiT": ("adavit_deit_tiny_patch16_224", {}),
    "tokens only": ("adavit_deit_tiny_patch16_224", {"heads": False, "layers": False}),
    "T2T": ("adavit_t2t_vit_7", {}),
}


@pytest.mark.parametrize(
    "kind",
    ["DeiT", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("tokens only", "T2T"))],
)
def test_policies_drop_what_makes_half_the_cost(kind):
    name, settings = POLICIES[kind]
    model = avit_jax.create_model(name, image_size=64, num_classes=3, method=settings)
    params, images = profiles.script(model, "half", 16)
    usage = jax.jit(model.apply)(params, images).usage[0]
    cost = np.asarray(costs.gmacs(model.shape, usage))
    assert cost.mean() == pytest.approx(0.5 * model.dense_gmacs(), rel=0.06)
    assert cost.std() > 0
    if usage.heads is not None:
        assert len(np.unique(usage.heads[-1], axis=0)) > 1


@pytest.mark.slow
def test_a_single_image_costs_what_the_profile_says():
    model = avit_jax.create_model("adavit_deit_tiny_patch16_224", image_size=64, num_classes=3)
    usage = jax.jit(model.apply)(*profiles.script(model, "half", 1)).usage[0]
    (cost,) = np.asarray(costs.gmacs(model.shape, usage))
    assert cost == pytest.approx(0.5 * model.dense_gmacs(), rel=0.1)


@pytest.mark.parametrize(
    "name",
    [
        "avit_tiny_patch16_224",
        pytest.param("adavit_deit_tiny_patch16_224", marks=pytest.mark.slow),
    ],
)
def test_nothing_is_skipped_in_the_profile_none(name):
    model = avit_jax.create_model(name, image_size=64, num_classes=3)
    output = jax.jit(model.apply)(*profiles.script(model, "none", 4))
    assert np.mean(costs.gmacs(model.shape, output.usage[0])) == pytest.approx(model.dense_gmacs())


@pytest.mark.parametrize(
    ("name", "share"), [("adavit_deit_small_patch16_224", 2.3), ("adavit_t2t_vit_19", 3.9)]
)
def test_published_costs_of_policies_are_those_of_these_models(name, share):
    model = avit_jax.create_model(name)
    published = model.synthetic_profiles()["paper"] * model.dense_gmacs()
    assert published == pytest.approx(share, rel=0.01)


@pytest.mark.parametrize(
    ("name", "profile", "settings", "message"),
    [
        ("avit_base_patch16_224", "paper", {}, "no synthetic profile 'paper': .* half, none, real"),
        ("adavit_t2t_vit_14", "paper", {}, "no synthetic profile 'paper'"),
        ("deit_tiny_patch16_224", "half", {}, "no synthetic profile 'half': write some of real"),
        ("avit_t2t_vit_7", "half", {}, "no synthetic profile 'half'"),
        (
            "adavit_deit_tiny_patch16_224",
            "half",
            {"keep_layers": 11, "tokens": False},
            "policies over heads, layers alone cannot bring",
        ),
    ],
)
def test_a_profile_that_cannot_be_is_refused(name, profile, settings, message):
    model = avit_jax.create_model(name, method=settings)
    with pytest.raises(ValueError, match=message):
        profiles.script(model, profile, 2)


@pytest.mark.parametrize(
    ("name", "sensible"),
    [
        ("avit_tiny_patch16_224", ("paper", "half")),
        ("adavit_deit_small_patch16_224", ("paper", "half")),
        ("adavit_t2t_vit_14", ("half",)),
        ("avit_t2t_vit_14", ("real",)),
    ],
)
def test_where_no_profile_is_asked_for_those_are_measured_that_there_are(name, sensible):
    assert profiles.sensible(avit_jax.create_model(name)) == sensible
