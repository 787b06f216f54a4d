"""Weights go to upstream's names and back without a bit changed, and misfits are all named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax import create_model
from avit_jax.pretrained import names

SIZES = {
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 2,
    "patch_size": 8,
    "mlp_ratio": 2.0,
    "num_classes": 5,
}


def model_of(distilled: bool = False, **changes):
    infix = "_distilled" if distilled else ""
    return create_model(f"avit_micro{infix}_patch4_32", **SIZES | changes)


def counting_params(model) -> dict:
    """Parameters that are all different, so that a swapped axis or layer cannot go unnoticed."""
    leaves, tree = jax.tree.flatten(model.abstract_params())
    starts = np.cumsum([0, *(leaf.size for leaf in leaves)])
    return jax.tree.unflatten(
        tree,
        [
            jnp.arange(start, start + leaf.size, dtype=jnp.float32).reshape(leaf.shape)
            for start, leaf in zip(starts, leaves, strict=False)
        ],
    )


@pytest.fixture(scope="module")
def upstream() -> dict[str, np.ndarray]:
    model = model_of()
    return model.to_torch(counting_params(model))


@pytest.mark.parametrize("distilled", [False, True])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_a_round_trip_is_exact_bit_for_bit(distilled, qkv_bias):
    model = model_of(distilled, qkv_bias=qkv_bias)
    params = counting_params(model)
    state_dict = model.to_torch(params)
    restored = model.from_torch(state_dict)
    assert jax.tree.structure(restored) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, restored, params)
    again = model.to_torch(restored)
    assert list(again) == list(state_dict)
    for name, array in state_dict.items():
        assert again[name].tobytes() == np.asarray(array).tobytes()


OWN = {"cosine": {"logit_scale": (2,)}, "linear": {"frequencies": (12, 12), "phases": (12,)}}


@pytest.mark.parametrize("attention", ["dot", "cosine", "linear"])
def test_parts_of_attention_have_the_names_of_timm_or_ours(attention):
    norms = attention != "cosine"
    model = model_of(attention=attention, qk_norm=norms, layer_scale=0.1)
    params = counting_params(model)
    found = model.to_torch(params)
    more = {"ls1.gamma": (24,), "ls2.gamma": (24,)}
    for name, size in OWN.get(attention, {}).items():
        more[f"attn.{name}"] = size
    if norms:
        more |= {f"attn.{x}_norm.{leaf}": (12,) for x in "qk" for leaf in ("weight", "bias")}
    plain = model_of()
    assert {name: array.shape for name, array in found.items()} == {
        name: array.shape for name, array in plain.to_torch(counting_params(plain)).items()
    } | {f"blocks.{layer}.{name}": size for layer in range(2) for name, size in more.items()}
    jax.tree.map(np.testing.assert_array_equal, model.from_torch(found), params)


def test_a_convolution_of_a_backbone_of_ones_own_keeps_rows_and_columns_apart():
    shape = model_of().shape
    kernel = jnp.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)  # row, column, in, out
    params = {"stem": {"kernel": kernel}}
    theirs = names.to_torch(params, shape, {})
    assert theirs["stem.weight"].shape == (5, 4, 2, 3)
    assert theirs["stem.weight"][4, 3, 1, 2] == kernel[1, 2, 3, 4]
    back = names.from_torch(theirs, shape, params, {})
    np.testing.assert_array_equal(back["stem"]["kernel"], kernel)


@pytest.mark.parametrize("distilled", [False, True])
def test_names_and_shapes_are_those_of_timm(distilled):
    found = {
        name: array.shape
        for name, array in model_of(distilled)
        .to_torch(counting_params(model_of(distilled)))
        .items()
    }
    expected = {
        "cls_token": (1, 1, 24),
        "pos_embed": (1, 18 if distilled else 17, 24),
        "patch_embed.proj.weight": (24, 3, 8, 8),
        "patch_embed.proj.bias": (24,),
        "norm.weight": (24,),
        "norm.bias": (24,),
        "head.weight": (5, 24),
        "head.bias": (5,),
    }
    for layer in range(2):
        block = {
            "norm1.weight": (24,),
            "norm1.bias": (24,),
            "attn.qkv.weight": (72, 24),
            "attn.qkv.bias": (72,),
            "attn.proj.weight": (24, 24),
            "attn.proj.bias": (24,),
            "norm2.weight": (24,),
            "norm2.bias": (24,),
            "mlp.fc1.weight": (48, 24),
            "mlp.fc1.bias": (48,),
            "mlp.fc2.weight": (24, 48),
            "mlp.fc2.bias": (24,),
        }
        expected |= {f"blocks.{layer}.{name}": shape for name, shape in block.items()}
    if distilled:
        expected |= {"dist_token": (1, 1, 24), "head_dist.weight": (5, 24), "head_dist.bias": (5,)}
    assert found == expected


def test_layouts_are_transposed_and_layers_kept_apart(upstream):
    params = counting_params(model_of())
    blocks = params["blocks"]
    for layer in range(2):
        np.testing.assert_array_equal(
            upstream[f"blocks.{layer}.mlp.fc1.weight"], blocks["mlp"]["fc1"]["kernel"][layer].T
        )
        np.testing.assert_array_equal(
            upstream[f"blocks.{layer}.norm2.weight"], blocks["norm2"]["scale"][layer]
        )
    kernel = params["patch_embed"]["kernel"]  # rows ordered (row, column, colour)
    for row, column, colour in ((0, 0, 0), (0, 0, 2), (0, 5, 1), (7, 3, 2)):
        np.testing.assert_array_equal(
            upstream["patch_embed.proj.weight"][:, colour, row, column],
            kernel[(row * 8 + column) * 3 + colour],
        )


def test_half_precision_weights_become_float32(upstream):
    half = {name: array.astype(np.float16) for name, array in upstream.items()}
    assert {leaf.dtype for leaf in jax.tree.leaves(model_of().from_torch(half))} == {
        jnp.dtype(jnp.float32)
    }


def test_missing_unknown_and_misshapen_names_are_counted_with_examples(upstream):
    broken = dict(upstream)
    del broken["cls_token"], broken["blocks.1.attn.qkv.bias"]
    broken |= {
        "blocks.2.norm1.bias": np.zeros(24),
        "blocks.3.norm1.bias": np.zeros(24),
        "head.weight": np.zeros((1000, 24)),
        "pos_embed": np.zeros((1, 195, 24)),
    }
    with pytest.raises(ValueError, match="do not fit the model") as refusal:
        model_of().from_torch(broken)
    for problem in (
        "2 of 32 names missing: blocks.1.attn.qkv.bias, cls_token",
        "2 unknown: blocks.2.norm1.bias, ...",
        "2 of another shape: head.weight (1000, 24) for (5, 24), pos_embed (1, 195, 24) for (1",
    ):
        assert problem in str(refusal.value)


def test_a_plain_model_refuses_distilled_weights_and_the_other_way_round(upstream):
    distilled = model_of(True).to_torch(counting_params(model_of(True)))
    with pytest.raises(ValueError, match=r"unknown: dist_token.*pos_embed .*: set distilled=True"):
        model_of().from_torch(distilled)
    with pytest.raises(ValueError, match=r"missing: dist_token, head_dist.*distilled=False"):
        model_of(True).from_torch(upstream)


def test_another_patch_size_is_refused_with_the_right_one(upstream):
    with pytest.raises(ValueError, match=r"embed patches of 8 pixels: set patch_size=8\.$"):
        model_of(patch_size=16, image_size=64).from_torch(upstream)


def test_a_parameter_that_upstream_does_not_have_keeps_its_name():
    shape, own = model_of().shape, {"gate": "blocks.{}.gate", "gate.center": "center"}
    assert names.upstream_name("temperature.kernel", shape, own) == "temperature.weight"
    assert names.upstream_name("temperature.start", shape, own) == "temperature.start"
    assert names.upstream_name("gate.bias", shape, own) == "blocks.{}.gate.bias"
    assert names.upstream_name("gate.center", shape, own) == "center"
