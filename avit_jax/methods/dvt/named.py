"""Cascades by name: the published ones, those of small backbones, and those that halt inside."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from avit_jax.methods import base
from avit_jax.methods.dvt.model import Model
from avit_jax.methods.dvt.settings import Settings
from avit_jax.models.family import Family

_THREE, _TWO, _SMALL = (7, 10, 14), (7, 14), (4, 6, 8)
# By the cascade's name: the model's of every exit, the grid of every exit, and the size of images.
_CASCADES = {
    "dvt_deit_tiny": ("deit_tiny_patch16_224", _THREE, 224),
    "dvt_deit_tiny_128": ("deit_tiny_patch16_224", _SMALL, 128),
    "dvt_deit_small": ("deit_small_patch16_224", _THREE, 224),
    "dvt_deit_small_7_14": ("deit_small_patch16_224", _TWO, 224),
    "dvt_deit_micro": ("deit_micro_patch4_32", _SMALL, 32),
    "dvt_t2t_vit_12": ("t2t_vit_12", _THREE, 224),
    "dvt_t2t_vit_12_7_14": ("t2t_vit_12", _TWO, 224),
    "dvt_t2t_vit_14": ("t2t_vit_14", _THREE, 224),
    "dvt_t2t_vit_14_7_14": ("t2t_vit_14", _TWO, 224),
    "dvt_avit_deit_micro": ("avit_micro_patch4_32", _SMALL, 32),
    "dvt_avit_deit_small": ("avit_small_patch16_224", _THREE, 224),
    "dvt_avit_deit_tiny_128": ("avit_tiny_patch16_224", _SMALL, 128),
    "dvt_adavit_deit_micro": ("adavit_deit_micro_patch4_32", _SMALL, 32),
    "dvt_adavit_deit_small": ("adavit_deit_small_patch16_224", _THREE, 224),
}


def families(inner: Iterable[Family[base.Model]]) -> list[Family[Model]]:
    """The cascades whose exits are the named models of other methods.

    Args:
        inner: families of those.
    """
    models = {name: model for family in inner for name, model in family.members.items()}
    members = {
        name: Model(
            dataclasses.replace(models[one].shape, image_size=size),
            Settings(grids=grids),
            models[one],
        )
        for name, (one, grids, size) in _CASCADES.items()
    }
    heading = (
        "DVT: a cascade of exits with ever finer patches "
        "([arXiv 2105.15075](https://arxiv.org/abs/2105.15075))"
    )
    return [Family(heading=heading, members=members)]
