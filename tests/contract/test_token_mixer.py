"""MLP-Mixer blocks: halted tokens leave their slots empty, and no execution moves rows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from avit_jax import create_model
from avit_jax.errors import UserError
from avit_jax.execution.dense import DENSE
from avit_jax.execution.executions import EXECUTIONS, fastest
from avit_jax.execution.masked import MASKED
from avit_jax.export.program import export_program, plans_for
from avit_jax.methods.avit import learning
from avit_jax.models import costs, functional
from avit_jax.models.token_mixer import TokenMlp
from avit_jax.runtime.device_mesh import make_mesh
from avit_jax.types import Gates

SIZES = {
    "image_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3,
    "num_classes": 5, "mixer": "mlp",
}  # fmt: skip
HALTING = {"gate_scale": 4.0, "gate_center": 0.0}
TOKENS, HIDDEN = 17, 12
ONE_DEVICE = make_mesh(devices=jax.devices()[:1])
IMAGES = np.random.default_rng(1).normal(size=(3, 32, 32, 3)).astype(np.float32)


def mixer(**changes):
    return create_model("avit_micro_patch4_32", **{"method": HALTING} | SIZES | changes)


MODEL = mixer()


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(lambda leaf: 1.5 * leaf, MODEL.init(jax.random.key(0)))


@pytest.fixture(scope="module")
def apply():
    return jax.jit(MODEL.apply, static_argnames=("execution", "features"))


def normed(x, norm):
    centred = x - x.mean(-1, keepdims=True)
    wide = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return centred / wide * norm["scale"] + norm["bias"]


def mlp(x, layers):
    one, two = layers["fc1"], layers["fc2"]
    hidden = np.asarray(jax.nn.gelu(x @ one["kernel"] + one["bias"], approximate=False))
    return hidden @ two["kernel"] + two["bias"]


def block_by_hand(x, live, block):
    """`[B, N, D]` behind one block, of which the tokens `live` `[B, N]` count."""
    alive = live[:, :, None]
    slots = np.where(alive, normed(x, block["norm1"]), 0)
    x = x + alive * mlp(slots.swapaxes(1, 2), block["mlp_tokens"]).swapaxes(1, 2)
    return x + mlp(np.where(alive, normed(x, block["norm2"]), 0), block["mlp"])


def test_halting_is_that_of_the_formula(params, apply):
    found = apply(params, IMAGES)
    network = functional.bind(MODEL.build, params)
    x = np.asarray(network.embed(jnp.asarray(IMAGES)), np.float64)
    live, cumulative, remainder = np.ones(x.shape[:2], bool), np.zeros(x.shape[:2]), np.ones(3)
    answer = np.zeros((3, 24))
    for layer in range(3):
        np.testing.assert_array_equal(found.aux["mask"][layer], live)
        block = jax.tree.map(lambda leaf, layer=layer: np.asarray(leaf[layer]), params["blocks"])
        x = block_by_hand(np.where(live[:, :, None], x, 0), live, block)
        score = np.ones(live.shape) if layer == 2 else 1 / (1 + np.exp(-4 * x[:, :, 0]))
        cumulative = cumulative + score
        halts = cumulative > 1 - MODEL.settings.eps
        weight = np.where(live & halts, remainder[:, None], np.where(live, score, 0))[:, 0]
        remainder = remainder - np.where(live[:, 0] & ~halts[:, 0], score[:, 0], 0)
        answer += weight[:, None] * x[:, 0]
        live = live & ~halts
    assert 0.2 < found.usage[0].tokens.mean() < 0.9
    expected = network.readout(jnp.asarray(answer, jnp.float32)[:, None]).mean(0)
    np.testing.assert_allclose(found.logits, expected, atol=1e-4)


def test_what_lies_in_an_empty_slot_and_in_other_images_has_no_influence(params, apply):
    block = functional.layer_at(functional.bind(MODEL.build, params).blocks, 1)
    tokens = jax.random.normal(jax.random.key(0), (2, TOKENS, 24))
    live = jnp.arange(TOKENS) % 3 != 1
    live = jnp.stack([live, ~live])
    gates = Gates(tokens=live)
    run = jax.jit(lambda x: block.feed(block.attend(x, gates=gates), gates=gates))
    other = run(jnp.where(live[:, :, None], tokens, jnp.nan))
    np.testing.assert_array_equal(other[live], run(tokens)[live])
    alone = apply(params, IMAGES[1:2]).logits
    np.testing.assert_allclose(apply(params, IMAGES).logits[1:2], alone, atol=1e-5)


def test_masked_and_dense_are_all_executions_there_are(params, apply):
    for platform in ("cpu", "gpu", "tpu"):
        assert fastest(MODEL, platform) is MASKED
        assert not MODEL.default_plan(4, platform=platform).ragged_attention
    predict = MODEL.compile(params, batch_size=5, mesh=ONE_DEVICE)
    np.testing.assert_allclose(predict(IMAGES).logits, apply(params, IMAGES).logits, atol=1e-5)
    dense = MODEL.compile(params, batch_size=3, execution="dense", mesh=ONE_DEVICE)(IMAGES).logits
    plain = create_model("deit_micro_patch4_32", **SIZES)
    for same in (apply(params, IMAGES, execution="dense"), jax.jit(plain.apply)(params, IMAGES)):
        np.testing.assert_allclose(dense, same.logits, atol=1e-5)
    for name in EXECUTIONS.keys() - {MASKED.name, DENSE.name}:
        with pytest.raises(UserError, match=rf'keeps its slot, has no execution="{name}": use "m'):
            MODEL.compile(params, batch_size=3, execution=name, mesh=ONE_DEVICE)
    with pytest.raises(UserError, match="mixer 'mlp' every token keeps its slot: leave train"):
        learning.check(mixer(method=HALTING | {"kl_reading": "halting"}))


def test_streams_mask_what_has_halted(params, apply):
    with MODEL.stream(params, batch_size=2, max_wait=None, devices=jax.devices()[:1]) as stream:
        found = np.stack([answer.logits for answer in stream.map(IMAGES)])
    np.testing.assert_allclose(found, apply(params, IMAGES).logits, atol=1e-5)


def test_gradients_reach_every_parameter_and_names_are_those_of_timm(params):
    model = dataclasses.replace(MODEL, shape=dataclasses.replace(MODEL.shape, drop_path_rate=0.2))

    @jax.jit
    @jax.grad
    def gradients(params):
        output = model.apply(params, IMAGES, train=True, key=jax.random.key(2))
        return output.logits.std() + sum(output.penalties.values())

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients(params)):
        assert np.isfinite(leaf).all() and np.any(leaf), jax.tree_util.keystr(path)
    weights = MODEL.to_torch(params)
    assert weights["blocks.2.mlp_tokens.fc1.weight"].shape == (HIDDEN, TOKENS)
    back = MODEL.from_torch(weights)
    jax.tree.map(np.testing.assert_array_equal, back, params)


def test_a_mixer_is_exported_with_masks(params):
    plans = plans_for(MODEL, 2, None)
    program = export_program(MODEL, execution=MASKED, batch_size=2, plans=plans)
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}


@pytest.mark.slow
def test_other_norms_and_layer_scale_go_with_mixers():
    model = mixer(norm="instancenorm", layer_scale=0.7)
    fresh = model.init(jax.random.key(0))
    assert model.to_torch(fresh)["blocks.0.ls1.gamma"].shape == (24,)
    apply = jax.jit(model.apply, static_argnames="execution")
    for execution in ("masked", "dense"):
        expected = apply(fresh, IMAGES, execution=execution).logits
        predict = model.compile(fresh, batch_size=3, execution=execution, mesh=ONE_DEVICE)
        np.testing.assert_allclose(predict(IMAGES).logits, expected, atol=1e-5)


def test_layer_scale_is_a_factor_on_the_updates(params):
    block = mixer(layer_scale=0.7).shape.block
    tokens = jax.random.normal(jax.random.key(0), (2, TOKENS, 24))
    one = TokenMlp(block, rngs=nnx.Rngs(0))
    plain = TokenMlp(MODEL.shape.block, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(one(tokens), 0.7 * plain(tokens), rtol=1e-5)
    np.testing.assert_allclose(one(tokens, first=1), one(tokens)[:, :1], atol=1e-6)


def test_costs_are_those_of_the_tokens_that_live():
    shape = MODEL.shape
    assert costs.attention(shape, 10) == 2 * 10 * HIDDEN * 24
    assert costs.last_attention(shape, 10) == (10 + 1) * HIDDEN * 24
    wider = dataclasses.replace(shape, token_mlp_ratio=2.0)
    assert costs.attention(wider, TOKENS) == 2 * TOKENS * 48 * 24


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("avit_micro_patch4_32", {"mixer": "conv"}, "mixer is 'conv': write one of attention, mlp"),
        (
            "avit_micro_patch4_32",
            {"token_mlp_ratio": 0.0},
            "token_mlp_ratio is 0.0: write a number",
        ),
        ("avit_micro_patch4_32", {"pos_embed": "rope_2d"}, "mixer 'mlp' has none: write pos_embed"),
        (
            "avit_micro_patch4_32",
            {"attention": "cosine"},
            "write attention dot, or mixer attention",
        ),
        ("avit_micro_patch4_32", {"qk_norm": True}, "qk_norm is of attention, but mixer 'mlp' has"),
        ("t2t_vit_7", {"image_size": 64, "attention_scale": 1.0}, "write attention_scale None, or"),
        ("adavit_deit_micro_patch4_32", {}, "AdaViT chooses attention heads .* write attention"),
        ("dvt_deit_micro", {"method": {"grids": (2, 4)}}, r"write method\.relation_reuse False"),
    ],
)
def test_what_needs_attention_is_refused(name, changes, message):
    sizes = SIZES if name != "t2t_vit_7" else {k: SIZES[k] for k in SIZES if k != "patch_size"}
    with pytest.raises(UserError, match=message):
        create_model(name, **sizes | changes)


@pytest.mark.slow
def test_cascades_of_mixers_train_from_fresh_weights_alone():
    settings = {"grids": (2, 4), "thresholds": (0.25,), "relation_reuse": False}
    cascade = create_model("dvt_deit_micro", **SIZES | {"method": settings})
    params = cascade.init(jax.random.key(0))
    expected = jax.jit(cascade.apply)(params, IMAGES)
    predict = cascade.compile(params, batch_size=3, mesh=ONE_DEVICE)
    np.testing.assert_allclose(predict(IMAGES).logits, expected.logits, atol=1e-5)
    plain = create_model("deit_micro_patch4_32", **SIZES)
    with pytest.raises(UserError, match="other numbers of tokens, to which an MLP over tokens can"):
        cascade.from_torch(plain.to_torch(plain.init(jax.random.key(0))))


def test_other_image_sizes_and_maps_of_attention_are_refused(params, apply):
    plain = create_model("deit_micro_patch4_32", **SIZES)
    shown = plain.apply(params, IMAGES, features=True).aux
    assert "features" in shown and "attention" not in shown
    with pytest.raises(UserError, match=r"of another shape: .*mlp_tokens\.fc1"):
        mixer(image_size=48).from_torch(MODEL.to_torch(params))
