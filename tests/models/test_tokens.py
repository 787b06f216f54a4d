"""Class tokens, registers and averaged patches: where they stand, and what classifiers read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax import UserError, create_model
from avit_jax.models import functional
from avit_jax.models.vit import ViTShape
from tests.models.by_hand import norm

SIZES = {"image_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3}
PATCHES = 16
RANDOM = np.random.default_rng(0)


def network(**changes):
    shape = ViTShape(**{**SIZES, "num_classes": 5, **changes})

    def draw(leaf):
        return jnp.asarray(RANDOM.normal(size=leaf.shape), leaf.dtype)

    return functional.bind(shape.build, jax.tree.map(draw, functional.abstract(shape.build)))


@pytest.mark.parametrize("places", [True, False])
@pytest.mark.parametrize("distilled", [True, False])
def test_registers_stand_between_the_tokens_that_are_read_and_the_patches(distilled, places):
    vit = network(num_class_tokens=2, distilled=distilled, num_registers=3, pos_embed_prefix=places)
    images = jnp.asarray(RANDOM.normal(size=(2, 32, 32, 3)), jnp.float32)
    read, table = [vit.cls_token[...][0]], np.asarray(vit.pos_embed[...][0])
    if distilled:
        read.append(vit.dist_token[...][0])
    read = np.concatenate(read)
    count = len(read)
    assert len(table) == PATCHES + places * count
    expected = [
        read + (table[:count] if places else 0),
        vit.reg_token[...][0],  # which has no position in either case
        np.asarray(vit.patches(images, None))[1] + table[-PATCHES:],
    ]
    assert vit.shape.num_answer_tokens == count
    assert vit.shape.num_prefix_tokens == count + 3
    assert vit.shape.num_tokens == count + 3 + PATCHES
    np.testing.assert_allclose(vit.embed(images)[1], np.concatenate(expected), rtol=1e-6)


@pytest.mark.parametrize("merge", ["mean", "sum"])
def test_several_class_tokens_are_merged_behind_the_last_norm(merge):
    vit = network(num_class_tokens=3, class_token_merge=merge, distilled=True, num_registers=1)
    tokens = RANDOM.normal(size=(2, 21, 24))
    features = norm(vit.norm, tokens)
    classes = features[:, :3].sum(1) / (3 if merge == "mean" else 1)
    heads = vit.readout(vit.read(jnp.asarray(tokens, jnp.float32)))
    for found, head, part in zip(
        heads, (vit.head, vit.head_dist), (classes, features[:, 3]), strict=True
    ):
        expected = part @ np.asarray(head.kernel[...]) + np.asarray(head.bias[...])
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("class_tokens", [0, 1])
def test_the_mean_of_the_patches_is_normalised_behind_it(class_tokens):
    vit = network(pool="avg", num_class_tokens=class_tokens, num_registers=2)
    assert hasattr(vit, "cls_token") == bool(class_tokens)
    tokens = RANDOM.normal(size=(2, class_tokens + 2 + PATCHES, 24))
    mean = norm(vit.norm, tokens[:, -PATCHES:].mean(1))
    (found,) = vit.readout(vit.read(jnp.asarray(tokens, jnp.float32)))
    expected = mean @ np.asarray(vit.head.kernel[...]) + np.asarray(vit.head.bias[...])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="readout got 19 tokens"):
        vit.readout(jnp.zeros((2, 19, 24)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_class_tokens": 0}, "num_class_tokens is 0, but .* set pool to avg"),
        ({"pool": "avg", "distilled": True}, "pool is avg, but a distilled model reads"),
        ({"pool": "max"}, "pool is 'max'.*token, avg"),
        ({"num_registers": -1}, "num_registers is -1.*at least 0"),
        ({"class_token_merge": "max"}, "class_token_merge is 'max'.*mean, sum"),
    ],
)
def test_tokens_that_make_no_sense_together_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        ViTShape(**SIZES, **changes)


def test_policies_need_a_class_token_to_read():
    with pytest.raises(UserError, match="read the class token, and num_class_tokens is 0"):
        create_model("adavit_deit_micro_patch4_32", pool="avg", num_class_tokens=0)
