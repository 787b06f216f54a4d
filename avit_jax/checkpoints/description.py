"""What a run's images and answers mean, kept wherever its weights go.

The names of the classes are those of the training data, which need not be at hand later. They and
the preprocessing of an image stand under the same keys ("labels", "preprocessing") in
`description.json` of a workdir, in `export.json` of an exported folder, and in `FILE.json` beside a
weight file; the last two also hold the config, for nothing else says what model it is.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.data.augment import Augment
from avit_jax.data.example import Source
from avit_jax.data.mix import MEAN, STD
from avit_jax.models.shape import Shape
from avit_jax.runtime.files import write_json_atomic

logger = logging.getLogger(__name__)

RUN = "description.json"
FORMAT = 1


def kept_class_names(place: Path) -> tuple[str, ...] | None:
    """Names of the classes that a workdir, an exported folder or a weight file keeps, if any.

    Raises:
        UserError: the file that they stand in is damaged.
    """
    places = (place / RUN, place / configs.EXPORTED, configs.beside(place))
    for file in places:
        said = configs.described(file)
        if said is not None:
            try:
                return None if said["labels"] is None else tuple(map(str, said["labels"]))
            except (KeyError, TypeError) as error:
                raise configs.damaged(file, error) from error
    return None


def forget(workdir: Path) -> None:
    """Take away what an earlier run has written that trained nothing, perhaps on other data."""
    if jax.process_index() == 0:
        (workdir / RUN).unlink(missing_ok=True)


def numbers_for_names(classes: int) -> tuple[str, ...]:
    """What classes are called whose names nobody has kept."""
    return tuple(f"class {label}" for label in range(classes))


def write(
    place: Path, config: ConfigDict, shape: Shape, class_names: tuple[str, ...] | None
) -> None:
    """Describe a run in its workdir, which has its config already, or a weight file beside it.

    Args:
        place: the workdir, or the weight file.
        config: of the run.
        shape: of the backbone.
        class_names: in the order of the logits; `None` where they are not known.
    """
    content = {
        "format": FORMAT,
        "model": config.model.name,
        "labels": None if class_names is None else list(class_names),
        "preprocessing": preprocessing(shape, configs.Settings.of(config).data.augment),
    }
    if jax.process_index() == 0:
        if place.is_dir():
            write_json_atomic(place / RUN, content)
        else:
            write_json_atomic(configs.beside(place), content | {"config": portable(config)})


def preprocessing(shape: Shape, augment: Augment) -> dict[str, Any]:
    """How an image becomes the model's input, in words and numbers for any program."""
    size = shape.image_size
    return {
        "outside": {
            "decode": "RGB, turned upright as EXIF says",
            "resize": {
                "shorter_side": round(size / augment.crop_ratio),
                "interpolation": "bicubic, antialiased (Pillow)",
                "longer_side": "rounded down",
            },
            "central_crop": size,
        },
        "input": {
            "name": "images",
            "shape": ["batch", size, size, 3],
            "dtype": "uint8",
            "range": [0, 255],
        },
        "inside": {"divide_by": 255, "mean": MEAN, "std": STD},
    }


def portable(config: ConfigDict) -> dict[str, Any]:
    """The config as JSON holds it, without places on this machine, which concern nobody else."""
    shown = json.loads(configs.to_json(config))
    shown["data"]["dir"] = None
    shown["init"] = dict.fromkeys(shown["init"])
    shown["teacher"].update(workdir=None, weights=None)
    shown["dense_twin"] = None
    return shown


def warn_of_other_names(source: Source, kept: tuple[str, ...] | None) -> None:
    """Warn where data name their classes otherwise than those that the run was trained on.

    A label is a number, so figures are right only where the order is the same.
    """
    pairs = zip(kept or source.class_names, source.class_names, strict=True)
    renamed = [(before, now) for before, now in pairs if before != now]
    if renamed:
        logger.warning(
            "%d classes of %s have other names than in training, the first %r for %r: their order "
            "must be the same",
            len(renamed),
            source.name,
            *renamed[0][::-1],
        )
