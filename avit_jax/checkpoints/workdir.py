"""Whose workdir it is: a run goes on with the config it was started with, or not at all.

Where it is only used, by evaluation and all else that is no training, it knows its config itself,
and another one may change what determines no parameter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
from etils import epath
from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.checkpoints import manifest, set_aside
from avit_jax.checkpoints.store import Checkpoints
from avit_jax.errors import UserError
from avit_jax.runtime.files import write_text_atomic

CONVERTED = "converted.json"  # in a workdir of converted weights: where they are from
LENGTH = {"train.epochs", "train.steps"}
SHOWN = 4  # differences that a message names


def refuse_other_run(config: ConfigDict, workdir: Path) -> bool:
    """Whether `workdir` is new to this config; what is there otherwise is to be gone on with.

    A run goes on under the settings it was started with, those apart that may change, and also
    where it is older than some of them, see `config/settings.py`. One that ended before its first
    checkpoint has trained nothing, so any config may follow it.

    Raises:
        UserError: `workdir` belongs to converted weights, or another config has trained there.
    """
    if (workdir / CONVERTED).exists():
        raise UserError(
            f"{workdir} holds converted weights and no state of an optimiser: start from them with "
            f"--config.init.workdir {workdir} and another --workdir."
        )
    file = workdir / "config.json"
    if not file.exists():
        if Checkpoints(workdir / "checkpoints").steps():
            raise UserError(
                f"{workdir} holds checkpoints without their {file.name}, so nobody knows how they "
                "were trained: bring it back, or write another --workdir."
            )
        return True
    saved = configs.to_json(configs.read(file))
    may_change = configs.changeable_keys(config)
    lines = configs.differences(config, saved)
    changed = [lines[key] for key in sorted(lines, key=_order) if key not in may_change]
    if changed and Checkpoints(workdir / "checkpoints").steps():
        if lines.keys() - may_change <= LENGTH:
            remedy = (
                "its learning rate was made for that length: go on from its weights in a new run, "
                f"with --config.init.workdir {workdir} and another --workdir"
            )
        else:
            remedy = "write another --workdir, or the same settings"
        raise UserError(
            f"{workdir} was started with another config ({shortened(changed)}): {remedy}."
        )
    return bool(changed)


def differences_in_use(config: ConfigDict, workdir: Path) -> dict[str, str]:
    """What `config` changes of the trained run in `workdir`, by keys, for people.

    Where nothing was trained, any config is as good as another. Of converted weights nobody knows
    how they were trained; model and method count alone.

    Raises:
        UserError: something that determines parameters, in number or in value.
    """
    if not (workdir / "config.json").exists() or not Checkpoints(workdir / "checkpoints").steps():
        return {}
    lines = configs.differences(config, configs.to_json(configs.read(workdir / "config.json")))
    fixed = lines.keys() - configs.keys_of_use(config)
    if (workdir / CONVERTED).exists():
        lines = {key: line for key, line in lines.items() if not _of_training(key)}
        fixed &= lines.keys()
    if fixed:
        raise UserError(
            f"{workdir} was trained with other settings "
            f"({shortened([lines[key] for key in sorted(fixed, key=_order)])}), which made its "
            "parameters: "
            "leave them out, for a run knows its own config."
        )
    return lines


def _order(key: str) -> tuple[bool, int, str]:
    """What says most comes first: which model it is, then its sizes, its method, its training.

    Of a model that is unknown no other setting is known either, so all of them differ.
    """
    return key != "model.name", {"model": 0, "method": 1}.get(key.partition(".")[0], 2), key


def as_rows(changes: Mapping[str, str]) -> list[tuple[str, str]]:
    """What `differences_in_use` returns as rows of a table."""
    lines = (line.partition(": ") for line in changes.values())
    return [(f"changed: {key}", values) for key, _, values in lines]


def _of_training(key: str) -> bool:
    return key.partition(".")[0] in ("train", "optim", "init", "teacher", "seed")


def shortened(lines: Sequence[str]) -> str:
    """The first few of several remarks, and how many more there are."""
    more = f" and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return "; ".join(lines[:SHOWN]) + more


def write_config(config: ConfigDict, workdir: Path) -> None:
    """Write the config into `workdir`, which belongs to this run from then on.

    To be called once everything that the config names was found: a mistyped path should leave no
    workdir behind that the corrected command is then refused for.
    """
    if jax.process_index() == 0:
        write_text_atomic(workdir / "config.json", configs.to_json(config))


def nothing_in(workdir: Path) -> UserError:
    """What to raise where a run was to have weights and has none."""
    unlisted = set_aside.without_manifest(epath.Path(workdir) / "checkpoints")
    if unlisted:
        names = ", ".join(path.name for path in unlisted)
        return UserError(
            f"{workdir / 'checkpoints'} holds {names} without {manifest.NAME}, so nobody knows "
            "whether they are whole: bring those files back, or another copy of the run."
        )
    missing = "checkpoint yet" if (workdir / "config.json").exists() else "config.json of a run"
    return UserError(
        f"{workdir} holds no {missing}: write the workdir of a run that has been trained, or "
        "weights to use instead with --config.init.weights FILE."
    )
