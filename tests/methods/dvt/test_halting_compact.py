"""Tokens that halt inside an exit leave there, too: masked answers and states from live work."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax import create_model
from avit_jax.execution.image_groups import in_groups
from avit_jax.execution.plan import Plan
from avit_jax.methods.dvt import Model, Settings, early_exit
from avit_jax.models import costs, functional
from tests.execution.executed import counting

BATCH = 7
SIZES = {"embed_dim": 24, "depth": 3, "num_heads": 2, "num_classes": 5}
VIT = {"patch_size": 8, "image_size": 32, **SIZES}
T2T = {"image_size": 64, "token_dim": 8, "token_dropout_rate": 0.0, **SIZES}
# Backbone, grids and what is reused: a cascade of each number of exits, and each reuse alone.
CASES = {
    "all reused": ("avit_tiny_patch16_224", VIT, (2, 4), {}),
    "features": ("avit_t2t_vit_7", T2T, (2, 4), {"relation_reuse": False}),
    "relations": ("avit_tiny_patch16_224", VIT, (2, 3, 4), {"feature_reuse": False}),
    "one by one": ("avit_tiny_patch16_224", VIT, (2, 4), {}),
    "rules and neighbours": ("avit_tiny_patch16_224", VIT, (2, 4), {}),
    "nothing": (
        "avit_tiny_patch16_224", VIT, (2, 4), {"feature_reuse": False, "relation_reuse": False}
    ),
}  # fmt: skip
# Each compiles two programs of several networks.
PARAMS = [pytest.param(name, marks=[pytest.mark.slow] * (name != "all reused")) for name in CASES]
RULES = {
    "max_depth": 2,
    "learn_gates": True,
    "class_tokens_halt": False,
    "spread": "cross",
    "spread_share": 0.5,
}
GONE = np.arange(BATCH) == 2  # an image that does not exist
GATES = {"early": 3.0, "some": 0.0, "late": -0.8, "never": -1e4}


@functools.cache
def compiled(name):
    """A cascade, parameters, images, a plan, and its masked and compact program for thresholds."""
    backbone, sizes, grids, reuse = CASES[name]
    gates = {"gate_scale": 3.0, "gate_center": 0.5}
    rules = RULES if name == "rules and neighbours" else {}
    inner = create_model(backbone, method=gates | rules, **sizes)
    model = Model(inner.shape, Settings(grids=grids, **reuse), inner)
    params = model.init(jax.random.key(0))
    side, tokens = inner.shape.image_size, inner.shape.num_tokens
    images = 2 * np.asarray(jax.random.normal(jax.random.key(1), (BATCH, side, side, 3)))
    together = 1 if name == "one by one" else 4
    plan = Plan(
        images=together,
        row_sizes=(8, 34),
        attention_images=2,
        lengths=(4, 9, tokens),
        dense_images=2,
        packed_exits=True,
    )

    @jax.jit
    def masked(params, thresholds):
        return model.apply(params, images, settings={"thresholds": thresholds})

    def compact(params, exists, thresholds):
        network, changed = (
            functional.bind(model.build, params),
            model.changed({"thresholds": thresholds}),
        )
        return in_groups(
            lambda *group: changed.compact(network, *group, plan), images, exists, most=plan.images
        )

    nobody = jnp.full(len(grids) - 1, 2.0)
    run = counting(compact, params, np.ones(BATCH, bool), tuple(nobody))
    return model, params, plan, masked, run


def with_gates(params, shift):
    """Parameters whose tokens begin with `shift` more in the channel that is their score's."""

    def moved(network):
        return network | {"pos_embed": network["pos_embed"].at[..., 0].add(shift)}

    return {name: moved(network) for name, network in params.items()}


@functools.cache
def answers(name, gates):
    """Masked and compact answers, and multiply-adds that ran, where half leave at each exit."""
    model, params, _, masked, run = compiled(name)
    params = with_gates(params, GATES[gates])
    thresholds = (jnp.float32(2.0),) * (len(model.stages) - 1)
    for index in range(len(thresholds)):
        output = masked(params, thresholds)
        there = output.usage[index].tokens.any((0, 2)) & ~GONE
        sure = np.sort(early_exit.confidence(output.exits[index])[there])
        between = jnp.float32(sure[len(sure) // 2 - 1 :][:2].mean())
        thresholds = (*thresholds[:index], between, *thresholds[index + 1 :])
    return masked(params, thresholds), run(params, ~GONE, thresholds)


@pytest.mark.parametrize("gates", GATES)
@pytest.mark.parametrize("name", PARAMS)
def test_compact_execution_gives_the_masked_answers(name, gates):
    expected, (_, found) = answers(name, gates)
    for ours, theirs in zip(found.exits, expected.exits, strict=True):
        np.testing.assert_allclose(ours[~GONE], theirs[~GONE], atol=1e-5)
    np.testing.assert_array_equal(found.exits[-1], found.logits)
    for ours, theirs in zip(found.usage, expected.usage, strict=True):
        np.testing.assert_array_equal(ours.tokens, theirs.tokens & ~GONE[:, None])
    stays = found.usage[-1].tokens.any((0, 2))
    assert 0 < stays.sum() < BATCH - 1
    halted = 1 - found.usage[0].tokens[1:, ~GONE].mean()
    least, most = {"early": (0.9, 1), "some": (0.3, 0.9), "late": (0.01, 0.3), "never": (0, 0)}[
        gates
    ]
    assert least <= halted <= most


@pytest.mark.parametrize("gates", GATES)
@pytest.mark.parametrize(
    "name", [one for one in PARAMS if one.values[0] in ("all reused", "nothing")]
)
def test_counted_multiply_adds_are_those_executed(name, gates):
    """With two exits, as XLA merges two products where layers that show relations run whole."""
    model, _, plan, *_ = compiled(name)
    _, (adds, found) = answers(name, gates)
    assert model.compact_gmacs(found.usage, plan) * 1e9 == pytest.approx(adds)
    needed = costs.stages_gmacs(model.stages, found.usage, costs.inference_gmacs)
    assert needed[~GONE].sum() <= adds / 1e9
