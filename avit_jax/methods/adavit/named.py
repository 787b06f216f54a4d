"""AdaViTs by name: on every named backbone, with the settings of the released models."""

from __future__ import annotations

from collections.abc import Iterable

from avit_jax.methods.adavit.model import Model
from avit_jax.methods.adavit.settings import Settings
from avit_jax.models.family import Family, Published
from avit_jax.models.shape import Shape

_CODE = "https://github.com/MengLcool/AdaViT"


def families(backbones: Iterable[Family[Shape]]) -> list[Family[Model]]:
    """`adavit_NAME` on every backbone NAME."""
    members = {
        f"adavit_{name}": Model(shape, Settings())
        for family in backbones
        if not family.only_dense
        for name, shape in family.members.items()
    }
    heading = (
        "AdaViT: policies over tokens, heads and halves "
        "([arXiv 2111.15668](https://arxiv.org/abs/2111.15668))"
    )
    # As in the paper.
    published = {
        "adavit_deit_small_patch16_224": _published(77.3, 2.3),
        "adavit_t2t_vit_19": _published(81.1, 3.9),
    }
    return [Family(heading=heading, members=members, published=published)]


def _published(top1: float, gmacs: float) -> Published:
    # The released code evaluates both models with T2T-ViT's crop.
    source = ("AdaViT", _CODE)
    return Published(weights=_CODE, top1=top1, source=source, gmacs=gmacs, crop_ratio=0.9)
