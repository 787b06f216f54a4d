"""DeiT III, DINO and DINOv2 in the files that their authors, timm and transformers have of them."""

import jax
import numpy as np
import pytest

from avit_jax import UserError, create_model, zoo
from tests.pretrained.test_names import counting_params

SIZES = {"embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
SMALL = {"deit3": 32, "dino": 32, "dinov2": 42, "registers": 42}
NAMES = {
    "deit3": "deit3_small_patch16_224",
    "dino": "vit_small_patch16_224.dino",
    "dinov2": "vit_small_patch14_dinov2",
    "registers": "vit_small_patch14_reg4_dinov2",
}
HEAD = ("head.weight", "head.bias")
PIECES = {  # of a block, transformers' to timm's
    "norm1": "norm1",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "attention.output.dense": "attn.proj",
}
EMBEDDINGS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.register_tokens": "reg_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}


def small(family, **changes):
    return create_model(NAMES[family], **{"image_size": SMALL[family], **SIZES, **changes})


def of_timm(family):
    """A model, parameters that are all different, and timm's file of them without a classifier."""
    model = small(family)
    params = counting_params(model)
    arrays = model.to_torch(params)
    return model, params, {name: array for name, array in arrays.items() if name not in HEAD}


def assert_loaded(model, params, file):
    found = model.from_torch(file)
    for part in params.keys() - {"head"}:
        jax.tree.map(np.testing.assert_array_equal, found[part], params[part])
    assert found["head"]["kernel"].shape == (24, 5)


def facebook(arrays):
    """As DINOv2's own files have them: a token for masked patches, registers by another name."""
    renamed = {name.replace("reg_token", "register_tokens"): a for name, a in arrays.items()}
    return renamed | {"mask_token": np.zeros((1, 24), np.float32)}


def transformers(arrays):
    """As `Dinov2Model.save_pretrained` writes them."""
    named = {theirs: arrays[ours] for theirs, ours in EMBEDDINGS.items() if ours in arrays}
    for layer in range(2):
        there, here = f"encoder.layer.{layer}", f"blocks.{layer}"
        for half in "12":
            named[f"{there}.layer_scale{half}.lambda1"] = arrays[f"{here}.ls{half}.gamma"]
        for leaf in ("weight", "bias"):
            for theirs, ours in PIECES.items():
                named[f"{there}.{theirs}.{leaf}"] = arrays[f"{here}.{ours}.{leaf}"]
            parts = np.split(arrays[f"{here}.attn.qkv.{leaf}"], 3)
            for part, array in zip(("query", "key", "value"), parts, strict=True):
                named[f"{there}.attention.attention.{part}.{leaf}"] = array
    return named | {"embeddings.mask_token": np.zeros((1, 24), np.float32)}


@pytest.mark.parametrize("family", NAMES)
def test_timms_names_and_shapes_are_those_of_its_models(family):
    """Listed by timm 1.0.31 for the small models, with other sizes."""
    model, params, file = of_timm(family)
    grid = (SMALL[family] // model.shape.patch_size) ** 2
    places = {"deit3": 0, "dino": 1, "dinov2": 1, "registers": 0}[family]
    assert file["pos_embed"].shape == (1, grid + places, 24)
    scales = {f"blocks.{layer}.ls{half}.gamma" for layer in (0, 1) for half in (1, 2)}
    assert (scales <= file.keys()) == (family != "dino")
    assert ("reg_token" in file) == (family == "registers")
    assert_loaded(model, params, file)


def test_deit_iiis_own_file_calls_its_scales_otherwise():
    model, params, file = of_timm("deit3")
    theirs = {n.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): a
              for n, a in file.items()}  # fmt: skip
    assert_loaded(model, params, theirs)


def test_dinos_own_checkpoints_are_wrapped_and_have_another_head():
    model, params, file = of_timm("dino")
    wrapped = {f"module.backbone.{name}": array for name, array in file.items()}
    assert_loaded(model, params, wrapped | {"module.head.mlp.0.weight": np.zeros((3, 3))})


@pytest.mark.parametrize("named", [facebook, transformers])
@pytest.mark.parametrize("family", ["dinov2", "registers"])
def test_dinov2_is_read_from_its_own_files_and_from_transformers(family, named):
    model, params, file = of_timm(family)
    assert_loaded(model, params, named(file))


def test_blocks_in_chunks_keep_their_numbers():
    model, params, file = of_timm("dinov2")
    chunks = {name.replace("blocks.1.", "blocks.1.1.").replace("blocks.0.", "blocks.0.0."): array
              for name, array in file.items()}  # fmt: skip
    assert_loaded(model, params, chunks)


@pytest.mark.parametrize("named", [facebook, transformers])
def test_a_class_tokens_position_moves_into_the_token(named):
    """Files of registers' ViTs have one, timm's models of them do not; answers are the same."""
    model, _, file = of_timm("registers")
    file = {name: np.cos(array) for name, array in file.items()}
    place = np.full((1, 1, 24), 0.5, np.float32)
    whole = file | {"pos_embed": np.concatenate([place, file["pos_embed"]], axis=1)}
    params = model.from_torch(named(whole))
    np.testing.assert_array_equal(params["cls_token"], file["cls_token"] + place)
    np.testing.assert_array_equal(params["pos_embed"], file["pos_embed"])
    with_places = small("registers", pos_embed_prefix=True)
    other = with_places.from_torch(named(whole))
    assert other["pos_embed"].shape == (1, 10, 24)
    images = np.random.default_rng(0).normal(size=(1, 42, 42, 3)).astype(np.float32)
    answers = [m.apply(p, images).logits for m, p in ((model, params), (with_places, other))]
    np.testing.assert_allclose(*answers, atol=1e-5)


def test_positions_without_a_place_for_the_class_token_get_one_that_adds_nothing():
    _, _, file = of_timm("deit3")
    params = small("deit3", pos_embed_prefix=True).from_torch(file)
    np.testing.assert_array_equal(params["pos_embed"][:, 0], np.zeros((1, 24)))
    np.testing.assert_array_equal(params["pos_embed"][:, 1:], file["pos_embed"])


def test_positions_of_patches_alone_are_interpolated():
    _, _, file = of_timm("registers")
    params = small("registers", image_size=56).from_torch(file)
    assert params["pos_embed"].shape == (1, 16, 24)
    flat = file | {"pos_embed": np.full_like(file["pos_embed"], 2.0)}
    again = small("registers", image_size=56).from_torch(flat)
    np.testing.assert_allclose(again["pos_embed"], 2.0, rtol=1e-6)


def test_a_model_that_averages_takes_the_last_norm_for_its_own():
    _, params, file = of_timm("dino")
    averaging = small("dino", pool="avg")
    assert_loaded(averaging, params, file)
    written = averaging.to_torch(counting_params(averaging))
    assert {"fc_norm.weight", "fc_norm.bias"} < written.keys() and "norm.weight" not in written
    assert_loaded(averaging, counting_params(averaging), written)


def test_a_classifier_of_two_readings_is_left_out_with_a_warning(caplog):
    model, params, file = of_timm("dinov2")
    head = {"classifier.weight": np.ones((5, 48)), "classifier.bias": np.ones(5)}
    prefixed = {f"dinov2.{name}": array for name, array in transformers(file).items()}
    assert_loaded(model, params, prefixed | head)
    assert "class token and mean of the patches together: head.weight" in caplog.text
    assert "no classifier head: a fresh one of 5 classes" in caplog.text


@pytest.mark.parametrize(
    ("family", "changes", "advice"),
    [
        ("registers", {"num_registers": 0}, "have register tokens: set num_registers=4"),
        ("dinov2", {"num_registers": 4}, "have no register tokens: set num_registers=0"),
        ("registers", {"num_registers": 2}, "have 4 in reg_token: set num_registers=4"),
        ("dino", {"num_class_tokens": 2}, "have 1 in cls_token: set num_class_tokens=1"),
        ("deit3", {"layer_scale": None}, "set layer_scale=1e-5"),
    ],
)
def test_what_a_model_lacks_or_has_besides_is_said(family, changes, advice):
    _, _, file = of_timm(family)
    with pytest.raises(UserError, match=advice):
        small(family, **changes).from_torch(file)


def test_gated_mlps_of_the_giant_are_refused():
    model, _, file = of_timm("dinov2")
    gated = {name.replace("fc1", "w12").replace("fc2", "w3"): a for name, a in file.items()}
    with pytest.raises(UserError, match=r"gated MLPs \(SwiGLU\), which no model here has"):
        model.from_torch(facebook(gated))
    file = {n.replace("mlp.fc1", "mlp.weights_in").replace("mlp.fc2", "mlp.weights_out"): a
            for n, a in transformers(file).items()}  # fmt: skip
    with pytest.raises(UserError, match=r"gated MLPs \(SwiGLU\), which no model here has"):
        model.from_torch(file)


def test_transformers_has_no_names_for_what_its_vit_lacks():
    for changes in ({"num_registers": 1}, {"num_class_tokens": 2}, {"pool": "avg"}):
        model = small("dino", **changes)
        with pytest.raises(UserError, match="layout='timm'"):
            model.to_torch(counting_params(model), layout="transformers")


def test_named_models_are_as_large_as_their_sources_say():
    millions = {
        "deit3_small_patch16_224": 22.06,
        "deit3_base_patch16_224": 86.59,
        "deit3_large_patch16_224": 304.37,
    }
    for name, count in millions.items():
        assert create_model(name).num_params() / 1e6 == pytest.approx(count, abs=0.01)
    # Without their classifiers of 1,000 classes.
    bare = {"vit_small_patch14_dinov2": 22.06, "vit_base_patch14_reg4_dinov2": 86.58}
    for name, count in bare.items():
        model = create_model(name)
        without = model.num_params() - 1000 * (model.shape.embed_dim + 1)
        assert without / 1e6 == pytest.approx(count, abs=0.01)
    for name in NAMES.values():
        assert zoo.published_weights(name).loadable
