"""`--mode convert`: weights between checkpoints of this project and the files of others.

Names of the classes and preprocessing go with the weights, into `description.json` of a workdir or
`FILE.json` beside a file. A checkpoint that is made here holds weights and no state of an
optimiser, so a training starts from it (`config.init.workdir`) but does not go on in it. Its folder
is written in full under another name and then takes its own; nothing that exists is replaced.
"""

from __future__ import annotations

import os
from pathlib import Path

import jax
from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.checkpoints.store import Checkpoints
from avit_jax.checkpoints.weights import Weights, weights_of_file
from avit_jax.checkpoints.workdir import CONVERTED, as_rows
from avit_jax.errors import UserError
from avit_jax.experiment import Experiment
from avit_jax.pretrained import hub
from avit_jax.pretrained.shards import is_weight_folder
from avit_jax.pretrained.torch_writer import ENDINGS, save_torch
from avit_jax.runtime.device_mesh import make_mesh
from avit_jax.runtime.files import write_json_atomic, write_text_atomic
from avit_jax.runtime.processes import refuse_several_processes
from avit_jax.runtime.replaced_folder import replaced_folder
from avit_jax.runtime.stores import as_path
from avit_jax.runtime.tables import table

_FILES = (*ENDINGS, ".npz", ".pth.tar", ".tar")


def convert_run(
    config: ConfigDict,
    workdir: Path,
    *,
    source: str | None = None,
    output: str | None = None,
    layout: str = "timm",
) -> Path:
    """Read weights from a workdir or a file and write them to a file or a workdir.

    Args:
        config: describes the model. `config.eval.weights` chooses between the moving average and
          the raw weights; `config.init.pixels` says what the weights of a file expect.
        workdir: read or written where `source` or `output` leaves it open.
        source: what `load_torch` takes, or the workdir of a run.
        output: `.pth`, `.pt`, `.bin` or `.safetensors`, or a workdir that does not exist yet.
        layout: whose names a file gets, as for `Model.to_torch`.

    Returns:
        What was written.

    Raises:
        UserError: the two are the same kind of folder, `output` exists, or the weights do not fit.
    """
    refuse_several_processes("convert")
    target = as_path(output) if output is not None else workdir
    from_file, to_file = (is_weight_file(os.fspath(end)) for end in (source or workdir, target))
    if not from_file and not to_file:
        raise UserError(
            "there is nothing to convert from one workdir to another: write a weight file as "
            f"--input (.pth, .safetensors, .npz, hf://owner/name) or as --output "
            f"({', '.join(ENDINGS)})."
        )
    if layout != "timm" and not to_file:
        raise UserError(
            f"--layout {layout} is for weight files, but --output {target} is a workdir: leave it "
            f"out, or write a file ({', '.join(ENDINGS)})."
        )
    _refuse_existing(target, *([configs.beside(target)] if to_file else []))
    experiment = Experiment(config, workdir if source is None else as_path(source))
    model, mesh = experiment.model, make_mesh(devices=jax.devices()[:1])
    if from_file:
        pixels, chosen = experiment.settings.init.pixels, experiment.settings.eval.weights
        weights = weights_of_file(str(source), model, mesh, pixels=pixels, weights=chosen)
    else:
        weights = experiment.weights(mesh)
    if to_file:
        # Whatever pixels they were trained on, parameters take ours since they were read.
        save_torch(target, model.to_torch(weights.params, layout=layout), pixels="imagenet")
        experiment.describe(target)
    else:
        _write_workdir(target, config, weights, experiment)
    print(table(_rows(experiment, weights, target), "Converted"), flush=True)
    return target


def is_weight_file(end: str) -> bool:
    """Whether a path names weights of others, by its ending or content; else it is a workdir."""
    if end.startswith(hub.PREFIX) or end.endswith(_FILES):
        return True
    return as_path(end).is_file() or is_weight_folder(as_path(end))


def _refuse_existing(*targets: Path) -> None:
    for path in targets:
        is_empty = path.is_dir() and not any(path.iterdir())
        if path.exists() and not is_empty:
            raise UserError(
                f"{path} exists and is not replaced: write another --output, or move it."
            )


def _write_workdir(
    target: Path, config: ConfigDict, weights: Weights, experiment: Experiment
) -> None:
    described = ConfigDict(config.to_dict())
    described.init.update(workdir=None, weights=None, pixels=None)
    # One set of weights, whatever it was an average of.
    described.train.ema_decay, described.eval.weights = 0.0, "auto"
    with replaced_folder(target) as folder:
        checkpoints = Checkpoints(folder / "checkpoints")
        checkpoints.save(0, {"params": weights.params})
        checkpoints.close()
        write_json_atomic(folder / CONVERTED, {"from": weights.origin, "model": config.model.name})
        write_text_atomic(folder / "config.json", configs.to_json(described))
        experiment.describe(folder)


def _rows(experiment: Experiment, weights: Weights, target: Path) -> list[tuple[str, str]]:
    return [
        ("model", experiment.name),
        ("parameters", f"{experiment.model.num_params():,}"),
        ("from", weights.origin),
        *as_rows(experiment.changes),
        ("written to", str(target)),
    ]
