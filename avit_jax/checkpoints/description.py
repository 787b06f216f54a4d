"""What a run's images and answers mean, kept wherever its weights go.

The names of the classes are those of the training data, which need not be at hand later. They and
the preprocessing of an image stand under the same keys ("labels", "preprocessing") in
`description.json` of a workdir, in `export.json` of an exported folder, and in `FILE.json` beside a
weight file; the last two also hold the config, for nothing else says what model it is.
"""

from __future__ import annotations

import dataclasses
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
from avit_jax.errors import UserError
from avit_jax.models.backbone import Shape
from avit_jax.runtime.files import write_json_atomic

logger = logging.getLogger(__name__)

RUN, EXPORTED = "description.json", "export.json"
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Description:
    """What is known of a run, an exported folder or a weight file.

    Attributes:
        class_names: in the order of the logits; `None` where they are not known.
        config: of the run; `None` where it lies elsewhere.
    """

    class_names: tuple[str, ...] | None = None
    config: ConfigDict | None = None


def find(place: Path) -> Description:
    """What is written down about a workdir, an exported folder or a weight file, if anything is.

    Raises:
        UserError: it is damaged.
    """
    for file in (place / RUN, place / EXPORTED, beside(place)):
        if file.is_file():
            return _read(file)
    return Description()


def beside(weights: Path) -> Path:
    """The file that describes a weight file."""
    return weights.with_name(f"{weights.name}.json")


def write_for_run(
    workdir: Path, name: str, shape: Shape, augment: Augment, class_names: tuple[str, ...] | None
) -> None:
    """Describe a run in its workdir, where its config and weights lie already.

    Args:
        workdir: of the run.
        name: of the model.
        shape: of its backbone.
        augment: holds the evaluation crop.
        class_names: in the order of the logits; `None` where they are not known.
    """
    if jax.process_index() == 0:
        write_json_atomic(workdir / RUN, _described(name, shape, augment, class_names))


def write_beside(
    weights: Path,
    config: ConfigDict,
    name: str,
    shape: Shape,
    augment: Augment,
    class_names: tuple[str, ...] | None,
) -> None:
    """Describe a weight file beside it; the arguments are those of `write_for_run`."""
    content = _described(name, shape, augment, class_names)
    write_json_atomic(beside(weights), content | {"config": portable(config)})


def _described(
    name: str, shape: Shape, augment: Augment, class_names: tuple[str, ...] | None
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "model": name,
        "labels": None if class_names is None else list(class_names),
        "preprocessing": preprocessing(shape, augment),
    }


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


def _read(file: Path) -> Description:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        labels, config = content["labels"], content.get("config")
        if config is not None:
            # What it was trained from is left out there; what is absent takes its default.
            config = configs.from_json(json.dumps(config | {"init": {}}))
        return Description(None if labels is None else tuple(map(str, labels)), config)
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(
            f"{file} is damaged ({error!r}): put a sound copy in its place, or move it away."
        ) from error
