"""`--mode eval`: exact figures of a trained run, as a table and as `eval.json`."""

from __future__ import annotations

from pathlib import Path

import jax
from ml_collections import ConfigDict

from avit_jax.evaluation import report
from avit_jax.experiment import Experiment
from avit_jax.runtime.files import write_json_atomic
from avit_jax.runtime.tables import columns, table


def evaluate_run(config: ConfigDict, workdir: Path) -> dict:
    """Evaluate the weights of `Experiment.weights` on `config.data.eval_split`.

    Method settings, data and batch size may differ from those of the training; the sizes of the
    model may not. `config.eval.weights` chooses between the moving average and the raw weights.

    Raises:
        UserError: there is nothing to evaluate, or the weights do not fit the model.
    """
    experiment = Experiment(config, workdir)
    chosen = experiment.weights()
    results, dense = (
        report.evaluate_as(experiment, chosen.params, execution)
        for execution in ("masked", "dense")
    )
    summary = report.summarise(experiment, results, dense)
    summary["weights"] = chosen.origin
    summary["method"] = config.method.to_dict()  # an operating point changes it
    summary["summary"] = str(workdir / "eval.json")
    if jax.process_index() == 0:
        write_json_atomic(workdir / "eval.json", summary)
        print(table(report.summary_rows(summary), "Evaluation"))
        print(columns(*report.class_columns(summary, experiment.eval_source.class_names)))
    return summary
