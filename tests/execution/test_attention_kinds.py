"""Every kind of attention answers alike however a model is executed, and is counted as it runs."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

import avit_jax
from avit_jax.execution.compact import COMPACT
from avit_jax.execution.image_groups import filled_up
from avit_jax.execution.plan import Plan
from avit_jax.execution.static import STATIC
from avit_jax.models import costs
from avit_jax.models.functional import map_paths
from tests.execution.executed import counting

BATCH = 5
NAMES = {
    "avit": ("avit_micro_patch4_32", {"gate_scale": 4.0, "gate_center": 0.0}),
    "adavit": ("adavit_deit_micro_patch4_32", {"initial_logit": 0.0}),
    "adavit, heads hand values on": (
        "adavit_deit_micro_patch4_32",
        {"initial_logit": 0.0, "head_effect": "attention"},
    ),
}
COSINE = {"attention": "cosine", "layer_scale": 0.5}
LINEAR = {"attention": "linear", "layer_scale": 0.5, "qk_norm": True}
NORMED = {"qk_norm": True}


@functools.cache
def case_of(method, choices):
    """A model that leaves something out, weights, images, the masked answer and its sure images."""
    name, settings = NAMES[method]
    sizes = {"image_size": 32, "patch_size": 8, "depth": 3, "embed_dim": 24, "num_heads": 3}
    model = avit_jax.create_model(name, method=settings, num_classes=5, **sizes, **dict(choices))

    def larger(path, leaf):
        return leaf if path.endswith("logit_scale") else 4.0 * leaf

    params = map_paths(larger, model.init(jax.random.key(0)))
    images = np.random.default_rng(0).normal(size=(BATCH, 32, 32, 3)).astype(np.float32)
    masked = jax.jit(model.apply)(params, images)
    assert all(0.1 < np.mean(part) < 0.95 for part in jax.tree.leaves(masked.usage))
    assert (masked.aux["margin"] > 1e-5).all(), "which tokens are left out hangs on rounding"
    return model, params, images, masked


def plan_of(model, masked, execution, group):
    if execution is COMPACT:
        return Plan(
            images=group, row_sizes=(8, 32), attention_images=2, lengths=(8, 17), dense_images=2
        )
    rows = tuple(int(rows) for rows in np.maximum(model.static_work(masked.usage).sum(1), 1))
    return dataclasses.replace(model.default_plan(BATCH), static_rows=rows)


def slow(*case):
    return pytest.param(*case, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("method", "choices", "execution", "group"),
    [
        slow("avit", COSINE, STATIC, BATCH),
        ("avit", LINEAR, COMPACT, 3),
        slow("adavit", LINEAR, COMPACT, 3),
        slow("avit", COSINE, COMPACT, 1),
        slow("avit", COSINE, COMPACT, 3),
        slow("avit", LINEAR, COMPACT, 1),
        slow("avit", LINEAR, STATIC, BATCH),
        slow("avit", NORMED, COMPACT, 3),
        slow("adavit", COSINE, COMPACT, 3),
        slow("adavit", COSINE, STATIC, BATCH),
        slow("adavit", LINEAR, STATIC, BATCH),
        slow("adavit", NORMED, STATIC, BATCH),
        slow("adavit, heads hand values on", LINEAR, COMPACT, 3),
        slow("adavit, heads hand values on", LINEAR, STATIC, BATCH),
    ],
)
def test_what_is_left_out_changes_no_answer_and_what_runs_is_counted(
    method, choices, execution, group
):
    model, params, images, masked = case_of(method, tuple(choices.items()))
    plan = plan_of(model, masked, execution, group)
    arguments = params, images, np.ones(BATCH, bool)
    run_adds, answer = counting(model.program(execution, plan), *arguments)(*arguments)
    largest = np.abs(masked.logits).max()
    np.testing.assert_allclose(answer.logits, masked.logits, atol=1e-4 * largest)
    for ours, theirs in zip(*map(jax.tree.leaves, (answer.usage, masked.usage)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    counted = execution.executed_gmacs(model, masked.usage, plan) * costs.GIGA
    if model.name == "adavit":  # policies are not counted: of a head, half or patch in each block
        filled = filled_up(BATCH, plan.images) if execution is COMPACT else BATCH
        decisions = model.shape.num_heads + 2 + model.shape.grid**2
        counted += filled * decisions * model.shape.embed_dim * model.shape.depth
    assert counted == pytest.approx(run_adds)
