"""AdaViT's published names come in and go out, and weights without policies are completed."""

import chex
import jax
import numpy as np
import pytest

import avit_jax
from avit_jax.errors import UserError
from avit_jax.pretrained import query_key_value
from avit_jax.pretrained.torch_writer import save_torch
from tests.parity import adavit

CASES = ("tiny_deit_eval", "tiny_t2t_eval")
SIZES = {"embed_dim": 24, "depth": 3, "num_heads": 3, "patch_size": 8, "num_classes": 5}


@pytest.mark.parametrize("case", CASES)
def test_published_names_come_in_and_go_out_bit_for_bit(case, tmp_path):
    golden = adavit.recorded(case)
    model, theirs = adavit.model_of(golden), adavit.weights(golden)
    assert "blocks.0.attn.query.weight" in theirs
    assert "blocks.1.head_select.mlp_head.weight" in theirs
    save_torch(tmp_path / "weights.pth", theirs)
    params = model.from_torch(avit_jax.load_torch(tmp_path / "weights.pth"))
    found = model.to_torch(params)
    assert set(found) == set(theirs)
    for name, array in theirs.items():
        assert found[name].tobytes() == np.ascontiguousarray(array).tobytes(), name
    # Policies belong to the last blocks, and their outputs stay in order.
    ours = params["policies"]["heads"]["kernel"][-1]
    last = model.shape.depth - 1
    np.testing.assert_array_equal(ours, theirs[f"blocks.{last}.head_select.mlp_head.weight"].T)


@pytest.mark.parametrize("missing", ["head_select", "layer_select", "token_select"])
def test_policies_that_are_missing_in_part_are_named(missing):
    golden = adavit.recorded(CASES[0])
    some = {name: a for name, a in adavit.weights(golden).items() if missing not in name}
    with pytest.raises(UserError, match=rf"missing: blocks\.\d\.(attn\.)?{missing}"):
        adavit.model_of(golden).from_torch(some)


@pytest.mark.parametrize(
    ("settings", "dropped"),
    [
        ({"heads": False}, "heads (blocks 1, 2, 3, 4)"),
        ({"layers": False, "keep_layers": 2}, "heads (block 1), layers (blocks 1, 2, 3, 4)"),
        ({"token_start_layer": 2}, "tokens (blocks 0, 1)"),
        (
            {"heads": False, "layers": False, "tokens": False},
            "heads (blocks 1, 2, 3, 4), layers (blocks 1, 2, 3, 4), tokens (blocks 0, 1, 2, 3, 4)",
        ),
    ],
)
def test_policies_that_the_settings_switch_off_are_dropped_and_named(settings, dropped, caplog):
    golden = adavit.recorded(CASES[0])
    model, theirs = adavit.model_of(golden, **settings), adavit.weights(golden)
    with caplog.at_level("WARNING", logger="avit_jax"):
        found = model.to_torch(model.from_torch(theirs))
    assert caplog.messages == [
        f"policies that the settings switch off are dropped from these weights: {dropped}."
    ]
    assert set(found) < set(theirs)
    assert all("_select" in name for name in set(theirs) - set(found))
    for name, array in found.items():
        np.testing.assert_array_equal(array, theirs[name])


def test_beside_dropped_policies_every_name_counts():
    golden = adavit.recorded(CASES[0])
    theirs = adavit.weights(golden)
    model = adavit.model_of(golden, heads=False)
    with pytest.raises(UserError, match=r"\(1 unknown: blocks\.1\.other\)"):
        model.from_torch(theirs | {"blocks.1.other": np.zeros(3)})
    some = {name: array for name, array in theirs.items() if "layer_select" not in name}
    with pytest.raises(UserError, match=r"\(8 of \d+ names missing: blocks\.1\.layer_select"):
        model.from_torch(some)
    heads = {n: a for n, a in some.items() if "token_select" not in n}
    with pytest.raises(UserError, match=r"missing: blocks\.1\.layer_select"):
        model.from_torch(heads)
    with pytest.raises(UserError, match=r"missing: blocks\.0\.head_select"):
        adavit.model_of(golden, keep_layers=0).from_torch(theirs)


def test_an_incomplete_triple_is_left_for_the_check_of_names():
    golden = adavit.recorded(CASES[0])
    some = adavit.weights(golden)
    del some["blocks.2.attn.key.weight"]
    with pytest.raises(UserError, match=r"missing: blocks\.2\.attn\.qkv\.weight") as refusal:
        adavit.model_of(golden).from_torch(some)
    assert "2 unknown: blocks.2.attn.query.weight, " in str(refusal.value)


@pytest.mark.parametrize("apart", [False, True])
def test_plain_weights_are_completed_with_fresh_policies_and_a_warning(apart, caplog):
    plain = avit_jax.create_model("deit_micro_patch4_32", **SIZES)
    model = avit_jax.create_model("adavit_deit_micro_patch4_32", **SIZES)
    params = plain.init(jax.random.key(1))
    state_dict = plain.to_torch(params)
    if apart:
        state_dict = query_key_value.apart(state_dict)
    with caplog.at_level("WARNING", logger="avit_jax"):
        found = model.from_torch(state_dict)
    assert caplog.messages == ["these weights have no policies: fresh ones are added, train them."]
    chex.assert_trees_all_equal(jax.tree.map(np.shape, found), shapes(model))
    policies = found.pop("policies")
    chex.assert_trees_all_equal(found, params)
    for policy in policies.values():
        np.testing.assert_array_equal(policy["bias"], model.settings.initial_logit)


def test_a_model_that_chooses_nothing_takes_plain_weights_without_a_word(caplog):
    plain = avit_jax.create_model("deit_micro_patch4_32", **SIZES)
    nothing = {"heads": False, "layers": False, "tokens": False}
    model = avit_jax.create_model("adavit_deit_micro_patch4_32", method=nothing, **SIZES)
    params = plain.init(jax.random.key(1))
    with caplog.at_level("WARNING", logger="avit_jax"):
        chex.assert_trees_all_equal(model.from_torch(plain.to_torch(params)), params)
    assert not caplog.messages


def shapes(model):
    return jax.tree.map(lambda leaf: leaf.shape, model.abstract_params())
