"""Weights travel to the names of Hugging Face's transformers and back without a bit changed."""

import jax
import numpy as np
import pytest

from avit_jax import create_model
from avit_jax.errors import UserError
from avit_jax.pretrained import transformers_names
from tests.pretrained.test_names import counting_params, model_of

LAYOUTS = transformers_names.LAYOUTS


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("distilled", [False, True])
@pytest.mark.parametrize("qkv_bias", [False, True])
def test_a_round_trip_is_exact_bit_for_bit(layout, distilled, qkv_bias):
    model = model_of(distilled, qkv_bias=qkv_bias)
    params = counting_params(model)
    theirs = model.to_torch(params, layout=layout)
    jax.tree.map(np.testing.assert_array_equal, model.from_torch(theirs), params)
    again = model.to_torch(model.from_torch(theirs), layout=layout)
    assert all(again[name].tobytes() == array.tobytes() for name, array in theirs.items())
    # As `ViTModel` has them, and in a wrapper.
    bare = {name.removeprefix("vit.").removeprefix("deit."): a for name, a in theirs.items()}
    for other in (bare, {f"model.{name}": a for name, a in theirs.items()}):
        jax.tree.map(np.testing.assert_array_equal, model.from_torch(other), params)


def test_names_are_those_that_save_pretrained_writes():
    """Listed by transformers 5.24 for a distilled DeiT of one layer, and a ViT's of version 5."""
    found = model_of(True, depth=1).to_torch(
        counting_params(model_of(True, depth=1)), layout="transformers"
    )
    modules = {
        "deit.embeddings.patch_embeddings.projection",
        "deit.layernorm",
        "cls_classifier",
        "distillation_classifier",
        *(
            f"deit.encoder.layer.0.{module}"
            for module in (
                "attention.attention.query",
                "attention.attention.key",
                "attention.attention.value",
                "attention.output.dense",
                "intermediate.dense",
                "output.dense",
                "layernorm_before",
                "layernorm_after",
            )
        ),
    }
    alone = {"cls_token", "distillation_token", "position_embeddings"}
    assert set(found) == {f"{m}.{leaf}" for m in modules for leaf in ("weight", "bias")} | {
        f"deit.embeddings.{name}" for name in alone
    }
    plain = model_of(depth=1)
    found = plain.to_torch(counting_params(plain), layout="transformers5")
    assert {"classifier.weight", "vit.layernorm.bias", "vit.layers.0.mlp.fc2.bias"} < set(found)
    parts = ("q_proj", "k_proj", "v_proj", "o_proj")
    assert {f"vit.layers.0.attention.{part}.weight" for part in parts} < set(found)


def test_query_key_and_value_keep_their_order():
    model = model_of()
    params = counting_params(model)
    theirs = model.to_torch(params, layout="transformers")
    kernel = params["blocks"]["attention"]["qkv"]["kernel"][1]  # [24, 3 * 24]
    for number, part in enumerate(("query", "key", "value")):
        np.testing.assert_array_equal(
            theirs[f"vit.encoder.layer.1.attention.attention.{part}.weight"],
            kernel[:, 24 * number : 24 * (number + 1)].T,
        )


def test_a_pooler_is_left_out_and_a_missing_classifier_made_fresh(caplog):
    model = model_of()
    theirs = model.to_torch(counting_params(model), layout="transformers")
    theirs = {name: array for name, array in theirs.items() if "classifier" not in name}
    params = model.from_torch(theirs | {"vit.pooler.dense.weight": np.zeros((24, 24))})
    assert caplog.messages == [
        "left out of the weights, as read by no classifier of transformers: pooler.dense.weight.",
        "these weights have no classifier head: a fresh one of 5 classes is added, train it.",
    ]
    kept = model.to_torch(params, layout="transformers")
    assert all(np.array_equal(kept[name], array) for name, array in theirs.items())


def test_other_models_and_layouts_are_refused():
    policies = create_model("adavit_deit_micro_patch4_32", depth=2)
    with pytest.raises(
        UserError, match=r"nothing like blocks\.\d\.[a-z_.]+: write .*layout='timm'"
    ):
        policies.to_torch(counting_params(policies), layout="transformers")
    with pytest.raises(UserError, match="layout 'hf' is unknown: write timm, transformers, tra"):
        model_of().to_torch(counting_params(model_of()), layout="hf")
