"""Images from Python: what is normalised, what is taken, and what is refused with the remedy."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from avit_jax.data.given_images import given_images
from avit_jax.data.mix import normalise
from avit_jax.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)


class Tensor:
    """What PyTorch's tensors have of an array's protocol."""

    def detach(self):
        return PIXELS


@pytest.mark.parametrize(
    "images", [PIXELS, jnp.asarray(PIXELS), list(PIXELS), Tensor()], ids=lambda v: type(v).__name__
)
def test_bytes_are_normalised(images):
    np.testing.assert_array_equal(given_images(images, 8), normalise(jnp.asarray(PIXELS)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_floating_point_images_are_taken_as_they_are(dtype):
    images = np.asarray(normalise(PIXELS)).astype(jnp.dtype(dtype))
    assert given_images(images, 8) is images
    np.testing.assert_array_equal(given_images(images.tolist(), 8), images)


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "int64", "bool", "complex64"])
def test_other_numbers_are_refused(dtype):
    for images in (PIXELS.astype(dtype), list(PIXELS.astype(dtype))):
        with pytest.raises(UserError, match=f"images are {dtype}, .*write images.astype"):
            given_images(images, 8)


@pytest.mark.parametrize(
    "images, said",
    [
        (Image.fromarray(PIXELS[0]), "images are of Pillow"),
        ([Image.fromarray(PIXELS[0])] * 2, "images are of Pillow"),
        ([PIXELS[0], PIXELS[1][:4]], r"are uint8 \[4, 8, 3\] and uint8 \[8, 8, 3\]"),
        ([PIXELS[0], PIXELS[1] / 255], r"are float64 \[8, 8, 3\] and uint8 \[8, 8, 3\]"),
        (PIXELS[0], r"have shape \(8, 8, 3\), that of one image, .*: write images\[None\]"),
        (PIXELS[:, :4], r"have shape \(2, 4, 8, 3\), but this model takes \[B, 8, 8, 3\]"),
        (PIXELS.transpose(0, 3, 1, 2), r"have shape \(2, 3, 8, 8\)"),
        ([], r"have shape \(0,\)"),
        ("cat.jpg", "images are of type str"),
        (["cat.jpg", "dog.jpg"], "images are of type str"),
        (None, "images are of type NoneType"),
        ({"image": PIXELS}, "images are of type dict"),
    ],
)
def test_what_is_no_batch_is_refused_in_a_sentence(images, said):
    with pytest.raises(UserError, match=said):
        given_images(images, 8)
