"""Weights that do not fit are refused in one short sentence, with advice from what differs."""

import numpy as np
import pytest

from avit_jax import create_model
from avit_jax.errors import UserError
from tests.pretrained.test_names import counting_params, model_of

OURS = model_of().to_torch(counting_params(model_of()))


def zeros(*shape):
    return np.zeros(shape, np.float32)


def without(*endings):
    return {name: array for name, array in OURS.items() if not name.endswith(endings)}


def of_blocks(*names):
    return {f"blocks.{n}.{name}": zeros(24) for n in range(2) for name in names}


@pytest.mark.parametrize(
    ("weights", "advice"),
    [
        (OURS | of_blocks("ls1.gamma", "ls2.gamma"), r"have LayerScale .*: set layer_scale=1e-5"),
        (OURS | of_blocks("gamma_1"), "have LayerScale"),
        (OURS | {"reg_token": zeros(1, 4, 24)}, "have register tokens"),
        (OURS | of_blocks("attn.q_norm.weight"), "norms of queries and keys: set qk_norm=True"),
        (OURS | of_blocks("attn.query.lora_A.weight"), r"have adapters \(LoRA\) that were not"),
        (
            without("1.attn.qkv.bias") | {"blocks.1.attn.query.bias": zeros(24)},
            "query, key and value of block 1 are not all there",
        ),
        (OURS | of_blocks("attn.rel_pos_bias"), "have relative or rotary positions"),
        (OURS | of_blocks("mlp.w12.weight"), "have gated MLPs"),
        (
            without("norm.weight") | {"fc_norm.weight": zeros(24), "norm.weight": zeros(24)},
            r"have a norm of averaged patches \(fc_norm\)",
        ),
        (OURS | {"norm_pre.weight": zeros(24)}, "have a norm in front of the blocks"),
        (without("norm.bias", "norm1.bias", "norm2.bias"), "without biases: set norm='rmsnorm'"),
        (without("qkv.bias"), r"no biases of query, key and value: set qkv_bias=False"),
        (
            OURS | {"patch_embed.proj.weight": zeros(24, 192)},
            r"is a matrix \(24, 192\), not a conv",
        ),
        (OURS | {"patch_embed.proj.weight": zeros(24, 1, 8, 8)}, r"for grey images \(1 channel\)"),
        (OURS | {"patch_embed.proj.weight": zeros(24, 4, 8, 8)}, "for images of 4 channels"),
        (OURS | {"patch_embed.proj.weight": zeros(24, 3, 4, 8)}, "patches of 4 x 8 pixels"),
        (OURS | {"pos_embed": zeros(1, 61, 24)}, "of 60 patches, which is no square grid"),
        (OURS | {"pos_embed": zeros(17, 24)}, r"are a table \(17, 24\): reshape it"),
        (without("attn.proj.bias", "fc1.weight"), "a part of them is missing: take the whole file"),
        (OURS | {"projection.weight": zeros(2, 2)}, "all is there: take out the unknown names"),
        ({"fc.weight": zeros(2, 2), "conv1.weight": zeros(2)}, "those of a ResNet"),
        ({"visual.transformer.resblocks.0.ln_1.bias": zeros(2)}, "those of a CLIP model"),
        ({"encoder.layers.encoder_layer_0.ln_1.bias": zeros(2)}, "those of torchvision"),
        ({"params/encoderblock/cls": zeros(2)}, "those of big_vision"),
        ({"bert.embeddings.x": zeros(2)}, "those of a language model"),
        ({"x" * 5000: zeros(2)}, "no name is one of timm, DeiT, A-ViT or transformers"),
        ({"layers.0.blocks.0.norm1.bias": zeros(2)}, "those of a Swin transformer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_advice_is_about_what_differs(weights, advice):
    with pytest.raises(UserError, match=advice) as refusal:
        model_of().from_torch(weights)
    assert len(str(refusal.value)) <= 400
    assert "do not fit the model (" in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"embed_dim": 48}, "create the model with embed_dim=48"),
        ({"depth": 3}, r"create the model with depth=3\.$"),
        ({"embed_dim": 48, "depth": 3}, "embed_dim=48 .* and depth=3"),
        ({"mlp_ratio": 4.0}, r"create the model with mlp_ratio=4\.$"),
    ],
    ids=str,
)
def test_other_sizes_are_named(changes, advice):
    other = model_of(**changes)
    with pytest.raises(UserError, match=advice) as refusal:
        model_of().from_torch(other.to_torch(counting_params(other)))
    assert len(str(refusal.value)) <= 400


def test_another_backbone_is_named():
    t2t = create_model("t2t_vit_7", embed_dim=24, num_heads=2, depth=2, num_classes=5)
    with pytest.raises(UserError, match="another backbone: create a t2t_vit model"):
        model_of().from_torch(t2t.to_torch(counting_params(t2t)))
