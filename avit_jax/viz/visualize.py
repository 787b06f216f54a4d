"""`--mode visualize`: what a trained run does with images, as one page, figures and animations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from avit_jax.checkpoints.workdir import as_rows
from avit_jax.data.image_selection import Selection, given_files
from avit_jax.errors import UserError
from avit_jax.experiment import Experiment
from avit_jax.methods.per_image import finest_stage
from avit_jax.runtime.processes import refuse_several_processes
from avit_jax.runtime.replaced_folder import replaced_folder
from avit_jax.runtime.tables import table
from avit_jax.viz import difficulty
from avit_jax.viz.html_report import is_report
from avit_jax.viz.look import look
from avit_jax.viz.report_folder import write_report

LIMIT = 48


def visualize_run(
    config: ConfigDict,
    workdir: Path,
    *,
    source: str | None = None,
    output: Path | None = None,
    limit: int = LIMIT,
) -> Path:
    """Draw what the model does with images, with the weights of `Experiment.weights`.

    Args:
        config: of the run.
        workdir: of the run.
        source: an image file, or a folder of images or of class folders; `None` takes
          `config.data.eval_split`.
        output: folder of the report; `None` takes `workdir/visualize`. An older report is replaced.
        limit: images that are looked at and drawn, evenly spaced over all there are.

    Returns:
        The path of `index.html`.

    Raises:
        UserError: there is nothing to draw, nothing to draw it with, or no place to put it.
    """
    refuse_several_processes("visualize")
    if limit < 1:
        raise UserError(f"the limit is {limit} images: write how many to draw, at least 1.")
    experiment = Experiment(config, workdir)
    target = output or workdir / "visualize"
    selection, notes = _select(experiment, source, limit)
    model, chosen = experiment.model, experiment.weights()
    looked = look(
        model,
        chosen.params,
        selection,
        experiment.mesh,
        augment=experiment.settings.data.augment,
        batch=experiment.settings.eval.batch_size,
    )
    with replaced_folder(target, may_replace=is_report) as folder:
        summary = write_report(
            looked,
            folder,
            model=experiment.name,
            grid=finest_stage(model).grid,
            gmacs_dense=model.dense_gmacs(),
            step=chosen.step,
            class_names=selection.class_names,
            data=selection.title,
            total=len(selection.source),
            notes=notes,
        )
    page = target / "index.html"
    rows = as_rows(experiment.changes) + _table_rows(summary, page)
    print(table(rows, "Report"), flush=True)
    return page


def _select(experiment: Experiment, source: str | None, limit: int) -> tuple[Selection, list[str]]:
    """The images, and what the reader has to know about them."""
    if source is None:
        return experiment.eval_images(limit), []
    names, are_known = experiment.class_names
    selection = given_files(source, limit, class_names=names)
    if are_known:
        return selection, []
    # The reason names places of this machine, which are nobody's business where the page goes.
    return selection, ["Classes are shown by number because their names were not at hand."]


def _table_rows(summary: dict[str, Any], page: Path) -> list[tuple[str, str]]:
    layers, dense = len(summary["depth_histogram"]), summary["gmacs_dense"]
    rows = [
        ("images drawn", f"{summary['images']:,} of {summary['data']}"),
        ("unreadable", f"{len(summary['unreadable']):,}"),
        ("mean token depth", f"{summary['mean_depth']:.2f} of {layers} layers"),
        ("GMACs per image, used of dense", f"{summary['gmacs']:.4g} of {dense:.4g}"),
    ]
    rows += [
        (f"{part} run", f"{share:.1%}")
        for part, share in summary["kept"].items()
        if part != "tokens"  # which the depth says
    ]
    rows.append(("GMACs and difficulty", difficulty.in_words(summary["difficulty"])))
    if summary["top1"] is not None:
        rows.append(("top-1", f"{summary['top1']:.2%} of {summary['labelled']:,} labelled"))
    return [*rows, ("page", str(page))]
