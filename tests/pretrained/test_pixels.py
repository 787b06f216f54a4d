"""Weights do with our pixels what they did with those of their training."""

import jax
import numpy as np
import pytest

from avit_jax import create_model
from avit_jax.data.mix import normalise
from avit_jax.models import functional
from avit_jax.pretrained.pixels import PIXELS, for_our_pixels


@pytest.mark.parametrize("pixels", PIXELS)
def test_the_tokens_of_an_image_stay_the_same(pixels):
    model, rng = (
        create_model("vit_tiny_patch16_224", image_size=32, depth=1),
        np.random.default_rng(0),
    )
    params = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), model.abstract_params()
    )
    image = rng.integers(0, 256, (2, 32, 32, 3), np.uint8)
    mean, std = PIXELS[pixels]
    theirs = ((image / 255 - mean) / std).astype(np.float32)
    expected = functional.bind(model.build, params).embed(theirs)
    moved = for_our_pixels(params, pixels, model.shape)
    assert (moved is params) == (pixels == "imagenet")
    found = functional.bind(model.build, moved).embed(normalise(image))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)
    assert jax.tree.map(lambda leaf: leaf.dtype, moved) == jax.tree.map(
        lambda leaf: leaf.dtype, params
    )
