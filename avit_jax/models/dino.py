"""Sizes of DINO, DINOv2 and ViTs with registers, which were trained without labels.

Their weights come without a classifier, so a fresh one is added, to be trained. Names are timm's.
"""

from __future__ import annotations

from avit_jax.models.family import Family, Published
from avit_jax.models.vit import SIZES, ViTShape

_DINO, _DINOV2 = (f"https://github.com/facebookresearch/{name}" for name in ("dino", "dinov2"))
_V2 = {"patch_size": 14, "image_size": 518, "layer_scale": 1e-5}
_REGISTERS = {"num_registers": 4, "pos_embed_prefix": False}


def _published(address: str, source: tuple[str, str], crop_ratio: float) -> Published:
    return Published(
        weights=f"hf://timm/{address}", top1=None, source=source, crop_ratio=crop_ratio
    )


_FIRST = {
    f"vit_{size}_patch{patch}_224.dino": ViTShape(**SIZES[size], patch_size=patch)
    for size in ("small", "base")
    for patch in (8, 16)
}
_SECOND = {
    f"vit_{size}_patch14{registers}_dinov2": ViTShape(**SIZES[size], **_V2, **extra)
    for size in ("small", "base", "large")
    for registers, extra in (("", {}), ("_reg4", _REGISTERS))
}
FAMILIES = (
    Family(
        heading="DINO: dense, no classifier ([arXiv 2104.14294](https://arxiv.org/abs/2104.14294))",
        members=_FIRST,
        published={name: _published(name, ("DINO", _DINO), 224 / 256) for name in _FIRST},
        only_dense=True,
    ),
    Family(
        heading="DINOv2: dense, no classifier "
        "([arXiv 2304.07193](https://arxiv.org/abs/2304.07193)), with registers "
        "([arXiv 2309.16588](https://arxiv.org/abs/2309.16588))",
        members=_SECOND,
        published={
            name: _published(f"{name}.lvd142m", ("DINOv2", _DINOV2), 1.0) for name in _SECOND
        },
        only_dense=True,
    ),
)
