"""Static sizes: they rise, they cover, and a plan for something else is refused."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avit_jax.execution.plan import Plan, default_plan, ladder

PLAN = {"images": 4, "row_sizes": (8, 32), "attention_images": 2, "lengths": (4, 17)}


@given(st.integers(1, 5000), st.floats(1.0, 2.0), st.integers(1, 64))
def test_a_ladder_rises_to_its_last_size(last, ratio, step):
    sizes = ladder(last, ratio=ratio, step=step)
    assert sizes[-1] == last
    assert all(a < b for a, b in itertools.pairwise(sizes))


@given(st.integers(0, 500))
def test_rows_run_cover_the_live_ones_with_less_than_one_block_too_many(total):
    run = Plan(**PLAN, dense_images=1).rows_run(total)
    assert total <= run < total + 32


@given(st.integers(2, 600), st.integers(1, 512), st.sampled_from(["cpu", "gpu", "tpu"]))
def test_every_model_and_batch_gets_a_plan(tokens, batch, platform):
    plan = default_plan(tokens, batch, num_heads=3, platform=platform)
    plan.check(num_tokens=tokens, depth=12)
    assert plan.images <= batch and plan.attention_images <= plan.images


def test_a_plan_that_was_stored_with_sizes_of_heads_is_still_read():
    plan = Plan(**PLAN, dense_images=1)
    assert Plan.from_dict(plan.to_dict() | {"head_sizes": [1, 3]}) == plan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": 0}, "plan.images is 0: write at least 1"),
        ({"row_sizes": (8, 8)}, "numbers above 0 that rise"),
        ({"lengths": ()}, "numbers above 0 that rise"),
        ({"capacities": (5, 0)}, "each at least 1"),
    ],
)
def test_sizes_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Plan(**{**PLAN, "dense_images": 1, **changes})


def test_a_plan_for_another_model_is_refused():
    plan = Plan(**PLAN, dense_images=1, capacities=(17, 9))
    with pytest.raises(ValueError, match="lengths end with 17, but the model has 65"):
        plan.check(num_tokens=65, depth=2)
    with pytest.raises(ValueError, match="2 capacities for a model of 3 layers"):
        plan.check(num_tokens=17, depth=3)
