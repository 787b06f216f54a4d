"""Published weights of the named models, and the accuracy that their authors report.

Data only; every figure is the source's own, none was measured here. DeiT's are those that its
README gives for the released files (arXiv 2012.12877's abstract has 83.1 for base at 384 px). The
ViTs are AugReg's (arXiv 2106.10270), with the accuracy that timm measured for its copies.
"""

from __future__ import annotations

import dataclasses

_DEIT = ("DeiT", "https://github.com/facebookresearch/deit/blob/main/README_deit.md")
_TIMM = (
    "timm",
    "https://github.com/huggingface/pytorch-image-models/blob/main/results/results-imagenet.csv",
)
_T2T = ("T2T-ViT", "https://github.com/yitu-opensource/T2T-ViT")
_AVIT = ("A-ViT", "https://github.com/NVlabs/A-ViT")
_ADAVIT = ("AdaViT", "https://github.com/MengLcool/AdaViT")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """Weights of one named model, trained for ImageNet-1K.

    Attributes:
        weights: an address for `config.init.weights`, or a page to download from.
        top1: accuracy on ImageNet-1K's validation images, in percent, as reported.
        source: its name and its address.
        pixels: what the weights expect, for `config.init.pixels`.
        crop_ratio: of the reported evaluation, for `config.data.augment.crop_ratio`.
        gmacs: multiply-adds per image in 1e9 as reported, where the method decides them.
    """

    weights: str
    top1: float
    source: tuple[str, str]
    pixels: str = "imagenet"
    crop_ratio: float = 224 / 256
    gmacs: float | None = None

    @property
    def loadable(self) -> bool:
        """Whether `weights` is an address that `load_torch` takes."""
        return self.weights.startswith("hf://")


def _deit(name: str, top1: float) -> Published:
    return Published(weights=f"hf://timm/{name}.fb_in1k", top1=top1, source=_DEIT)


def _augreg(name: str, top1: float) -> Published:
    return Published(
        weights=f"hf://timm/{name}.augreg_in21k_ft_in1k",
        top1=top1,
        source=_TIMM,
        pixels="symmetric",
        crop_ratio=1.0 if name.endswith("384") else 0.9,
    )


def _avit(top1: float, gmacs: float) -> Published:
    return Published(weights=_AVIT[1], top1=top1, source=_AVIT, gmacs=gmacs)


def _adavit(top1: float, gmacs: float) -> Published:
    # The released code evaluates both models with T2T-ViT's crop.
    return Published(weights=_ADAVIT[1], top1=top1, source=_ADAVIT, gmacs=gmacs, crop_ratio=0.9)


_DEIT_TOP1 = {
    "deit_tiny_patch16_224": 72.2,
    "deit_small_patch16_224": 79.9,
    "deit_base_patch16_224": 81.8,
    "deit_base_patch16_384": 82.9,
    "deit_tiny_distilled_patch16_224": 74.5,
    "deit_small_distilled_patch16_224": 81.2,
    "deit_base_distilled_patch16_224": 83.4,
    "deit_base_distilled_patch16_384": 85.2,
}
_AUGREG_TOP1 = {
    "vit_tiny_patch16_224": 75.454,
    "vit_tiny_patch16_384": 78.424,
    "vit_small_patch16_224": 81.384,
    "vit_small_patch16_384": 83.802,
    "vit_base_patch16_224": 84.532,
    "vit_base_patch16_384": 85.996,
    "vit_large_patch16_224": 85.834,
    "vit_large_patch16_384": 87.084,
}
_T2T_TOP1 = {
    "t2t_vit_7": 71.7,
    "t2t_vit_10": 75.2,
    "t2t_vit_12": 76.5,
    "t2t_vit_14": 81.5,
    "t2t_vit_19": 81.9,
    "t2t_vit_24": 82.3,
    "t2t_vit_t_14": 81.7,
    "t2t_vit_t_19": 82.4,
    "t2t_vit_t_24": 82.6,
}
PUBLISHED = {
    **{name: _deit(name, top1) for name, top1 in _DEIT_TOP1.items()},
    **{name: _augreg(name, top1) for name, top1 in _AUGREG_TOP1.items()},
    **{
        name: Published(weights=_T2T[1], top1=top1, source=_T2T, crop_ratio=0.9)
        for name, top1 in _T2T_TOP1.items()
    },
    # Of the released weights; the paper (arXiv 2112.07658) has 71.0 and 78.6.
    "avit_tiny_patch16_224": _avit(71.4, 0.8),
    "avit_small_patch16_224": _avit(78.8, 3.6),
    # As in the paper (arXiv 2111.15668).
    "adavit_deit_small_patch16_224": _adavit(77.3, 2.3),
    "adavit_t2t_vit_19": _adavit(81.1, 3.9),
}
