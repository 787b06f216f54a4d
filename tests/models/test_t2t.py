"""T2T-ViT: names, positions, what never trains, and other methods on it; `parity` has the rest."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import avit_jax
from avit_jax.execution.plan import Plan
from avit_jax.models import functional
from avit_jax.models.positions import sinusoids
from avit_jax.models.t2t import T2TShape
from avit_jax.runtime.device_mesh import make_mesh
from tests.parity import t2t
from tests.parity.golden import group, load

ONE_DEVICE = make_mesh(devices=jax.devices()[:1])
SIZES = {"image_size": 64, "embed_dim": 24, "depth": 3, "num_heads": 3, "token_dim": 8}


@pytest.mark.parametrize("case", t2t.CASES)
def test_weights_travel_to_published_names_and_back_bit_for_bit(case):
    golden = load(f"t2t/{case}")
    model, theirs = t2t.model_of(golden), group(golden, "param/")
    chex.assert_trees_all_equal(model.to_torch(model.from_torch(theirs)), theirs)


def test_positions_are_the_published_tables():
    tables = load("t2t/sinusoid_tables")
    assert tables
    for name, recorded in tables.items():
        num_tokens, embed_dim = map(int, name.split("_")[1:3])
        table = sinusoids(num_tokens, embed_dim)
        rows = [0, 1, 98, 196] if "rows" in name else slice(None)
        np.testing.assert_array_equal(table[:, rows], recorded)


@pytest.mark.parametrize("tokens", ["performer", "transformer"])
def test_positions_and_random_features_never_train(tokens):
    model = avit_jax.create_model("t2t_vit_7", tokens=tokens, **SIZES)
    trainable = model.trainable(model.abstract_params())
    frozen = []
    functional.map_paths(lambda path, flag: frozen.append(path) if not flag else None, trainable)
    random = [f"tokens_to_token.performer{n}.w" for n in (1, 2)] if tokens == "performer" else []
    assert sorted(frozen) == ["pos_embed", *random]


def test_random_features_are_orthogonal():
    model = avit_jax.create_model("t2t_vit_7", **SIZES)
    params = model.init(jax.random.key(0))
    w = params["tokens_to_token"]["performer1"]["w"]
    np.testing.assert_allclose(w @ w.T, len(w) * np.eye(len(w)), atol=1e-5)


def test_the_performer_drops_out_in_training_and_wants_a_key():
    model = avit_jax.create_model("t2t_vit_7", **SIZES)
    params = model.init(jax.random.key(0))
    images = jnp.ones((2, 64, 64, 3))
    with pytest.raises(ValueError, match="pass key="):
        model.apply(params, images, train=True)
    one, other = (
        model.apply(params, images, train=True, key=jax.random.key(seed)).logits for seed in (0, 1)
    )
    assert not np.allclose(one, other)
    still = avit_jax.create_model("t2t_vit_7", token_dropout_rate=0.0, **SIZES)
    plain = still.apply(params, images, train=True).logits
    np.testing.assert_allclose(plain, model.apply(params, images).logits, atol=1e-6)


@pytest.mark.parametrize(
    "tokens", [pytest.param("performer", marks=pytest.mark.slow), "transformer"]
)
def test_tokens_halt_on_t2t_and_compact_execution_gives_the_masked_answers(tokens):
    model = avit_jax.create_model(
        "avit_t2t_vit_7", tokens=tokens, attention_scale=0.2,
        method={"gate_scale": 4.0, "gate_center": 0.0}, **SIZES,
    )  # fmt: skip
    params = model.init(jax.random.key(0))
    images = np.asarray(jax.random.normal(jax.random.key(1), (3, 64, 64, 3)))
    expected = model.apply(params, images)
    assert 0.1 < expected.metrics["halted"] < 0.9
    plan = Plan(images=2, row_sizes=(8, 32), attention_images=2, lengths=(8, 17), dense_images=2)
    answer = model.compile(params, batch_size=5, plan=plan, mesh=ONE_DEVICE)(images)
    np.testing.assert_allclose(answer.logits, expected.logits, atol=1e-5)
    chex.assert_trees_all_equal(answer.usage, expected.usage)


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"image_size": 72}, "image_size 72 is not a multiple of patch_size 16"),
        ({"tokens": "linear"}, "tokens is 'linear': write one of performer, transformer"),
        ({"token_dim": 1}, "token_dim is 1: write at least 2"),
        (
            {"token_dropout_rate": 1.0},
            r"token_dropout_rate is 1.0: write a share, at least 0 and below 1",
        ),
    ],
)
def test_sizes_that_cannot_be_are_refused(sizes, sentence):
    with pytest.raises(ValueError, match=sentence):
        T2TShape(**sizes)
