"""`--mode eval`: exact figures of a trained run, as a table and as `eval.json`."""

from __future__ import annotations

from pathlib import Path

import jax
from ml_collections import ConfigDict

from avit_jax.checkpoints.budgets import normal_name
from avit_jax.evaluation import report
from avit_jax.experiment import Experiment
from avit_jax.runtime.files import write_json_atomic
from avit_jax.runtime.tables import columns, table


def evaluate_run(config: ConfigDict, workdir: Path, *, operating_point: str | None = None) -> dict:
    """Evaluate the weights of `Experiment.weights` on `config.data.eval_split`.

    What determines no parameter may differ from the training: data, image size, thresholds of the
    method; the table says what does. `config.eval.weights` chooses between the moving average and
    the raw weights.

    Args:
        config: of the run; an operating point is in force in it already.
        workdir: of the run.
        operating_point: its name; the figures then go into a file of their own, `eval_0.8.json`.

    Raises:
        UserError: there is nothing to evaluate, the weights do not fit the model, or it answers
            with numbers that are not finite.
    """
    experiment = Experiment(config, workdir)
    chosen = experiment.weights()
    results, dense = (
        report.evaluate_as(experiment, chosen.params, execution, strict=True)
        for execution in ("masked", "dense")
    )
    summary = report.summarise(experiment, results, dense)
    summary["weights"] = chosen.origin
    summary["method"] = config.method.to_dict()  # an operating point changes it
    summary["changes"] = experiment.changes
    file = workdir / "eval.json"
    if operating_point is not None:
        summary["operating_point"] = normal_name(operating_point)
        file = workdir / f"eval_{summary['operating_point']}.json"
    summary["summary"] = str(file)
    if jax.process_index() == 0:
        write_json_atomic(file, summary)
        print(table(report.summary_rows(summary), "Evaluation"))
        print(columns(*report.class_columns(summary, experiment.eval_source.class_names)))
    return summary
