"""Encodings of positions: recorded tables, what rotary ones keep, and grids of other images."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax import create_model
from avit_jax.benchmark import profiles
from avit_jax.checkpoints.store import Checkpoints
from avit_jax.checkpoints.weights import weights_of_run
from avit_jax.config.model import make_model
from avit_jax.errors import UserError
from avit_jax.models.positions import ENCODINGS
from avit_jax.runtime.device_mesh import make_mesh
from tests import tiny_runs
from tests.parity.golden import load

ROTARY = ["rope_1d", "rope_2d"]
FIXED = ["sinusoidal", "sinusoidal_2d"]
GRID, PREFIX, WIDTH = 5, 2, 8
SIZES = {"embed_dim": 24, "depth": 1, "num_heads": 3, "patch_size": 8, "num_classes": 5}
IMAGES = np.random.default_rng(0).normal(size=(2, 48, 48, 3)).astype(np.float32)


def encoding_of(kind, grid=GRID):
    return ENCODINGS[kind](prefix=PREFIX, grid=grid)


def model_of(kind, **changes):
    return create_model("deit_micro_distilled_patch4_32", **SIZES | {"pos_embed": kind} | changes)


def test_sinusoids_are_the_recorded_tables():
    for name, recorded in load("pos_embedding").items():
        num_tokens, embed_dim = map(int, name.split("_")[1].split("x"))
        encoding = ENCODINGS["sinusoidal"](prefix=1, grid=round((num_tokens - 1) ** 0.5))
        # Recorded angles are products of float32 numbers, of up to 197 with an error of 1 / 2**24.
        np.testing.assert_allclose(encoding.table(embed_dim, None), recorded, atol=2e-5)


def test_half_of_a_two_dimensional_table_is_the_column_and_half_the_row():
    table = np.asarray(encoding_of("sinusoidal_2d").table(16, None))
    assert table.shape == (1, PREFIX + GRID**2, 16)
    assert not np.any(table[:, :PREFIX])
    waves = 10_000.0 ** (-np.arange(4) / 4)
    for row, column in ((0, 0), (2, 4), (4, 1)):
        expected = [f(place * waves) for place in (column, row) for f in (np.sin, np.cos)]
        found = table[0, PREFIX + row * GRID + column]
        np.testing.assert_allclose(found, np.concatenate(expected), atol=1e-6)


def drawn(tokens, dtype=jnp.float32):
    """Heads `[tokens, 3, d]`, the same at every token."""
    heads = jax.random.normal(jax.random.key(1), (1, 3, WIDTH))
    return jnp.broadcast_to(heads, (tokens, 3, WIDTH)).astype(dtype)


@pytest.mark.parametrize("kind", ROTARY)
def test_rotary_scores_depend_on_the_distance_alone(kind):
    encoding, tokens = encoding_of(kind), PREFIX + GRID**2
    query = encoding.place(drawn(tokens), None)[PREFIX:]
    key = encoding.place(drawn(tokens)[::-1] + 1.0, None)[PREFIX:]
    scores = np.einsum("nhd,mhd->hnm", query, key)
    number = np.arange(GRID**2)
    places = number[:, None] if kind == "rope_1d" else np.stack(np.divmod(number, GRID), 1)
    by_distance: dict[tuple, list] = {}
    for n in number:
        for m in number:
            by_distance.setdefault(tuple(places[n] - places[m]), []).append(scores[:, n, m])
    assert len(by_distance) == (2 * GRID**2 - 1 if kind == "rope_1d" else (2 * GRID - 1) ** 2)
    for alike in by_distance.values():
        np.testing.assert_allclose(alike, np.broadcast_to(alike[0], np.shape(alike)), atol=1e-4)
    assert np.std([alike[0] for alike in by_distance.values()]) > 0.1


@pytest.mark.parametrize("kind", ROTARY)
def test_turning_keeps_norms_and_dtype_and_leaves_prefix_tokens_alone(kind):
    encoding, heads = encoding_of(kind), drawn(PREFIX + GRID**2)
    turned = encoding.place(heads, None)
    np.testing.assert_array_equal(turned[:PREFIX], heads[:PREFIX])
    assert np.all(np.abs(turned - heads)[PREFIX + 1 :].max((1, 2)) > 1e-2)
    norms = [np.linalg.norm(part, axis=-1) for part in (turned, heads)]
    np.testing.assert_allclose(*norms, rtol=1e-5)
    narrow = encoding.place(heads.astype(jnp.bfloat16), None)
    assert narrow.dtype == jnp.bfloat16
    np.testing.assert_allclose(narrow.astype(jnp.float32), turned, atol=0.05)


@pytest.mark.parametrize("kind", ROTARY)
def test_rows_are_turned_by_the_places_they_say(kind):
    encoding = encoding_of(kind)
    heads = jax.random.normal(jax.random.key(0), (2, PREFIX + GRID**2, 3, WIDTH))
    order = np.random.default_rng(0).permutation(PREFIX + GRID**2)
    moved = encoding.place(heads[:, order], np.stack([order, order]))
    np.testing.assert_array_equal(moved, encoding.place(heads, None)[:, order])
    few = encoding.place(heads[:, :PREFIX], None)
    np.testing.assert_array_equal(few, heads[:, :PREFIX])


@pytest.mark.parametrize(
    ("kind", "sizes", "message"),
    [
        ("rope", {}, "pos_embed is 'rope': write one of learned, sinusoidal, .*, rope_2d, none"),
        ("sinusoidal_2d", {"embed_dim": 18}, "embed_dim 18 is not a multiple of 4: choose one"),
        ("rope_1d", {"embed_dim": 9}, "a multiple of 2 .* embed_dim 9 / num_heads 3 is 3: choose"),
        ("rope_2d", {"embed_dim": 18}, "a multiple of 4 .* embed_dim 18 / num_heads 3 is 6: ch"),
    ],
)
def test_channels_that_cannot_hold_positions_are_refused(kind, sizes, message):
    with pytest.raises(UserError, match=message):
        model_of(kind, **sizes)


@pytest.mark.parametrize("kind", ENCODINGS)
def test_weights_serve_images_of_another_size(kind, caplog):
    caplog.set_level("INFO", "avit_jax")
    small, large = model_of(kind), model_of(kind, image_size=48)
    params = small.init(jax.random.key(0))
    table = params.get("pos_embed")
    assert (table is not None) == (kind in ("learned", *FIXED))
    found = large.from_torch(small.to_torch(params))
    assert ("interpolated" in caplog.text) == (kind == "learned")
    if kind in FIXED:
        fresh = large.init(jax.random.key(1))["pos_embed"]
        np.testing.assert_array_equal(found["pos_embed"], fresh)
        assert not large.trainable(found)["pos_embed"]
    others = {name for name in params if name != "pos_embed"}
    assert jax.tree.all(
        jax.tree.map(np.array_equal, *({n: p[n] for n in others} for p in (params, found)))
    )
    assert np.isfinite(jax.jit(large.apply)(found, IMAGES).logits).all()


@pytest.mark.parametrize("kind", FIXED)
def test_a_table_that_was_learnt_is_interpolated_where_fixed_ones_are_computed(kind):
    learnt, fixed = model_of("learned"), model_of(kind, image_size=48)
    params = learnt.init(jax.random.key(0))
    found = fixed.from_torch(learnt.to_torch(params))
    wanted = dataclasses.replace(learnt, shape=fixed.shape).from_torch(learnt.to_torch(params))
    np.testing.assert_array_equal(found["pos_embed"], wanted["pos_embed"])
    assert not np.allclose(found["pos_embed"], fixed.init(jax.random.key(0))["pos_embed"])


def test_weights_with_and_without_a_table_are_told_apart():
    weights = {kind: model_of(kind).init(jax.random.key(0)) for kind in ("learned", "rope_2d")}
    with pytest.raises(UserError, match=r"unknown: pos_embed.*: set pos_embed=learned"):
        model_of("rope_2d").from_torch(model_of("learned").to_torch(weights["learned"]))
    with pytest.raises(UserError, match=r"missing: pos_embed.*: set pos_embed as they were"):
        model_of("learned").from_torch(model_of("rope_2d").to_torch(weights["rope_2d"]))
    with pytest.raises(UserError, match=r"have a table of positions .* write them in timm's"):
        model_of("rope_2d").to_torch(weights["rope_2d"], layout="transformers")


@pytest.mark.parametrize("kind", ["sinusoidal", "rope_2d"])
def test_a_trained_run_looks_at_larger_images(tmp_path, kind):
    config = tiny_runs.config_of("deit_micro_patch4_32")
    config.model.update(depth=1, pos_embed=kind, embed_dim=32)
    run = tiny_runs.trained(tmp_path, config)
    params = run.model.init(jax.random.key(0))
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(18, {"params": params})
    checkpoints.close()
    config.model.image_size = 48
    model = make_model(config)
    found = weights_of_run(tmp_path, model, make_mesh(devices=jax.devices()[:1])).params
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, model.abstract_params())
    if kind == "sinusoidal":
        fresh = model.init(jax.random.key(0))["pos_embed"]
        np.testing.assert_array_equal(found["pos_embed"], fresh)


@pytest.mark.parametrize("kind", ["sinusoidal_2d", "rope_2d"])
def test_scripted_profiles_halt_as_asked_whatever_the_positions(kind):
    sizes = SIZES | {"image_size": 48, "depth": 3, "pos_embed": kind}
    model = create_model("avit_micro_patch4_32", **sizes)
    params, images = profiles.script(model, "half", 4)
    output = jax.jit(model.apply)(params, images)
    share = np.mean(np.asarray(model.gmacs(output))) / model.dense_gmacs()
    assert share == pytest.approx(0.5, abs=0.2)
