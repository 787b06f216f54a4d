"""Sizes of DeiT III (arXiv 2204.07118): ViTs with LayerScale, and positions of patches alone."""

from __future__ import annotations

from avit_jax.models.family import Family, Published
from avit_jax.models.vit import SIZES, ViTShape

# The paper's models; medium is that of its released code.
_SIZES = {
    "small": SIZES["small"],
    "medium": {"embed_dim": 512, "depth": 12, "num_heads": 8},
    "base": SIZES["base"],
    "large": SIZES["large"],
}
# As the README of the released code gives them, trained on ImageNet-1K alone.
_README = "https://github.com/facebookresearch/deit/blob/main/README_revenge.md"
_TOP1 = {
    "deit3_small_patch16_224": 81.4,
    "deit3_small_patch16_384": 83.4,
    "deit3_base_patch16_224": 83.8,
    "deit3_base_patch16_384": 85.0,
    "deit3_large_patch16_224": 84.9,
    "deit3_large_patch16_384": 85.8,
}


def _published(name: str, top1: float) -> Published:
    return Published(
        weights=f"hf://timm/{name}.fb_in1k",
        top1=top1,
        source=("DeiT III", _README),
        crop_ratio=1.0,
    )


FAMILIES = (
    Family(
        heading="DeiT III: dense ([arXiv 2204.07118](https://arxiv.org/abs/2204.07118))",
        members={
            f"deit3_{size}_patch16_{pixels}": ViTShape(
                **sizes, image_size=pixels, layer_scale=1e-6, pos_embed_prefix=False
            )
            for size, sizes in _SIZES.items()
            for pixels in (224, 384)
            if (size, pixels) != ("medium", 384)
        },
        published={name: _published(name, top1) for name, top1 in _TOP1.items()},
        only_dense=True,
    ),
)
