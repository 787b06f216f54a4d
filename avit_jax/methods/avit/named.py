"""A-ViTs by name: on every named backbone, with the gates that suit its width."""

from __future__ import annotations

from collections.abc import Iterable

from avit_jax.methods.avit.model import Model
from avit_jax.methods.avit.settings import Settings
from avit_jax.models.family import Family, Published
from avit_jax.models.shape import Shape

_CODE = "https://github.com/NVlabs/A-ViT"
# The one size that DeiT does not have.
_LARGE = ("vit_large_patch16_224", "vit_large_patch16_384")


def families(backbones: Iterable[Family[Shape]]) -> list[Family[Model]]:
    """`avit_small_...` on `deit_small_...`, and `avit_NAME` on every other backbone NAME.

    `avit_large_...` is on the ViT-L/16 of arXiv 2010.11929.
    """
    members = {
        f"avit_{name.removeprefix('deit_').removeprefix('vit_')}": Model(shape, settings_for(shape))
        for family in backbones
        for name, shape in family.members.items()
        if not family.only_dense or name in _LARGE
    }
    heading = "A-ViT: tokens halt ([arXiv 2112.07658](https://arxiv.org/abs/2112.07658))"
    # Of the released weights; the paper has 71.0 and 78.6.
    published = {
        "avit_tiny_patch16_224": _published(71.4, 0.8),
        "avit_small_patch16_224": _published(78.8, 3.6),
    }
    return [Family(heading=heading, members=members, published=published)]


def settings_for(shape: Shape) -> Settings:
    """Gates and weights for fine-tuning the DeiT that is nearest in width.

    Tiny and small: README of the published code. It has no values for base, see
    `configs/avit_base.py` for the reasoning; micro is ours.
    """
    if shape.embed_dim < 192:
        gate_scale, gate_center = 5.0, 10.0
    else:
        gate_scale, gate_center = 10.0, 30.0 if shape.embed_dim < 384 else 75.0
    return Settings(
        gate_scale=gate_scale, gate_center=gate_center, ponder_weight=5e-4, prior_weight=1e-3
    )


def _published(top1: float, gmacs: float) -> Published:
    return Published(weights=_CODE, top1=top1, source=("A-ViT", _CODE), gmacs=gmacs)
