"""Families of named models: what a backbone's file, and a method's folder, contribute to the zoo.

Data only. Every published figure is the source's own, none was measured here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Generic, TypeVar

Member = TypeVar("Member")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """Weights of one named model, trained for ImageNet-1K or without a classifier.

    Attributes:
        weights: an address for `config.init.weights`, or a page to download from.
        top1: accuracy on ImageNet-1K's validation images, in percent, as reported; `None` of
            weights without a classifier.
        source: its name and its address.
        pixels: what the weights expect, for `config.init.pixels`.
        crop_ratio: of the reported evaluation, for `config.data.augment.crop_ratio`.
        gmacs: multiply-adds per image in 1e9 as reported, where the method decides them.
    """

    weights: str
    top1: float | None
    source: tuple[str, str]
    pixels: str = "imagenet"
    crop_ratio: float = 224 / 256
    gmacs: float | None = None

    @property
    def loadable(self) -> bool:
        """Whether `weights` is an address that `load_torch` takes."""
        return self.weights.startswith("hf://")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family(Generic[Member]):
    """Members of one paper under their names: `Shape`s of a backbone, or `Model`s of a method.

    Attributes:
        heading: of their section in `docs/models.md`, with a link to the paper.
        members: by name.
        published: weights of members that others have trained, by the member's name.
        only_dense: no adaptive method comes in these sizes by name, because they are those of
            another family with other weights.
    """

    heading: str
    members: Mapping[str, Member]
    published: Mapping[str, Published] = dataclasses.field(default_factory=dict)
    only_dense: bool = False
