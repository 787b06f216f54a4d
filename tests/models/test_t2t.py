"""T2T-ViT: the published code's numbers, what never trains, and other methods on it."""

from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import avit_jax
from avit_jax.inference.plan import Plan
from avit_jax.models import module
from avit_jax.models.soft_split import SPLITS, soft_split
from avit_jax.models.t2t import T2TShape, sinusoids
from avit_jax.sharding import make_mesh

GOLDEN = Path(__file__).parent.parent / "golden" / "t2t"
CASES = ["tiny_performer", "tiny_transformer", "tiny_performer_qkscale_96"]
TOLERANCE = 2e-5
ONE_DEVICE = make_mesh(devices=jax.devices()[:1])
SIZES = {"image_size": 64, "embed_dim": 24, "depth": 3, "num_heads": 3, "token_dim": 8}


@pytest.fixture(scope="module", params=CASES)
def golden(request):
    with np.load(GOLDEN / f"{request.param}.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def group(arrays, prefix):
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}


def model_of(golden):
    cfg = {name: value.item() for name, value in group(golden, "cfg/").items()}
    return avit_jax.create_model(
        "t2t_vit_14",
        image_size=cfg["img_size"],
        mlp_ratio=cfg["mlp_hidden"] / cfg["embed_dim"],
        tokens="performer" if cfg["tokens_performer"] else "transformer",
        attention_scale=cfg.get("qk_scale_override"),
        **{
            name: cfg[name]
            for name in
            ("embed_dim", "depth", "num_heads", "num_classes", "qkv_bias", "token_dim")
        },
    )  # fmt: skip


def test_every_stage_equals_the_published_code(golden):
    model = model_of(golden)
    network = module.bind(model.build, model.from_torch(group(golden, "param/")))
    images = jnp.asarray(golden["in/x"].transpose(0, 2, 3, 1))
    kind, grid = model.shape.tokens, images
    for number, split in enumerate(SPLITS):
        windows = soft_split(grid, split)
        flat = windows.reshape(len(images), -1, windows.shape[-1])
        recorded = golden[f"out/soft_split{number}"].transpose(0, 2, 1)
        np.testing.assert_allclose(flat, recorded, atol=TOLERANCE)
        if number == len(SPLITS) - 1:
            break
        layer = getattr(network.tokens_to_token, f"{kind}{number + 1}")
        if kind == "performer":
            keys, queries, _ = jnp.split(layer.kqv(layer.norm1(flat)), 3, axis=-1)
            for name, value in (("k", keys), ("q", queries)):
                expected = golden[f"out/attention{number + 1}_phi_{name}"]
                np.testing.assert_allclose(layer.features(value), expected, atol=TOLERANCE)
        tokens = layer(flat, rate=0.1, key=None)
        np.testing.assert_allclose(tokens, golden[f"out/attention{number + 1}"], atol=TOLERANCE)
        grid = tokens.reshape(*windows.shape[:3], -1)
    patches = network.patches(images, None)
    np.testing.assert_allclose(patches, golden["out/t2t_tokens"], atol=TOLERANCE)
    np.testing.assert_allclose(network.embed(images), golden["out/embed"], atol=TOLERANCE)


def test_blocks_and_logits_equal_the_published_code(golden):
    model = model_of(golden)
    params = model.from_torch(group(golden, "param/"))
    images = golden["in/x"].transpose(0, 2, 3, 1)
    output = model.apply(params, images, features=True)
    classes = output.aux["features"][:, :, 0].swapaxes(0, 1)
    np.testing.assert_allclose(classes, golden["out/block_cls"], atol=TOLERANCE)
    np.testing.assert_allclose(output.logits, golden["out/logits"], atol=TOLERANCE)
    compiled = model.compile(params, batch_size=len(images), execution="dense", mesh=ONE_DEVICE)
    np.testing.assert_allclose(compiled(images).logits, golden["out/logits"], atol=TOLERANCE)


def test_weights_travel_to_published_names_and_back_bit_for_bit(golden):
    model, theirs = model_of(golden), group(golden, "param/")
    chex.assert_trees_all_equal(model.to_torch(model.from_torch(theirs)), theirs)


def test_positions_are_the_published_tables():
    with np.load(GOLDEN / "sinusoid_tables.npz") as tables:
        for name in tables.files:
            num_tokens, embed_dim = map(int, name.split("_")[1:3])
            table = sinusoids(num_tokens, embed_dim)
            rows = [0, 1, 98, 196] if "rows" in name else slice(None)
            np.testing.assert_array_equal(table[:, rows], tables[name])


@pytest.mark.parametrize("tokens", ["performer", "transformer"])
def test_positions_and_random_features_never_train(tokens):
    model = avit_jax.create_model("t2t_vit_7", tokens=tokens, **SIZES)
    trainable = model.trainable(model.abstract_params())
    frozen = []
    module.map_paths(lambda path, flag: frozen.append(path) if not flag else None, trainable)
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


@pytest.mark.parametrize("tokens", ["performer", "transformer"])
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
        ({"token_dim": 1}, "token_dim is 1: it must be at least 2"),
        ({"token_dropout_rate": 1.0}, r"token_dropout_rate is 1.0: it must lie in \[0, 1\)"),
    ],
)
def test_sizes_that_cannot_be_are_refused(sizes, sentence):
    with pytest.raises(ValueError, match=sentence):
        T2TShape(**sizes)
