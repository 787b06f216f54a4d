"""Compact execution of chosen tokens, heads and halves gives the masked answers."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from avit_jax.execution.compact import COMPACT
from avit_jax.execution.plan import Plan
from avit_jax.runtime.device_mesh import make_mesh
from tests.execution.policies import DEPTH, EVEN, ONE, images_of, make, params_of

BATCH = 5
ONE_DEVICE = make_mesh(devices=jax.devices()[:1])
BORDER = 1e-4  # of a logit, below which sums in another order may decide otherwise


def plan_of(**sizes) -> Plan:
    usual = {"images": BATCH, "attention_images": 2, "lengths": (2, 5, 10), "row_sizes": (8,)}
    return Plan(dense_images=2, **{**usual, **sizes})


# A model and the sizes it is run with: every head effect, kinds that are missing, both backbones,
# and plans that pad, that do not, and that leave blocks of rows or groups unfilled.
CASES = {
    "released": ({}, plan_of()),
    "hidden": (
        {"method": {"head_effect": "hidden", "tokens": False}},
        plan_of(images=3, attention_images=1, lengths=(1, 10)),
    ),
    "hidden units that heads do not divide": (
        {"method": {"head_effect": "hidden", "layers": False}, "mlp_ratio": 20 / 12},
        plan_of(attention_images=3, lengths=(4, 10)),
    ),
    "attention": (
        {"method": {"head_effect": "attention", "every_token_in_mlp": True}},
        plan_of(attention_images=4, lengths=(3, 10)),
    ),
    "hidden, packed": (
        {"method": {"head_effect": "hidden"}},
        plan_of(images=3, row_sizes=(4, 16), attention_images=4, lengths=(1, 10)),
    ),
    "attention, packed": (
        {"method": {"head_effect": "attention"}},
        plan_of(row_sizes=(64,), attention_images=1, lengths=(3, 10)),
    ),
    "no heads, distilled": (
        {"method": {"heads": False, "every_token_in_mlp": True}, "distilled": True},
        plan_of(images=2, attention_images=3, lengths=(2, 6, 11)),
    ),
    "T2T, late": (
        {"backbone": "t2t", "method": {"keep_layers": 2, "token_start_layer": 1}},
        plan_of(images=4, attention_images=2, lengths=(4, 10)),
    ),
    "nothing chosen": (
        {"method": {"heads": False, "layers": False, "tokens": False}},
        plan_of(lengths=(10,)),
    ),
}
SHARES = st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0, ONE]), min_size=DEPTH, max_size=DEPTH)
KEPT = st.fixed_dictionaries({"heads": SHARES, "layers": SHARES, "tokens": SHARES})


@functools.cache
def compiled(case):
    """The model, and masked and compact execution as functions of parameters."""
    sizes, plan = CASES[case]
    model = make(**sizes)
    compact = model.program(COMPACT, plan)
    return model, jax.jit(model.apply), jax.jit(compact)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[pytest.mark.slow] * (case in ("hidden, packed", "T2T, late")))
        for case in CASES
    ],
)
@settings(max_examples=8, deadline=None)
@example(EVEN, 0, BATCH)
@example({kind: [1.0] * DEPTH for kind in EVEN}, 0, BATCH)
@example({kind: [0.0] * DEPTH for kind in EVEN}, 0, BATCH)
@example({kind: [ONE] * DEPTH for kind in EVEN}, 0, 3)
@given(KEPT, st.integers(0, 100), st.integers(1, BATCH))
def test_whatever_is_kept_the_answers_are_the_masked_ones(case, keep, seed, count):
    model, masked, compact = compiled(case)
    params, images = params_of(model, keep, seed), images_of(model, BATCH, seed)
    expected = masked(params, images)
    found = compact(params, images, np.arange(BATCH) < count)
    sure = (np.asarray(expected.aux["margin"]) > BORDER) & (np.arange(BATCH) < count)
    np.testing.assert_allclose(found.logits[sure], expected.logits[sure], atol=2e-5)
    pairs = zip(jax.tree.leaves(found.usage), jax.tree.leaves(expected.usage), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours[:, sure], theirs[:, sure])
    assert not found.usage[0].tokens[:, count:].any(), "images that only fill up run nothing"


@pytest.mark.parametrize("case", [case for case in CASES if case != "nothing chosen"])
def test_the_policies_of_these_tests_keep_some_and_drop_some(case):
    model, masked, _ = compiled(case)
    output = masked(params_of(model, EVEN), images_of(model, BATCH))
    for part in jax.tree.leaves(output.usage):
        assert 0.1 < part.mean() < 0.9
    assert (output.aux["margin"] > BORDER).all()


def test_an_image_that_is_not_finite_spoils_its_own_answer_only():
    model, masked, compact = compiled("released")
    params, images = params_of(model, EVEN), images_of(model, BATCH)
    images[2] = np.nan
    found = np.asarray(compact(params, images, np.ones(BATCH, bool)).logits)
    expected = np.asarray(masked(params, images).logits)
    others = [0, 1, 3, 4]
    np.testing.assert_allclose(found[others], expected[others], atol=1e-5)


def test_bfloat16_compact_is_as_close_to_masked_as_bfloat16_allows():
    model = make(dtype="bfloat16")
    params, images = params_of(model, EVEN), images_of(model, 16)
    plan = plan_of(images=16)
    compact = model.compile(params, batch_size=16, plan=plan, mesh=ONE_DEVICE)(images)
    masked = jax.jit(model.apply)(params, images)
    # Decisions are made in float32 of tokens that are rounded.
    sure = np.asarray(masked.aux["margin"]) > 0.05
    assert sure.any()
    pairs = zip(jax.tree.leaves(compact.usage), jax.tree.leaves(masked.usage), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours[:, sure], theirs[:, sure])
    scale = np.abs(masked.logits).max()
    np.testing.assert_allclose(compact.logits[sure], masked.logits[sure], atol=0.03 * scale)


def test_devices_share_the_images_without_changing_answers():
    model = make()
    params, images = params_of(model, EVEN), images_of(model, 8)
    plan = plan_of(images=1, lengths=(10,))
    one, eight = (
        model.compile(params, batch_size=8, plan=plan, mesh=mesh)
        for mesh in (ONE_DEVICE, make_mesh())
    )
    assert len(jax.devices()) == 8
    found, expected = eight(images), one(images)
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)
    np.testing.assert_array_equal(found.usage[0].tokens, expected.usage[0].tokens)
    text = eight._program.as_text()
    assert not any(word in text for word in ("all-reduce", "all-gather", "all-to-all", "permute("))
