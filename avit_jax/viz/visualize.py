"""`--mode visualize`: what a trained run does with images, as one page, figures and animations."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.checkpoints.weights import chosen_weights
from avit_jax.data import image_selection
from avit_jax.data.augment import Augment
from avit_jax.errors import UserError
from avit_jax.runtime.device_mesh import make_mesh
from avit_jax.runtime.replaced_folder import replaced_folder
from avit_jax.runtime.tables import table
from avit_jax.viz import difficulty
from avit_jax.viz.look import look
from avit_jax.viz.report_folder import write_report

logger = logging.getLogger(__name__)

LIMIT = 48


def visualize_run(
    config: ConfigDict,
    workdir: Path,
    *,
    source: str | Sequence[str] | None = None,
    output: Path | None = None,
    limit: int = LIMIT,
) -> Path:
    """Draw what the model does with images, with the weights of `restore.chosen_weights`.

    Args:
        config: of the run.
        workdir: of the run.
        source: an image file, a folder of images or of class folders, or several of these; `None`
          takes `config.data.eval_split`.
        output: folder of the report; `None` takes `workdir/visualize`. An older report is replaced.
        limit: images that are looked at and drawn, evenly spaced over all there are.

    Returns:
        The path of `index.html`.

    Raises:
        UserError: there is nothing to draw, nothing to draw it with, or no place to put it.
    """
    if jax.process_count() > 1:
        raise UserError(
            f"a report is drawn by one process, but {jax.process_count()} were started: start "
            "--mode visualize without the launcher of several."
        )
    if limit < 1:
        raise UserError(f"the limit is {limit} images: write how many to draw, at least 1.")
    configs.validate(config)
    target = output or workdir / "visualize"
    selection, notes = _select(config, source, limit)
    model, mesh = configs.make_model(config), make_mesh(**config.mesh)
    augment = Augment.from_config(config.data.augment)
    chosen = chosen_weights(config, workdir, model, mesh)
    params = chosen.params
    with replaced_folder(target) as folder:
        summary = write_report(
            look(model, params, selection, mesh, augment=augment, batch=config.eval.batch_size),
            folder,
            model=config.model.name,
            grid=model.shape.grid,
            gmacs_dense=model.dense_gmacs(),
            step=chosen.step,
            class_names=selection.class_names,
            data=selection.title,
            total=len(selection.source),
            notes=notes,
        )
    page = target / "index.html"
    print(table(_table_rows(summary, page), "Report"), flush=True)
    return page


def _select(
    config: ConfigDict, source: str | Sequence[str] | None, limit: int
) -> tuple[image_selection.Selection, list[str]]:
    """The images, and what the reader has to know about them."""
    if source is None or source == []:
        return image_selection.evaluation_split(config, limit), []
    paths = [source] if isinstance(source, str) else list(source)
    names, problem = image_selection.class_names(config)
    selection = image_selection.given_files(paths, limit, class_names=names)
    if problem is None:
        return selection, []
    # The reason names places of this machine, which are nobody's business where the page goes.
    logger.warning("classes are shown by number, for their names are not at hand: %s", problem)
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
