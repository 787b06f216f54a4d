"""Named models: sizes of backbones times methods, under the names that users of timm expect."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import itertools
from collections.abc import Mapping
from typing import Any

from avit_jax import methods
from avit_jax.errors import UserError
from avit_jax.methods.base import Model
from avit_jax.models.backbone import Shape
from avit_jax.models.t2t import T2TShape
from avit_jax.models.vit import ViTShape

# Tiny to base: DeiT's Table 1 (arXiv 2012.12877). Large: Table 1 of the ViT paper
# (arXiv 2010.11929). Micro is ours, for 32-pixel images such as the digits.
SIZES = {
    "tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "small": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "large": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
    "micro": {"embed_dim": 48, "depth": 6, "num_heads": 4},
}
GEOMETRIES = {
    "tiny": ((16, 224), (16, 384)),
    "small": ((16, 224), (16, 384)),
    "base": ((16, 224), (16, 384)),
    "large": ((16, 224), (16, 384)),
    "micro": ((4, 32),),
}
# T2T-ViT (arXiv 2101.11986, Table 1, and the released code for 7, 10, 12 and the variants).
_T2T = {
    "7": {"embed_dim": 256, "depth": 7, "num_heads": 4, "mlp_ratio": 2.0},
    "10": {"embed_dim": 256, "depth": 10, "num_heads": 4, "mlp_ratio": 2.0},
    "12": {"embed_dim": 256, "depth": 12, "num_heads": 4, "mlp_ratio": 2.0},
    "14": {"embed_dim": 384, "depth": 14, "num_heads": 6, "mlp_ratio": 3.0},
    "19": {"embed_dim": 448, "depth": 19, "num_heads": 7, "mlp_ratio": 3.0},
    "24": {"embed_dim": 512, "depth": 24, "num_heads": 8, "mlp_ratio": 3.0},
    "14_resnext": {"embed_dim": 384, "depth": 14, "num_heads": 32, "mlp_ratio": 3.0},
    "14_wide": {"embed_dim": 768, "depth": 4, "num_heads": 12, "mlp_ratio": 3.0},
}
T2T_SIZES = {f"t2t_vit_{size}": settings for size, settings in _T2T.items()} | {
    f"t2t_vit_t_{size}": _T2T[size] | {"tokens": "transformer"} for size in ("14", "19", "24")
}
# A-ViT's gates and weights for fine-tuning DeiT: README of the published code. Base has no
# published values; see configs/avit_base.py for the reasoning.
_PUBLISHED = {"ponder_weight": 5e-4, "prior_weight": 1e-3}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """Models of one method.

    Attributes:
        method: a file in `methods/`.
        sizes: that it comes in, with the settings of the method for each.
        distilled: whether there are variants with a distillation token.
        before_t2t: how names begin where the method runs on T2T-ViT, with the settings for the DeiT
            that is nearest in width; `None` if there are no such models.
    """

    method: str
    sizes: Mapping[str, Mapping[str, Any]]
    distilled: bool = True
    before_t2t: str | None = None


FAMILIES = {
    # The names of timm: a ViT is a DeiT without distillation, trained by somebody else.
    "vit": Family(
        method="dense", sizes={"tiny": {}, "small": {}, "base": {}, "large": {}}, distilled=False
    ),
    "deit": Family(
        method="dense",
        sizes={"tiny": {}, "small": {}, "base": {}, "micro": {}},
        before_t2t="",
    ),
    "avit": Family(
        method="avit",
        sizes={
            "tiny": {"gate_scale": 10.0, "gate_center": 30.0, **_PUBLISHED},
            "small": {"gate_scale": 10.0, "gate_center": 75.0, **_PUBLISHED},
            "base": {"gate_scale": 10.0, "gate_center": 75.0, **_PUBLISHED},
            "micro": {"gate_scale": 5.0, "gate_center": 10.0, **_PUBLISHED},
        },
        before_t2t="avit_",
    ),
    "adavit_deit": Family(
        method="adavit",
        sizes={"tiny": {}, "small": {}, "base": {}, "micro": {}},
        before_t2t="adavit_",
    ),
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One named model: its method and backbone, and the settings of both."""

    method: str
    backbone: type[Shape]
    shape: Mapping[str, Any]
    settings: Mapping[str, Any]


@functools.cache
def _entries() -> dict[str, Entry]:
    entries = {}
    for prefix, family in FAMILIES.items():
        variants = (False, True) if family.distilled else (False,)
        for (size, settings), distilled in itertools.product(family.sizes.items(), variants):
            for patch_size, image_size in GEOMETRIES[size]:
                infix = "_distilled" if distilled else ""
                name = f"{prefix}_{size}{infix}_patch{patch_size}_{image_size}"
                shape = SIZES[size] | {
                    "patch_size": patch_size,
                    "image_size": image_size,
                    "distilled": distilled,
                }
                entries[name] = Entry(family.method, ViTShape, shape, settings)
        if family.before_t2t is not None:
            for name, shape in T2T_SIZES.items():
                settings = family.sizes["small" if shape["embed_dim"] >= 384 else "tiny"]
                entries[family.before_t2t + name] = Entry(family.method, T2TShape, shape, settings)
    return entries


def list_models(pattern: str = "*") -> list[str]:
    """Names of all models that match a shell pattern, such as `"avit*"`."""
    return sorted(fnmatch.filter(_entries(), pattern))


def entry(name: str) -> Entry:
    """The settings behind a model's name.

    Raises:
        UserError: unknown name.
    """
    if name not in _entries():
        raise UserError(f"model {name!r} is unknown: choose one of {', '.join(list_models())}.")
    return _entries()[name]


def create_model(name: str, *, method: Mapping[str, Any] | None = None, **overrides: Any) -> Model:
    """A named model, with some of its settings changed.

    Args:
        name: one of `list_models()`.
        method: settings of the method (`gate_scale`, `ponder_weight`, `prior`, ...).
        **overrides: sizes of the backbone (`image_size`, `num_classes`, `embed_dim`, ...).

    Raises:
        UserError: unknown model, unknown setting (the valid ones are listed), or values that
          contradict each other.
    """
    chosen = entry(name)
    settings_type = methods.load(chosen.method).Settings
    shape = _settings(chosen.backbone, chosen.shape, overrides, f"create_model({name!r})")
    settings = _settings(
        settings_type, chosen.settings, method or {}, f"create_model({name!r}, method=...)"
    )
    return methods.load(chosen.method).Model(shape, settings)


def _settings(kind: type, defaults: Mapping, overrides: Mapping, where: str) -> Any:
    valid = [field.name for field in dataclasses.fields(kind)]
    unknown = sorted(set(overrides) - set(valid))
    if unknown:
        raise UserError(
            f"{where} got unknown settings {', '.join(unknown)}: "
            f"valid ones are {', '.join(valid) or 'none'}."
        )
    return kind(**{**defaults, **overrides})
