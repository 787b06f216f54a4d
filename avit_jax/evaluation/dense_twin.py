"""The dense twin of a run: what the same backbone reached on the same data without skipping."""

from __future__ import annotations

import json
from typing import NamedTuple

from avit_jax import config as configs
from avit_jax.experiment import Experiment
from avit_jax.runtime.stores import as_path

# What must be equal for two accuracies to stand side by side.
_COMPARED = (
    "data.name", "data.eval_split", "data.augment.crop_ratio",
    "model.num_classes", "model.image_size", "model.embed_dim", "model.depth",
    "model.attention", "model.norm", "model.pos_embed", "model.mixer",
)  # fmt: skip


class Twin(NamedTuple):
    """Accuracy of the twin; where there is none, `text` says why."""

    top1: float | None
    text: str


def dense_twin(experiment: Experiment) -> Twin:
    """The result in the workdir `config.dense_twin`, if it is comparable with this run's."""
    if not experiment.settings.dense_twin:
        return Twin(None, "not trained (set config.dense_twin to its workdir)")
    workdir = as_path(experiment.settings.dense_twin)
    if not (workdir / "summary.json").exists():
        return Twin(None, f"not trained ({workdir} holds no result)")
    try:
        top1 = float(json.loads((workdir / "summary.json").read_text())["top1"])
        changed = configs.differences(experiment.config, (workdir / "config.json").read_text())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Twin(None, f"not known: the result in {workdir} cannot be read ({error!r})")
    other = [changed[key] for key in _COMPARED if key in changed]
    if other:
        return Twin(None, f"not comparable: {workdir} has {'; '.join(other)}")
    return Twin(top1, f"{top1:.2%}")
