"""Which images a run learns from, as its checkpoints know it: other ones are said or refused."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from typing import Any

from avit_jax.data.example import Source
from avit_jax.errors import UserError
from avit_jax.experiment import Experiment

logger = logging.getLogger(__name__)

Identity = dict[str, Any]


def identity(experiment: Experiment) -> Identity:
    """Names of the classes; of both splits the number of images and the SHA-256 of their names.

    A name counts from its class's folder on: data may move between two parts of a run.
    """
    return {
        "class_names": list(experiment.train_source.class_names),
        "training": _of_split(experiment.train_source),
        "evaluation": _of_split(experiment.eval_source),
    }


def refuse_other_classes(stored: Mapping[str, Any] | None, now: Identity) -> None:
    """Hold the data of today against those that a checkpoint was made with.

    Images that were added, removed or renamed change the order of all: a warning says so.

    Args:
        stored: the `identity` that the checkpoint holds; `None` of one older than these.
        now: that of today.

    Raises:
        UserError: the classes have other names, so that labels mean something else.
    """
    if stored is None:
        return
    before, after = stored["class_names"], now["class_names"]
    if before != after:
        first = next(
            (pair for pair in zip(before, after, strict=False) if pair[0] != pair[1]),
            (len(before), len(after)),
        )
        raise UserError(
            f"the classes of the data are not those that the run has learnt (first {first[0]!r}, "
            f"now {first[1]!r}): bring those data back, or begin another --workdir."
        )
    for split in ("training", "evaluation"):
        was, is_now = stored[split], now[split]
        if was != is_now:
            counts = f"{was['images']:,} images then, {is_now['images']:,} now"
            logger.warning(
                "the %s images are not those that the run was begun with (%s%s): it goes on with "
                "these, and does not end as it would have",
                split,
                counts,
                "" if was["images"] != is_now["images"] else ", with other names",
            )


def _of_split(source: Source) -> dict[str, Any]:
    digest = hashlib.sha256()
    for index in range(len(source)):
        name = source.describe(index).replace(os.sep, "/").rsplit("/", 2)[-2:]
        digest.update("/".join(name).encode("utf-8", "surrogateescape") + b"\0")
    return {"images": len(source), "names_sha256": digest.hexdigest()}
