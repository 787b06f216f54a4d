"""ImageNet's evaluation variants that TFDS has, for models with ImageNet's thousand classes.

| name | split | what is right |
|---|---|---|
| `imagenet_v2/matched-frequency`, `/threshold-0.7`, `/topimages` | `test` | its label |
| `imagenet2012_real` | `validation` | each of its ReaL labels (arXiv 2006.07159) |
| `imagenet_a`, `imagenet_r` | `test` | its label, of 200 classes (arXiv 1907.07174, 2006.16241) |
| `imagenet_sketch` | `test` | its label |
| `imagenet2012_corrupted/fog_3` and so on | `validation` | its label (arXiv 1903.12261) |

TFDS labels all of them with the thousand names of ImageNet in their order. They are for evaluation
alone.
"""

from __future__ import annotations

import logging
import re

import numpy as np

from avit_jax.data.augment import Augment
from avit_jax.data.example import BadExample, Example, Source
from avit_jax.data.tfds_source import TfdsSource
from avit_jax.errors import UserError

logger = logging.getLogger(__name__)

REAL = "imagenet2012_real"
CORRUPTED = "imagenet2012_corrupted"  # stored as 224 x 224 pixels, cut out of the middle
# Numbers of the classes that answers are chosen from, counted from 0: the masks in the evaluation
# scripts of the datasets' authors (hendrycks/natural-adv-examples and hendrycks/imagenet-r).
_OF_A = (
    6, 11, 13, 15, 17, 22, 23, 27, 30, 37, 39, 42, 47, 50, 57, 70, 71, 76, 79, 89, 90, 94, 96,
    97, 99, 105, 107, 108, 110, 113, 124, 125, 130, 132, 143, 144, 150, 151, 207, 234, 235, 254,
    277, 283, 287, 291, 295, 298, 301, 306, 307, 308, 309, 310, 311, 313, 314, 315, 317, 319,
    323, 324, 326, 327, 330, 334, 335, 336, 347, 361, 363, 372, 378, 386, 397, 400, 401, 402,
    404, 407, 411, 416, 417, 420, 425, 428, 430, 437, 438, 445, 456, 457, 461, 462, 470, 472,
    483, 486, 488, 492, 496, 514, 516, 528, 530, 539, 542, 543, 549, 552, 557, 561, 562, 569,
    572, 573, 575, 579, 589, 606, 607, 609, 614, 626, 627, 640, 641, 642, 643, 658, 668, 677,
    682, 684, 687, 701, 704, 719, 736, 746, 749, 752, 758, 763, 765, 768, 773, 774, 776, 779,
    780, 786, 792, 797, 802, 803, 804, 813, 815, 820, 823, 831, 833, 835, 839, 845, 847, 850,
    859, 862, 870, 879, 880, 888, 890, 897, 900, 907, 913, 924, 932, 933, 934, 937, 943, 945,
    947, 951, 954, 956, 957, 959, 971, 972, 980, 981, 984, 986, 987, 988,
)  # fmt: skip
_OF_R = (
    1, 2, 4, 6, 8, 9, 11, 13, 22, 23, 26, 29, 31, 39, 47, 63, 71, 76, 79, 84, 90, 94, 96, 97,
    99, 100, 105, 107, 113, 122, 125, 130, 132, 144, 145, 147, 148, 150, 151, 155, 160, 161,
    162, 163, 171, 172, 178, 187, 195, 199, 203, 207, 208, 219, 231, 232, 234, 235, 242, 245,
    247, 250, 251, 254, 259, 260, 263, 265, 267, 269, 276, 277, 281, 288, 289, 291, 292, 293,
    296, 299, 301, 308, 309, 310, 311, 314, 315, 319, 323, 327, 330, 334, 335, 337, 338, 340,
    341, 344, 347, 353, 355, 361, 362, 365, 366, 367, 368, 372, 388, 390, 393, 397, 401, 407,
    413, 414, 425, 428, 430, 435, 437, 441, 447, 448, 457, 462, 463, 469, 470, 471, 472, 476,
    483, 487, 515, 546, 555, 558, 570, 579, 583, 587, 593, 594, 596, 609, 613, 617, 621, 629,
    637, 657, 658, 701, 717, 724, 763, 768, 774, 776, 779, 780, 787, 805, 812, 815, 820, 824,
    833, 847, 852, 866, 875, 883, 889, 895, 907, 928, 931, 932, 933, 934, 936, 937, 943, 945,
    947, 948, 949, 951, 953, 954, 957, 963, 965, 967, 980, 981, 983, 988,
)  # fmt: skip
_CHOICES = {"imagenet_a": _OF_A, "imagenet_r": _OF_R}
_NAMES = {"imagenet_v2", REAL, *_CHOICES, "imagenet_sketch", CORRUPTED}


def is_variant(name: str) -> bool:
    """Whether a dataset's name, with or without configuration and version, is one of these."""
    return _dataset(name) in _NAMES


class ImagenetVariant(TfdsSource):
    """A variant, read as any other dataset of TFDS, which knows which answers are right.

    Attributes:
        choice: numbers of the classes that answers are chosen from; `None` for all.
        is_cut: whether images are stored as they are to be looked at, without a margin.
    """

    def __init__(self, name: str, *, split: str, data_dir: str | None) -> None:
        """See `TfdsSource`; of ReaL labels an image's own label is ImageNet's, for tables."""
        dataset = _dataset(name)
        self._has_several = dataset == REAL
        label_key = "original_label" if self._has_several else None
        super().__init__(name, split=split, data_dir=data_dir, label_key=label_key)
        self.choice = _CHOICES.get(dataset)
        self.is_cut = dataset == CORRUPTED

    def __getitem__(self, index: int) -> Example:
        """As of `TfdsSource`; a label that is not to choose is one bad example, too."""
        example = super().__getitem__(index)
        if self.choice is not None and example.label not in self.choice:
            raise BadExample(f"has label {example.label}, none of the {len(self.choice)} classes")
        return example

    def verdicts(self, indices: np.ndarray, valid: np.ndarray) -> dict[str, np.ndarray]:
        """What an evaluation has to know of some images beside their labels.

        Args:
            indices: `[b]`, of examples.
            valid: `[b]` bool, those that could be read.

        Returns:
            Of datasets with several labels `right` bool `[b, C]`, the right answers, `unlabelled`
            bool `[b]`, images to which nobody has found a label, and `valid` without them. Of those
            with fewer classes `choice` bool `[b, C]`, the answers to choose from.
        """
        found: dict[str, np.ndarray] = {}
        shape = (len(indices), len(self.class_names))
        if self.choice is not None:
            found["choice"] = np.zeros(shape, bool)
            found["choice"][:, list(self.choice)] = True
        if self._has_several:
            right = np.zeros(shape, bool)
            for row in np.flatnonzero(valid):
                right[row, self.record(int(indices[row]))["real_label"]] = True
            unlabelled = valid & ~right.any(1)
            found |= {"right": right, "unlabelled": unlabelled, "valid": valid & ~unlabelled}
        return found


def to_train_on(source: Source) -> Source:
    """The source; raises UserError for a variant."""
    if isinstance(source, ImagenetVariant):
        raise UserError(
            f"{source.name} is there to evaluate models of ImageNet, not to train them: write "
            "--config.data.name imagenet2012 to train, and this name with --mode eval."
        )
    return source


def to_evaluate_on(source: Source, augment: Augment) -> Source:
    """The source; warns where what is to be looked at loses a margin a second time."""
    if isinstance(source, ImagenetVariant) and source.is_cut and augment.crop_ratio != 1:
        logger.warning(
            "images of %s are cut out already and lose another margin by "
            "config.data.augment.crop_ratio %g: write 1 for the usual figures",
            source.name,
            augment.crop_ratio,
        )
    return source


def _dataset(name: str) -> str:
    return re.split("[/:]", name)[0]
