"""Names come out of whatever wrapped the network, and what lies beside it stays out."""

import pytest

from avit_jax.pretrained.wrappers import networks, unwrapped

NETWORK = ("cls_token", "blocks.0.attn.qkv.weight", "blocks.11.mlp.fc1.bias", "norm.weight")
WITH_HEAD = (*NETWORK, "head.weight", "head.bias")


@pytest.mark.parametrize(
    "front",
    [
        "module.",
        "model.",
        "_orig_mod.",
        "model._orig_mod.",
        "module.model.",
        "_orig_mod.module.",
        "backbone.",
        "model.backbone.net.",
        "student.module.backbone.",
        "image_encoder.trunk.",
        "_fsdp_wrapped_module.",
    ],
)
def test_whatever_stands_in_front_of_all_names_is_taken_off(front):
    assert list(unwrapped({front + name: name for name in WITH_HEAD})) == list(WITH_HEAD)


@pytest.mark.parametrize("inserted", ["_orig_mod", "_checkpoint_wrapped_module"])
def test_what_a_compiler_puts_into_names_is_taken_out(inserted):
    theirs = {name.replace("blocks.0.", f"blocks.0.{inserted}."): name for name in WITH_HEAD}
    assert unwrapped(theirs) == {name: name for name in WITH_HEAD}
    theirs = {name.replace(".qkv.", f".{inserted}.qkv."): name for name in WITH_HEAD}
    assert unwrapped(theirs) == {name: name for name in WITH_HEAD}


def test_two_names_that_would_become_one_stay_two():
    names = ["x.weight", "_orig_mod.x.weight"]
    assert list(unwrapped(dict.fromkeys(names))) == names


def test_a_classifier_beside_the_network_is_its_own_and_other_things_are_not(caplog):
    theirs = {f"backbone.{name}": name for name in NETWORK}
    theirs |= {"head.weight": "head.weight", "head.mlp.0.weight": 1, "criterion.weight": 2}
    assert unwrapped(theirs) == {name: name for name in (*NETWORK, "head.weight")}
    assert caplog.messages == [
        "left out of the weights, as lying beside backbone: head.mlp.0.weight, criterion.weight."
    ]


def test_counts_of_wrappers_are_left_out(caplog):
    counts = ["total_ops", "blocks.0.total_params", "n_averaged", "norm.total_params"]
    assert list(unwrapped(dict.fromkeys([*WITH_HEAD, *counts]))) == list(WITH_HEAD)
    assert caplog.messages == [
        "left out of the weights, as counts of a wrapper: total_ops, blocks.0.total_params, "
        "n_averaged and 1 more."
    ]


def test_names_that_a_model_wants_stay_as_they_are():
    cascade = [f"{part}.{name}" for part in ("fine", "coarse") for name in NETWORK]
    assert networks(cascade) == ["coarse.", "fine."]
    for names in (cascade, [f"net.{name}" for name in NETWORK]):
        assert list(unwrapped(dict.fromkeys(names), wanted=names)) == names
    assert list(unwrapped(dict.fromkeys(cascade))) == cascade


@pytest.mark.parametrize(
    ("name", "root"),
    [
        ("blocks.0.norm1.bias", [""]),
        ("deit.encoder.layer.3.output.dense.bias", ["deit."]),
        ("vit.layers.0.mlp.fc1.bias", ["vit."]),
        ("decoder_blocks.0.norm1.bias", []),
        ("layers.0.blocks.1.norm1.bias", [""]),
        ("encoder.layers.encoder_layer_0.ln_1.bias", []),
        ("Transformer/encoderblock_0/LayerNorm_0/bias", []),
    ],
)
def test_a_network_is_known_by_its_blocks(name, root):
    assert networks([name]) == root
