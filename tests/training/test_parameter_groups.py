"""Which parameters a fine-tuning moves, and at which share of the learning rate."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from avit_jax import create_model
from avit_jax.errors import UserError
from avit_jax.models.functional import map_paths
from avit_jax.training import optimizers, parameter_groups
from tests.training.trainer import OPTIM, make_model

SMALL = {"depth": 3, "embed_dim": 24, "num_heads": 2}


def paths_where(flags) -> set[str]:
    found = set()
    map_paths(lambda path, flag: found.add(path) if flag else None, flags)
    return found


def test_patterns_hold_whole_paths_fixed():
    model = create_model("avit_micro_patch4_32", **SMALL)
    everything = paths_where(parameter_groups.trainable(model, ()))
    patterns = ("patch_embed*", "blocks.attention.*", "cls_token")
    free = paths_where(parameter_groups.trainable(model, patterns))
    assert everything - free == {
        "cls_token", "patch_embed.kernel", "patch_embed.bias",
        "blocks.attention.qkv.kernel", "blocks.attention.qkv.bias",
        "blocks.attention.proj.kernel", "blocks.attention.proj.bias",
    }  # fmt: skip


def test_what_a_model_never_trains_stays_so():
    model = create_model("avit_t2t_vit_7")
    free = paths_where(parameter_groups.trainable(model, ("head.*",)))
    assert not {"pos_embed", "head.kernel"} & free
    assert "norm.scale" in free


@pytest.mark.parametrize("name", ["avit_micro_patch4_32", "adavit_t2t_vit_14"])
def test_a_pattern_that_matches_nothing_is_refused_with_what_there_is(name):
    with pytest.raises(UserError) as refusal:
        parameter_groups.trainable(create_model(name), ("head*", "patch_embedding"))
    sentence = str(refusal.value)
    assert sentence.startswith("config.optim.freeze has 'patch_embedding', which matches no param")
    assert "blocks.attention, blocks.mlp, blocks.norm1, blocks.norm2, cls_token, head" in sentence
    assert len(sentence) < 400


def test_patterns_that_leave_nothing_to_train_are_refused():
    with pytest.raises(UserError, match="holds every parameter fixed: leave out a pattern"):
        parameter_groups.trainable(create_model("avit_t2t_vit_7"), ("[!p]*",))


@pytest.mark.parametrize(
    ("name", "in_front", "on_top"),
    [
        ("adavit_t2t_vit_14", {"tokens_to_token", "cls_token", "pos_embed"},
         {"norm", "head", "policies"}),
        ("deit_micro_distilled_patch4_32", {"patch_embed", "cls_token", "dist_token", "pos_embed"},
         {"norm", "head", "head_dist"}),
    ],
)  # fmt: skip
def test_a_layers_share_of_the_rate_is_the_decay_to_the_layers_above(name, in_front, on_top):
    model = create_model(name, depth=3)
    factors = parameter_groups.rate_factors(model, 0.5)
    assert factors.keys() == {"blocks"} | in_front | on_top
    for part, wanted in [(p, 1 / 16) for p in in_front] + [(p, 1.0) for p in on_top]:
        assert set(map(float, jax.tree.leaves(factors[part]))) == {wanted}, part
    for leaf, param in zip(
        jax.tree.leaves(factors["blocks"]),
        jax.tree.leaves(model.abstract_params()["blocks"]),
        strict=True,
    ):
        assert leaf.shape == (3,) + (1,) * (param.ndim - 1)
        np.testing.assert_array_equal(leaf.ravel(), [1 / 8, 1 / 4, 1 / 2])


def test_updates_and_weight_decay_shrink_by_the_factor_and_frozen_parts_stay():
    model = make_model(depth=2)
    generator = np.random.default_rng(0)
    params, grads = (
        jax.tree.map(
            lambda leaf: generator.normal(size=leaf.shape).astype(np.float32),
            model.abstract_params(),
        )
        for _ in range(2)
    )
    trainable = parameter_groups.trainable(model, ("pos_embed",))
    factors = parameter_groups.rate_factors(model, 0.5)
    rate = optax.constant_schedule(0.1)

    def updates(**more):
        optimizer = optimizers.build(OPTIM, rate, trainable=trainable, **more)
        update = jax.jit(lambda: optimizer.update(grads, optimizer.init(params), params, step=0)[0])
        return jax.tree.map(np.asarray, update())

    plain, scaled = updates(), updates(factors=factors)
    wanted = jax.tree.map(lambda update, factor: update * factor, plain, factors)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), scaled, wanted)
    first, last = scaled["blocks"]["mlp"]["fc1"]["kernel"] / plain["blocks"]["mlp"]["fc1"]["kernel"]
    np.testing.assert_allclose([first.mean(), last.mean()], [1 / 4, 1 / 2], rtol=1e-5)
    assert not np.any(scaled["pos_embed"])


def test_without_factors_the_optimisers_state_is_what_older_runs_have_saved():
    model = make_model(depth=2)
    trainable = parameter_groups.trainable(model, ())
    before = model.trainable(model.abstract_params())
    assert trainable == before
    rate = optax.constant_schedule(0.1)
    states = [
        jax.eval_shape(optimizers.build(OPTIM, rate, trainable=t).init, model.abstract_params())
        for t in (trainable, before)
    ]
    chex.assert_trees_all_equal(*states)
    assert isinstance(states[0], optax.transforms.PartitionState)


def test_parameters_held_fixed_get_no_gradient_and_the_others_theirs():
    params = {"a": {"kernel": jnp.ones(2)}, "b": {"kernel": jnp.ones(2)}}

    def loss(params, freeze=()):
        held = parameter_groups.held_fixed(params, freeze)
        return (held["a"]["kernel"] * held["b"]["kernel"]).sum()

    both, one = jax.grad(loss)(params), jax.grad(loss)(params, ("a.*",))
    np.testing.assert_array_equal(one["a"]["kernel"], 0.0)
    np.testing.assert_array_equal(one["b"]["kernel"], both["b"]["kernel"])


def test_parameters_of_several_layers_are_known_in_backbones_policies_and_cascades():
    def parts(name: str) -> set[str]:
        marks = parameter_groups.stacked(create_model(name))
        paths = jax.tree_util.tree_leaves_with_path(marks)
        own = {"blocks", "policies", "feature_reuse"}
        return {next(key.key for key in path if key.key in own) for path, mark in paths if mark}

    assert parts("deit_micro_distilled_patch4_32") == {"blocks"}
    assert parts("adavit_deit_micro_patch4_32") == {"blocks", "policies"}
    assert parts("dvt_deit_small") == {"blocks", "feature_reuse"}
