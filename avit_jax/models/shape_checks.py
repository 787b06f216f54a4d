"""What sizes and parts of a backbone contradict each other, each refused with one sentence."""

from __future__ import annotations

from typing import Any

from avit_jax import validators
from avit_jax.errors import UserError
from avit_jax.models.attention_kinds import KINDS
from avit_jax.models.norms import NORMS, is_over_tokens
from avit_jax.models.positions import ENCODINGS

# Far beyond anything trained: larger ones are slips of the pen that would take all memory.
MOST = {"depth": 1024, "image_size": 16384, "embed_dim": 65536, "num_classes": 2**24}


def check(shape: Any) -> None:
    """Raises UserError unless a `Shape` can be built."""
    counts = ("depth", "num_classes", "image_size", "patch_size", "num_heads", "embed_dim")
    validators.at_least(1, shape, *counts)
    for name, most in MOST.items():
        validators.between(1, most, shape, name)
    validators.between(1e-6, 1024, shape, "mlp_ratio")
    if shape.embed_dim * shape.mlp_ratio < 1:
        raise UserError(
            f"mlp_ratio is {shape.mlp_ratio!r}, which leaves MLPs on embed_dim {shape.embed_dim} "
            f"no hidden channel: write {1 / shape.embed_dim:.3g} or more."
        )
    if shape.embed_dim % shape.num_heads:
        raise UserError(
            f"embed_dim {shape.embed_dim} is not a multiple of num_heads {shape.num_heads}: "
            "choose num_heads so that every head gets the same number of channels."
        )
    validators.one_of(("float32", "bfloat16"), shape, "dtype")
    validators.share_below_one(shape, "drop_path_rate", "dropout_rate")
    validators.one_of(tuple(ENCODINGS), shape, "pos_embed")
    ENCODINGS[shape.pos_embed].check(shape.embed_dim, shape.num_heads)
    validators.one_of(tuple(KINDS), shape, "attention")
    validators.positive(shape, "layer_scale", optional=True)
    validators.one_of(tuple(NORMS), shape, "norm")
    validators.positive(shape, "norm_eps")
    validators.one_of(("attention", "mlp"), shape, "mixer")
    validators.positive(shape, "token_mlp_ratio")
    if shape.tokens_keep_slots:
        _check_mixer(shape)
    if shape.qk_norm and shape.attention == "cosine":
        raise UserError(
            'attention is "cosine", which normalises queries and keys already, and qk_norm is '
            "on: leave qk_norm out."
        )
    if shape.reuse and shape.reuse.relations and not shape.has_scores:
        raise UserError(
            f"attention is {shape.attention!r}, which has no scores for a later exit to reuse: "
            "set method.relation_reuse=False, or use another attention."
        )
    if shape.reuse is not None and is_over_tokens(shape.norm):
        raise UserError(
            f"norm is {shape.norm!r}, over all tokens of an image, but the last block of an "
            "exit is given what it reuses for the tokens that classifiers read alone: write "
            "feature_reuse = relation_reuse = False, or norm layernorm or rmsnorm."
        )


def _check_mixer(shape: Any) -> None:
    """Raises UserError for settings of attention where blocks have an MLP over tokens instead."""
    scale, reuse = getattr(shape, "attention_scale", None), shape.reuse  # a T2T-ViT has a scale
    turned = ENCODINGS[shape.pos_embed].acts_on_heads
    remedies = {
        f"attention {shape.attention!r}": "attention dot" if shape.attention != "dot" else None,
        "qk_norm": "qk_norm False" if shape.qk_norm else None,
        f"attention_scale {scale}": "attention_scale None" if scale is not None else None,
        f"pos_embed {shape.pos_embed!r}": "pos_embed sinusoidal, learned or none"
        if turned
        else None,
        "relation_reuse": "method.relation_reuse False" if reuse and reuse.relations else None,
    }
    for said, remedy in remedies.items():
        if remedy:
            raise UserError(
                f"{said} is of attention, but mixer 'mlp' has none: write {remedy}, or mixer "
                "attention."
            )
