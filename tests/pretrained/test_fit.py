"""Positions follow the image size, classifiers the classes; everything else must fit already."""

import logging

import jax
import numpy as np
import pytest

from avit_jax import create_model
from avit_jax.errors import UserError
from avit_jax.pretrained.fit import fit, refuse_other_classes

SIZES = {"embed_dim": 24, "depth": 1, "num_heads": 2, "patch_size": 8, "num_classes": 5}


def model_of(distilled: bool = False, **changes):
    infix = "_distilled" if distilled else ""
    return create_model(f"deit_micro{infix}_patch4_32", **SIZES | changes)


def weights_of(model) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    shapes = model.abstract_params()
    return model.to_torch(
        jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    )


@pytest.mark.parametrize("distilled", [False, True])
def test_weights_load_for_another_image_size(distilled, caplog):
    small, large = model_of(distilled), model_of(distilled, image_size=48)
    weights = weights_of(small)
    with caplog.at_level(logging.INFO, "avit_jax"):
        params = large.from_torch(weights)
    assert caplog.messages == ["positions of 4 x 4 patches are interpolated to 6 x 6."]
    rows = 1 + distilled
    np.testing.assert_array_equal(params["pos_embed"][:, :rows], weights["pos_embed"][:, :rows])
    kept = large.to_torch(params)
    assert all(np.array_equal(kept[n], a) for n, a in weights.items() if n != "pos_embed")


@pytest.mark.parametrize("distilled", [False, True])
def test_another_number_of_classes_gets_a_fresh_classifier_and_a_warning(distilled, caplog):
    weights, model = weights_of(model_of(distilled)), model_of(distilled, num_classes=3)
    first, second = model.from_torch(weights), model.from_torch(weights)
    heads = ["head", "head_dist"] if distilled else ["head"]
    assert caplog.messages == 2 * [
        f"the classifier {head} of 5 classes is replaced by a fresh one of 3 classes: train it."
        for head in heads
    ]
    jax.tree.map(np.testing.assert_array_equal, first, second)
    for head in heads:
        assert 0.1 < np.std(first[head]["kernel"]) * 24**0.5 < 2
        assert not np.any(first[head]["bias"])
    if distilled:
        assert np.any(first["head"]["kernel"] != first["head_dist"]["kernel"])
    kept = model.to_torch(first)
    assert all(np.array_equal(kept[n], a) for n, a in weights.items() if not n.startswith("head"))


def test_weights_that_fit_are_handed_on_as_they_are(caplog):
    weights = weights_of(model_of())
    fitted = fit(weights, model_of().shape)
    assert fitted.keys() == weights.keys()
    assert all(fitted[name] is array for name, array in weights.items())
    assert not caplog.messages


def test_a_backbone_without_a_classifier_gets_a_fresh_one_and_a_warning(caplog):
    for distilled in (False, True):
        weights, model = weights_of(model_of(distilled)), model_of(distilled)
        bare = {name: array for name, array in weights.items() if not name.startswith("head")}
        caplog.clear()
        params = model.from_torch(bare | {"mask_token": np.zeros(2), "decoder_x.bias": np.ones(2)})
        heads = ["head", "head_dist"][: 1 + distilled]
        assert caplog.messages == [
            "left out of the weights, as needed by pretraining alone: mask_token, decoder_x.bias.",
            *(
                f"these weights have no classifier {head}: a fresh one of 5 classes is added, "
                "train it."
                for head in heads
            ),
        ]
        assert all(np.std(params[head]["kernel"]) > 0 for head in heads)
        kept = model.to_torch(params)
        assert all(np.array_equal(kept[name], array) for name, array in bare.items())
    with pytest.raises(UserError, match="these weights have no classifier: fine-tune them on this"):
        refuse_other_classes(bare, model.shape)


@pytest.mark.parametrize(
    "shape",
    [(1, 18, 24), (1, 1, 24), (17, 24), (1, 0, 24), (2, 10, 24), (1, 10, 23), (1, 10, 0)],
    ids=str,
)
def test_a_table_that_is_no_square_grid_of_our_channels_is_a_misfit(shape):
    weights = weights_of(model_of()) | {"pos_embed": np.zeros(shape)}
    with pytest.raises(UserError, match=r"\(1 of another shape: pos_embed \("):
        model_of().from_torch(weights)


def test_a_classifier_that_contradicts_itself_is_a_misfit():
    weights = weights_of(model_of()) | {"head.weight": np.zeros((7, 24))}
    with pytest.raises(UserError, match=r"of another shape: head\.weight \(7, 24\) for \(5"):
        model_of().from_torch(weights)


def test_the_layer_before_the_classifier_goes_with_it_or_is_refused(caplog):
    weights = weights_of(model_of()) | {
        "pre_logits.fc.weight": np.zeros((24, 24)),
        "pre_logits.fc.bias": np.zeros(24),
    }
    model_of(num_classes=3).from_torch(weights)
    assert caplog.messages[1] == "the layer pre_logits is dropped with the classifier that it fed."
    with pytest.raises(
        UserError, match=r"unknown: pre_logits\.fc\.weight, .*set another num_classes"
    ):
        model_of().from_torch(weights)
