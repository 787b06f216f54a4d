"""A process of its own for one cell: it trains, or goes on training, measures and writes a result.

    python -m avit_jax.study.cell_process < TASK

The task is JSON, see `task_of`. It ends with the statuses of all commands: 0 done, 2 something the
user has to put right, 75 stopped with everything saved.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from absl import logging as absl_logging

from avit_jax import config as configs
from avit_jax.checkpoints.budgets import Budget
from avit_jax.errors import EXIT_PREEMPTED, EXIT_USAGE, Preempted, UserError
from avit_jax.experiment import Experiment
from avit_jax.runtime import environment, last_word
from avit_jax.runtime.compilation_cache import use_compilation_cache
from avit_jax.runtime.files import write_json_atomic
from avit_jax.runtime.locks import only_writer
from avit_jax.runtime.processes import preemption_notice
from avit_jax.study.cells import Cell
from avit_jax.study.measure import measure
from avit_jax.study.results import RESULT, asked_of, folder_of
from avit_jax.training.loop import train


def task_of(workdir: Path, cell: Cell, budgets: Mapping[str, Budget]) -> dict[str, Any]:
    """All that the process of a cell has to know, as plain values."""
    return {
        "workdir": str(folder_of(workdir, cell)),
        "config": json.loads(configs.to_json(cell.config)),
        "budgets": {name: budget.amount for name, budget in budgets.items()},
        "cell": {
            "name": cell.name,
            "labels": dict(cell.labels),
            "seed": cell.seed,
            "fold": cell.fold,
        },
        "asked": asked_of(cell, budgets),
    }


def run(task: Mapping[str, Any], stop: Callable[[int], bool]) -> dict[str, Any]:
    """Do the task of a cell, and return its result, as written to `cell.json`.

    Args:
        task: from `task_of`.
        stop: asked after every step whether to stop.

    Raises:
        UserError: the training or its evaluation cannot be, or another process is at it.
        Preempted: `stop` said so; the state is saved.
    """
    workdir = Path(task["workdir"])
    config = configs.typed(configs.from_json(json.dumps(task["config"])))
    summary = train(config, workdir, stop=stop)
    began = time.perf_counter()
    budgets = [Budget(amount, "gmacs") for amount in task["budgets"].values()]
    with only_writer(workdir, "study"):
        points = measure(Experiment(config, workdir), budgets)
        result = {
            **task["cell"],
            "asked": task["asked"],
            "points": points,
            "training": training_figures(summary, workdir, config.train.batch_size),
            "seconds": summary["seconds"] + time.perf_counter() - began,
            "config": task["config"],
        }
        write_json_atomic(workdir / RESULT, result)
    return result


def training_figures(
    summary: Mapping[str, Any], workdir: Path, batch_size: int
) -> dict[str, float | None]:
    """What a training came to: losses of its last log line, its speed, figures without skipping."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    last = [line for line in lines if line["kind"] == "train"][-1:]
    losses = {
        name: value
        for line in last
        for name, value in line.items()
        if name == "loss" or name.endswith(("_loss", "_penalty"))
    }
    speed = summary["train_images_per_second"]
    return {
        **losses,
        "steps": summary["steps"],
        "steps_per_second": speed / batch_size if speed else None,
        "train_seconds": summary["seconds"],
        "top1_dense": summary["top1_dense"],
        "gmacs_dense": summary["gmacs_dense"],
    }


def main() -> None:
    """See the module."""
    study = os.getppid()
    environment.print_anything(sys.stdout, sys.stderr)
    absl_logging.set_verbosity(absl_logging.WARNING)  # checkpointing tells its whole life otherwise
    logging.basicConfig(format="%(message)s", force=True)
    logging.getLogger("avit_jax").setLevel(logging.INFO)
    task, notice = json.load(sys.stdin), preemption_notice()
    try:
        environment.use_own_dtypes()
        environment.require_device()
        use_compilation_cache()
        # Whoever started it may have been killed: nobody would know of its result.
        run(task, lambda step: notice(step) or os.getppid() != study)
    except Preempted as stopped:
        print(stopped)
        sys.exit(EXIT_PREEMPTED)
    except UserError as error:
        print(f"avit_jax: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE)


if __name__ == "__main__":
    with last_word.last_of():
        main()
