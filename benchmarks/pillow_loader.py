"""A PyTorch DataLoader with DeiT's augmentations on Pillow, for `input_pipeline.py` to race with.

It is laid out as timm's loaders are: the crop is cut out and resized by bicubic, flipped, passed
through RandAugment, and batches are uint8 tensors `[B, 3, S, S]`; normalisation and erasing follow
on the device there as here. Needs PyTorch, not torchvision.

RandAugment is that of arXiv 1909.13719 as the notation "rand-m9-mstd0.5-inc1" has it: two of
fifteen operations an image, each with probability 1/2, at a magnitude drawn around 9 of 10, where
a larger magnitude always changes more.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch.utils.data import DataLoader, Dataset, RandomSampler

from avit_jax.data.augment import Augment, random_box
from avit_jax.data.example import Source

GREY = (124, 116, 104)  # the mean colour of ImageNet, where a picture is moved away
BICUBIC = Image.Resampling.BICUBIC  # DeiT's crops hand theirs on to RandAugment
MAGNITUDE, DEVIATION, HIGHEST = 9.0, 0.5, 10.0


def _signed(value: float) -> float:
    return value if random.random() < 0.5 else -value


def _affine(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample=BICUBIC, fillcolor=GREY
    )


def _rotate(image: Image.Image, level: float) -> Image.Image:
    return image.rotate(_signed(30 * level), resample=BICUBIC, fillcolor=GREY)


def _solarize_add(image: Image.Image, level: float) -> Image.Image:
    table = [min(255, value + int(110 * level)) if value < 128 else value for value in range(256)]
    return image.point(table * 3)


def _enhanced(kind: Callable[[Image.Image], Any]) -> Callable[[Image.Image, float], Image.Image]:
    return lambda image, level: kind(image).enhance(max(0.1, 1 + _signed(0.9 * level)))


OPERATIONS: tuple[Callable[[Image.Image, float], Image.Image], ...] = (
    lambda image, level: ImageOps.autocontrast(image),
    lambda image, level: ImageOps.equalize(image),
    lambda image, level: ImageOps.invert(image),
    _rotate,
    lambda image, level: ImageOps.posterize(image, max(1, 4 - int(4 * level))),
    lambda image, level: ImageOps.solarize(image, 256 - int(256 * level)),
    _solarize_add,
    _enhanced(ImageEnhance.Color),
    _enhanced(ImageEnhance.Contrast),
    _enhanced(ImageEnhance.Brightness),
    _enhanced(ImageEnhance.Sharpness),
    lambda image, level: _affine(image, 1, _signed(0.3 * level), 0, 0, 1, 0),
    lambda image, level: _affine(image, 1, 0, 0, _signed(0.3 * level), 1, 0),
    lambda image, level: _affine(image, 1, 0, _signed(0.45 * level) * image.width, 0, 1, 0),
    lambda image, level: _affine(image, 1, 0, 0, 0, 1, _signed(0.45 * level) * image.height),
)


def rand_augment(image: Image.Image) -> Image.Image:
    """Returns the picture behind two random operations."""
    for operation in random.choices(OPERATIONS, k=2):
        if random.random() < 0.5:
            level = min(max(random.gauss(MAGNITUDE, DEVIATION), 0.0), HIGHEST) / HIGHEST
            image = operation(image, level)
    return image


class Pictures(Dataset):
    """Augmented training pictures of a source, uint8 `[3, S, S]`, and their labels."""

    def __init__(self, source: Source, *, image_size: int, randaugment: bool) -> None:
        self.source, self.image_size, self.randaugment = source, image_size, randaugment
        self.augment = Augment()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        example = self.source[index]
        image = Image.open(io.BytesIO(example.image)).convert("RGB")
        generator = np.random.default_rng(random.getrandbits(64))
        box = random_box(*image.size, generator, augment=self.augment)
        size = self.image_size, self.image_size
        image = image.crop(box).resize(size, BICUBIC)
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.randaugment:
            image = rand_augment(image)
        return np.rollaxis(np.asarray(image), 2), example.label


def collate(pairs: list[tuple[np.ndarray, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns one uint8 tensor `[B, 3, S, S]` and the labels `[B]`."""
    images = torch.empty((len(pairs), *pairs[0][0].shape), dtype=torch.uint8)
    for row, (image, _) in enumerate(pairs):
        images[row] = torch.from_numpy(image.copy())
    return images, torch.tensor([label for _, label in pairs])


def batches(
    source: Source, *, batch_size: int, image_size: int, workers: int, randaugment: bool
) -> Iterator[Any]:
    """Returns an endless iterator over batches; `workers` processes, or this one with 0."""
    dataset = Pictures(source, image_size=image_size, randaugment=randaugment)
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=RandomSampler(dataset, replacement=True, num_samples=10**9),
        num_workers=workers,
        collate_fn=collate,
        # Forking a process that has threads may hang.
        multiprocessing_context="spawn" if workers else None,
    )
    return iter(loader)
