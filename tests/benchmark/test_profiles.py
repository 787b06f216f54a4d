"""Synthetic halting: the model itself halts as the profile says, at the wanted cost."""

import jax
import numpy as np
import pytest

import avit_jax
from avit_jax import flops
from avit_jax.benchmark import profiles
from avit_jax.types import Usage


@pytest.mark.parametrize(
    ("size", "name", "gmacs"),
    [("tiny", "paper", 0.8), ("small", "paper", 3.6), ("tiny", "half", 0.627)],
)
def test_profiles_cost_what_they_are_named_for(size, name, gmacs):
    model = avit_jax.create_model(f"avit_{size}_patch16_224")
    profile = profiles.make_profile(model, name, 16)
    usage = Usage(tokens=profiles.tokens_of(model, profile.depth))
    assert np.mean(flops.gmacs(model.shape, usage)) == pytest.approx(gmacs, rel=0.01)
    assert len(np.unique(profile.depth)) > 5


def test_an_image_painted_for_a_depth_halts_there():
    model = avit_jax.create_model("avit_tiny_patch16_224", image_size=64, depth=6, num_classes=3)
    params = profiles.scripted_params(model, model.init(jax.random.key(0)))
    depth = np.random.default_rng(0).integers(1, 7, (3, 16))
    images = profiles.scripted_images(model, profiles.Profile("test", depth))
    output = model.apply(params, images)
    np.testing.assert_array_equal(output.usage.tokens, profiles.tokens_of(model, depth))


def test_a_profile_without_a_published_figure_is_refused():
    model = avit_jax.create_model("avit_base_patch16_224")
    with pytest.raises(ValueError, match="no profile 'paper' for embed_dim 768"):
        profiles.make_profile(model, "paper", 4)
