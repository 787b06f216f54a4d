"""What is counted for compact execution of chosen work is what the program multiplies."""

import jax
import numpy as np
import pytest

from avit_jax.execution.compact import COMPACT
from avit_jax.execution.execution import executed_gmacs
from avit_jax.execution.image_groups import filled_up
from avit_jax.execution.plan import Plan
from avit_jax.models import costs
from tests.execution.executed import counting
from tests.execution.policies import EVEN, images_of, make, params_of

BATCH = 5
# The first block leaves nothing out and is run whole; the others leave out about half.
KEEP = {kind: [1.0, *shares[1:]] for kind, shares in EVEN.items()}


def deciding(model, plan) -> int:
    """Multiply-adds of the policies, which are not counted: they are run for every image."""
    shape, settings = model.shape, model.settings
    patches = shape.num_tokens - shape.num_prefix_tokens
    outputs = {"heads": shape.num_heads, "layers": 2, "tokens": patches}
    each = sum(outputs[kind] for kind in settings.chosen) * shape.embed_dim * shape.depth
    return filled_up(BATCH, plan.images) * each


def plan_of(**sizes) -> Plan:
    return Plan(images=3, row_sizes=(8,), dense_images=2, **sizes)


@pytest.mark.parametrize(
    ("sizes", "plan"),
    [
        ({}, plan_of(attention_images=2, lengths=(2, 5, 10))),
        (
            {"method": {"head_effect": "hidden"}, "mlp_ratio": 20 / 12},
            plan_of(attention_images=1, lengths=(5, 10)),
        ),
        (
            {
                "method": {"head_effect": "attention", "every_token_in_mlp": True},
                "distilled": True,
            },
            plan_of(attention_images=4, lengths=(6, 11)),
        ),
        pytest.param({}, plan_of(attention_images=2, lengths=(4, 10)), marks=pytest.mark.slow),
    ],
    ids=["channels", "hidden units that heads do not divide", "attention", "packed"],
)
def test_counted_multiply_adds_are_those_executed(sizes, plan):
    model = make(**sizes)
    params, images = params_of(model, KEEP), images_of(model, BATCH)
    program = model.program(COMPACT, plan)
    arguments = params, images, np.ones(BATCH, bool)
    run_adds, output = counting(program, *arguments)(*arguments)
    usage = output.usage
    counted = model.compact_gmacs(usage, plan) * costs.GIGA
    assert counted == pytest.approx(run_adds - deciding(model, plan))
    assert costs.inference_gmacs(model.shape, usage[0]).sum() * costs.GIGA < counted


def test_devices_run_what_each_of_them_runs():
    model = make()
    plan = plan_of(attention_images=2, lengths=(5, 10))
    usage = jax.jit(model.apply)(params_of(model, EVEN), images_of(model, 4)).usage
    halves = [
        jax.tree.map(lambda leaf, at=at: leaf[:, at], usage) for at in (slice(2), slice(2, 4))
    ]
    apart = sum(model.compact_gmacs(half, plan) for half in halves)
    together = executed_gmacs(COMPACT, model, usage, plan, devices=2)
    assert together == pytest.approx(apart)


def test_images_that_only_fill_up_cost_embedding_head_and_the_prefix_of_the_last_block():
    model = make()
    plan = plan_of(attention_images=1, lengths=(5, 10))
    usage = jax.jit(model.apply)(params_of(model, EVEN), images_of(model, 3)).usage[0]
    # Few enough tokens that no block is run whole, whoever is in the group.
    usage = usage.replace(tokens=usage.tokens & (np.arange(model.shape.num_tokens) < 6))
    first = usage.replace(tokens=usage.tokens & (np.arange(3) < 1)[:, None])
    alone = jax.tree.map(lambda leaf: leaf[:, :1], usage)
    shape, prefix = model.shape, model.shape.num_prefix_tokens
    queries_and_projection = 2 * prefix * shape.embed_dim**2
    fixed = costs.embedding(shape) + costs.readout(shape) + costs.mlp(shape, prefix)
    fixed += queries_and_projection
    more = model.compact_gmacs((first,), plan) - model.compact_gmacs((alone,), plan)
    assert more * costs.GIGA == pytest.approx(2 * fixed)
