"""`avit_jax.load_run`: a workdir, an exported folder or a weight file as a model that answers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.checkpoints import description
from avit_jax.checkpoints.operating_points import at_operating_point
from avit_jax.checkpoints.store import Checkpoints
from avit_jax.checkpoints.weights import (
    EXPORTED_WEIGHTS,
    Weights,
    weights_of_export,
    weights_of_file,
)
from avit_jax.errors import UserError
from avit_jax.experiment import Experiment
from avit_jax.prediction.loaded_run import LoadedRun
from avit_jax.prediction.preprocessing import published_preprocessing
from avit_jax.pretrained import hub
from avit_jax.pretrained.fit import number_of_classes
from avit_jax.pretrained.weights import load_torch
from avit_jax.runtime.compilation_cache import use_compilation_cache
from avit_jax.runtime.device_mesh import make_mesh
from avit_jax.runtime.stores import as_path

CLASSES = "model.num_classes"


def load_run(
    source: str | os.PathLike[str],
    *,
    model: str | None = None,
    operating_point: str | float | None = None,
    execution: str | None = None,
    class_names: Sequence[str] | None = None,
    config: Mapping[str, Any] | None = None,
) -> LoadedRun:
    """A trained model, with all that is needed to ask it.

    Compiled programs are kept on disk as the command line keeps them.

    Args:
        source: the workdir of a run or of converted weights, an exported folder, or a weight file:
            whatever `load_torch` takes; also in `gs://`.
        model: the name of what a weight file is of (`list_models()`); a file that `--mode convert`
            wrote says so itself. Crop and normalisation are those its weights were published with;
            the number of classes is the file's.
        operating_point: of a run, that `--mode calibrate --budget` has stored, such as "0.8".
        execution: "compact", "static", "masked", "dense" or "capped"; by default what
            `--mode predict` takes: the fastest exact one on this machine, as calibrated.
        class_names: instead of those that are stored; weights of others come without any, and
            their classes are "class 0", "class 1" and so on.
        config: other settings, under the keys of the command line:
            `{"inference.batch_size": 8, "model.image_size": 160}`. What determines the parameters
            of a run cannot change.

    Raises:
        UserError: nothing to load there, or what does not fit.
    """
    if not isinstance(source, str | os.PathLike):
        raise UserError(
            f"there is nothing to load from a {type(source).__name__}: write the path of a "
            "workdir, an exported folder or a weight file."
        )
    if config is not None and not isinstance(config, Mapping):
        raise UserError(
            f'config is a {type(config).__name__}: write settings as {{"inference.batch_size": 8}}.'
        )
    use_compilation_cache()
    place, values = as_path(os.path.expanduser(source)), dict(config or {})
    if execution is not None:
        values["inference.execution"] = execution
    chosen = configs.changed(_config_of(os.fspath(source), place, model), values)
    if CLASSES not in values and _kept_config(place) is None:  # weights of others
        named = configs.make_model(chosen).timm_named(load_torch(os.fspath(source)))
        found = number_of_classes(named)
        chosen = chosen if found is None else configs.changed(chosen, {CLASSES: found})
    if operating_point is not None:
        if not _is_run(place):
            raise UserError(
                f"operating_point is {operating_point!r}, but {source} is no run: points are kept "
                "in the workdir that --mode calibrate --budget has measured."
            )
        chosen = at_operating_point(chosen, place, str(operating_point))
    experiment = Experiment(chosen, place)
    weights = _weights(os.fspath(source), place, experiment)
    names = _class_names(class_names, place, experiment)
    return LoadedRun(
        os.fspath(source), experiment, weights.params, origin=weights.origin, class_names=names
    )


def _class_names(
    given: Sequence[str] | None, place: Path, experiment: Experiment
) -> tuple[str, ...]:
    """As given, as kept with the weights, or as the data of a run have them; else numbers."""
    classes = experiment.model.shape.num_classes
    if given is not None:
        if isinstance(given, str) or not all(isinstance(name, str) for name in given):
            raise UserError(
                f"class_names is {given!r:.60}: write a list of names, in the order of the logits."
            )
        if len(given) != classes:
            raise UserError(f"{len(given)} class_names were given for {classes} classes: name all.")
        return tuple(given)
    if _is_run(place) or description.kept_class_names(place):
        return experiment.class_names[0]
    return description.numbers_for_names(classes)


def _is_run(place: Path) -> bool:
    file = place / "config.json"  # which folders of others have as well
    is_ours = file.is_file() and not configs.is_of_others(file)
    return is_ours and (place / "checkpoints").is_dir()


def _kept_config(place: Path) -> ConfigDict | None:
    # A run that has not begun to train has no weights yet.
    is_ours = _is_run(place) or not (place / "config.json").exists()
    return configs.kept_at(place) if is_ours else None


def _config_of(source: str, place: Path, model: str | None) -> ConfigDict:
    """The config that `source` keeps, or that of a named model's published weights."""
    if place.suffix in (".onnx", ".stablehlo"):
        raise UserError(
            f"{source} is a program for other software, which answers without this package "
            "(docs/export.md): load the run or the folder that it was exported from."
        )
    itself = _kept_config(place)
    if itself is not None:
        if model is not None and model != itself.model.name:
            raise UserError(
                f"{source} says itself that it is of {itself.model.name}, not {model}: leave "
                "model out."
            )
        return configs.typed(itself)
    if not place.exists() and not source.startswith(hub.PREFIX):
        raise UserError(
            f"there is nothing at {source!r}: write the workdir of a run, an exported folder or a "
            "weight file."
        )
    if model is None and (place / EXPORTED_WEIGHTS).is_file():
        raise UserError(
            f"{place / configs.EXPORTED} is missing, or says nothing of the weights beside it: "
            'export the run again, or name a weight file and model="deit_tiny_patch16_224", say.'
        )
    if model is None:
        what = "holds no trained run" if place.is_dir() else "does not say what model it is of"
        raise UserError(
            f"{source} {what}: write the workdir of a run that has a checkpoint, an exported "
            'folder, or a weight file with model="deit_tiny_patch16_224", say.'
        )
    pixels, crop_ratio = published_preprocessing(model)
    values = {"data.augment.crop_ratio": crop_ratio}
    if pixels != "imagenet":  # else the kind of file may know better
        values["init.pixels"] = pixels
    return configs.changed(configs.base(model=model), values)


def _weights(source: str, place: Path, experiment: Experiment) -> Weights:
    """On one device; `predict` puts them where it needs them."""
    mesh = make_mesh(devices=jax.local_devices()[:1])
    if _is_run(place):
        # A training may start from other weights, with a new classifier, which knows nothing yet.
        if not Checkpoints(place / "checkpoints").steps():
            raise UserError(
                f"{place} holds no checkpoint yet: write the workdir of a run that has been "
                "trained, or the weight file that this one starts from."
            )
        return experiment.weights(mesh)
    if (place / configs.EXPORTED).is_file():
        return weights_of_export(place, experiment.model, mesh)
    settings = experiment.settings
    return weights_of_file(
        source,
        experiment.model,
        mesh,
        pixels=settings.init.pixels,
        weights=settings.eval.weights,
        new_classifier=False,
    )
