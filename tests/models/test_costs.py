"""The formula for multiply-adds against the published numbers and against the compiled program."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avit_jax import create_model
from avit_jax.execution import capped
from avit_jax.execution.capped import CAPPED
from avit_jax.execution.image_groups import filled_up
from avit_jax.models import costs
from avit_jax.models.vit import ViTShape
from avit_jax.types import HEAD_EFFECTS, Usage

SMALL = ViTShape(image_size=32, patch_size=8, embed_dim=48, depth=3, num_heads=4, num_classes=10)
# About the arithmetic in float32 of sums that the formulas take in another order.
CLOSE = {"rtol": 1e-5}


def multiply_adds(jaxpr) -> int:
    """Multiply-adds of all matrix products in a jaxpr; a scan's body counts once per turn."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), (batched, _) = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            free = [v.aval.ndim - len(contracted) - len(batched) for v in equation.invars]
            # A product with a vector is a masked sum in other words (attention's normaliser).
            if min(free) > 0:
                size = equation.outvars[0].aval.size
                total += size * math.prod(left[axis] for axis in contracted)
        turns = equation.params["length"] if equation.primitive.name == "scan" else 1
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=has_equations):
            if has_equations(inner):
                total += turns * multiply_adds(getattr(inner, "jaxpr", inner))
    return total


def has_equations(value) -> bool:
    return hasattr(getattr(value, "jaxpr", value), "eqns")


def usage(shape: ViTShape, tokens, **parts) -> Usage:
    """The same number of live tokens in each layer of one image."""
    live = np.arange(shape.num_tokens) < np.broadcast_to(tokens, shape.depth)[:, None]
    return Usage(tokens=jnp.asarray(live[:, None]), **parts)


def test_the_walker_counts_products_batches_and_turns_of_a_scan():
    def program(x):
        def body(carry, matrix):
            return carry @ matrix, None

        turned, _ = jax.lax.scan(body, x, jnp.ones((7, 5, 5)))
        return jax.jit(lambda y: jnp.einsum("bij,bjk->bik", y[None], y.T[None]))(turned)

    jaxpr = jax.make_jaxpr(program)(jnp.ones((3, 5))).jaxpr
    assert multiply_adds(jaxpr) == 7 * 3 * 5 * 5 + 3 * 5 * 3


@pytest.mark.parametrize(("size", "gmacs"), [("tiny", 1.254), ("small", 4.599), ("base", 17.56)])
def test_deit_costs_what_is_published(size, gmacs):
    found = create_model(f"deit_{size}_patch16_224").dense_gmacs()
    assert found == pytest.approx(gmacs, abs=5e-4 if size != "base" else 5e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"distilled": True},
        {"mlp_ratio": 3.0, "num_heads": 8},
        {"patch_size": 4, "depth": 5},
        {"attention": "cosine", "layer_scale": 0.1},
        {"attention": "linear", "qk_norm": True},
    ],
)
@pytest.mark.parametrize("family", ["deit", "avit"])
def test_the_formula_equals_the_contractions_of_the_program(changes, family):
    sizes = dataclasses.asdict(dataclasses.replace(SMALL, **changes))
    model = create_model(f"{family}_micro_patch4_32", **sizes)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    jaxpr = jax.make_jaxpr(lambda params, x: model.apply(params, x, execution="dense").logits)(
        model.abstract_params(), image
    )
    assert multiply_adds(jaxpr.jaxpr) == round(model.dense_gmacs() * costs.GIGA)


def test_capped_execution_costs_what_its_program_contracts():
    sizes = dataclasses.asdict(dataclasses.replace(SMALL, distilled=True))
    model = create_model("avit_micro_patch4_32", **sizes)
    plan = model.default_plan(3)
    plan = dataclasses.replace(plan, images=2, capacities=(99, 8, 1))
    jaxpr = jax.make_jaxpr(model.program(CAPPED, plan))(
        model.abstract_params(),
        jax.ShapeDtypeStruct((3, 32, 32, 3), jnp.float32),
        jax.ShapeDtypeStruct((3,), bool),
    )
    # Three images in groups of two are four.
    assert filled_up(3, plan.images) == 4
    counted = capped.image_gmacs(model, plan) * 4 * costs.GIGA
    assert multiply_adds(jaxpr.jaxpr) == pytest.approx(counted, rel=1e-6)


def test_full_usage_costs_the_dense_cost():
    full = usage(SMALL, SMALL.num_tokens)
    np.testing.assert_allclose(costs.gmacs(SMALL, full), [costs.dense_gmacs(SMALL)], **CLOSE)
    everything = usage(
        SMALL,
        SMALL.num_tokens,
        heads=jnp.ones((3, 1, 4)),
        halves=jnp.ones((3, 1, 2)),
    )
    np.testing.assert_allclose(costs.gmacs(SMALL, everything), [costs.dense_gmacs(SMALL)], **CLOSE)


def test_without_a_live_token_only_embedding_and_head_remain():
    embedding, head = 16 * 3 * 8**2 * 48, 48 * 10
    np.testing.assert_allclose(
        costs.gmacs(SMALL, usage(SMALL, 0)), [(embedding + head) / 1e9], **CLOSE
    )


def test_a_model_of_fewer_tokens_costs_the_same_as_a_larger_one_whose_others_are_skipped():
    fewer = dataclasses.replace(SMALL, image_size=16)
    blocks = costs.dense_gmacs(fewer) - (costs.embedding(fewer) + costs.readout(fewer)) / 1e9
    found = costs.per_layer(SMALL, usage(SMALL, fewer.num_tokens)).sum() / 1e9
    np.testing.assert_allclose(found, blocks, **CLOSE)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, SMALL.num_tokens - 1), min_size=3, max_size=3), st.integers(0, 2))
def test_one_more_live_token_in_any_layer_costs_more(tokens, layer):
    more = list(tokens)
    more[layer] += 1
    fewer_cost, more_cost = (costs.per_layer(SMALL, usage(SMALL, t))[:, 0] for t in (tokens, more))
    assert more_cost[layer] > fewer_cost[layer]
    np.testing.assert_array_equal(np.delete(more_cost, layer), np.delete(fewer_cost, layer))


def block_by_hand(tokens: int, heads: int, effect: str, *, asking: int) -> tuple[int, int]:
    """Multiply-adds of a block's halves, written down as the products that are left.

    `tokens` live ones, of which the first `asking` want an answer.
    """
    dim, width, hidden = SMALL.embed_dim, SMALL.embed_dim // SMALL.num_heads, SMALL.block.mlp_dim
    scored = heads * width  # channels of queries and keys
    valued = dim if effect == "attention" else scored
    inside = dim if effect != "channels" else scored
    between = hidden if effect != "hidden" else hidden * heads // SMALL.num_heads

    def attend(rows):
        query, key = rows[:asking] @ jnp.ones((dim, scored)), rows @ jnp.ones((dim, scored))
        value = rows @ jnp.ones((dim, valued))
        query, key, seen = (
            part.reshape(len(part), heads, width) for part in (query, key, value[:, :scored])
        )
        scores = jnp.einsum("nhd,mhd->hnm", query, key)
        mixed = jnp.einsum("hnm,mhd->nhd", scores, seen)
        return mixed, value[:asking] @ jnp.ones((valued, dim))

    def feed(rows):
        return rows[:asking, :inside] @ jnp.ones((inside, between)) @ jnp.ones((between, dim))

    rows = jax.ShapeDtypeStruct((tokens, dim), jnp.float32)
    return tuple(multiply_adds(jax.make_jaxpr(half)(rows).jaxpr) for half in (attend, feed))


@pytest.mark.parametrize("effect", HEAD_EFFECTS)
@pytest.mark.parametrize("every_token_in_mlp", [False, True])
def test_chosen_work_costs_the_products_that_are_left(effect, every_token_in_mlp):
    generator, images = np.random.default_rng(0), 6
    tokens = generator.random((3, images, SMALL.num_tokens)) < 0.6
    tokens[:, :, 0] = True
    heads = generator.random((3, images, SMALL.num_heads)) < 0.4
    halves = generator.random((3, images, 2)) < 0.7
    heads[:, 0], halves[:, 1] = False, False
    tokens &= halves.any(-1, keepdims=True)
    chosen = Usage(
        tokens=jnp.asarray(tokens),
        heads=jnp.asarray(heads),
        halves=jnp.asarray(halves),
        head_effect=effect,
        every_token_in_mlp=every_token_in_mlp,
    )
    each, needed = np.zeros((3, images)), np.zeros(images)
    for layer, image in np.ndindex(3, images):
        live, kept = tokens[layer, image].sum(), heads[layer, image].sum()
        if not live or (not kept and effect != "attention"):
            continue
        fed = SMALL.num_tokens if every_token_in_mlp else live
        attend, _ = block_by_hand(live, kept, effect, asking=live)
        _, feed = block_by_hand(fed, kept, effect, asking=fed)
        each[layer, image] = halves[layer, image] @ [attend, feed]
        asking = SMALL.num_prefix_tokens
        last = halves[layer, image] @ block_by_hand(live, kept, effect, asking=asking)
        needed[image] += last if layer == 2 else each[layer, image]
    fixed = costs.embedding(SMALL) + costs.readout(SMALL)
    np.testing.assert_allclose(costs.per_layer(SMALL, chosen), each, **CLOSE)
    np.testing.assert_allclose(costs.gmacs(SMALL, chosen) * 1e9, each.sum(0) + fixed, **CLOSE)
    inference = costs.inference_gmacs(SMALL, chosen) * 1e9
    np.testing.assert_allclose(inference, needed + fixed, **CLOSE)


def test_half_of_the_heads_halve_attention_and_the_first_layer_of_the_mlp():
    half = usage(SMALL, 17, heads=jnp.tile(jnp.array([1, 0, 1, 0]), (3, 1, 1)))
    tokens, dim, hidden = 17, 48, 192
    attention = (4 * tokens * dim * dim + 2 * tokens**2 * dim) / 2
    mlp = tokens * dim * hidden / 2 + tokens * hidden * dim
    np.testing.assert_allclose(costs.per_layer(SMALL, half)[:, 0], [attention + mlp] * 3, **CLOSE)


def test_branches_switch_each_half_of_a_block():
    halves = jnp.array([[[1, 1]], [[1, 0]], [[0, 1]]])
    both, attention, mlp = costs.per_layer(SMALL, usage(SMALL, 17, halves=halves))[:, 0]
    np.testing.assert_allclose(attention, 4 * 17 * 48 * 48 + 2 * 17**2 * 48, **CLOSE)
    np.testing.assert_allclose(mlp, 2 * 17 * 48 * 192, **CLOSE)
    np.testing.assert_allclose(both, attention + mlp, **CLOSE)


def test_every_image_is_counted_by_itself():
    one = usage(SMALL, [17, 9, 2]).tokens
    other = usage(SMALL, [17, 17, 5]).tokens
    together = costs.gmacs(SMALL, Usage(tokens=jnp.concatenate([one, other], axis=1)))
    alone = [costs.gmacs(SMALL, Usage(tokens=tokens))[0] for tokens in (one, other)]
    np.testing.assert_allclose(together, alone, **CLOSE)
