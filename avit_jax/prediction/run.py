"""`--mode predict`: what a trained model says about every image of a folder or a dataset.

One JSON line per image, in the order of the input, written as the answers come. A run that was
killed goes on behind its last whole line, and its file ends as that of a run that was never
disturbed. Of several processes each takes a contiguous part of the input to its own devices and its
own file; these files one behind the other are what one process would have written, and no process
needs to see another's disk.
"""

from __future__ import annotations

import functools
import glob
import logging
import os
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from avit_jax.checkpoints.workdir import as_rows
from avit_jax.data.example import Source
from avit_jax.data.image_files import FileSource
from avit_jax.errors import UserError
from avit_jax.experiment import Experiment
from avit_jax.methods.base import Model
from avit_jax.methods.per_image import num_layers
from avit_jax.models.functional import Params
from avit_jax.prediction import answer_lines, streamed
from avit_jax.prediction.answer_lines import Totals
from avit_jax.prediction.answers import Answerer, local_batch_size, no_answers
from avit_jax.prediction.rounds import write_rounds
from avit_jax.runtime.device_mesh import make_mesh
from avit_jax.runtime.files import is_local
from avit_jax.runtime.json_lines import JsonLines, identity_path
from avit_jax.runtime.processes import in_all_or_none, share
from avit_jax.runtime.stores import as_path
from avit_jax.runtime.tables import table

logger = logging.getLogger(__name__)


def predict_run(
    config: ConfigDict,
    workdir: Path,
    *,
    source: str | None = None,
    output: Path | None = None,
    stream: bool = False,
    stop: Callable[[int], bool] = lambda step: False,
) -> Path:
    """Write the answers of `Experiment.weights`, or go on where a call was stopped.

    Args:
        config: of the run; `config.inference.batch_size` images go through the model together,
            over all processes, rounded up to whole devices.
        workdir: of the run.
        source: an image file, or a folder, which is walked to the bottom; `None` takes
            `config.data.eval_split`.
        output: file of JSON lines; `None` takes `workdir/predictions.jsonl`. Several
            processes write `NAME.part-00000-of-00008` and so on.
        stream: keep programs full across batches (`model.stream`), for images that leave early.
        stop: asked after every round of batches, in all processes in the same round, whether the
            machines are about to be taken away.

    Returns:
        The file that this process has written.

    Raises:
        UserError: nothing to predict with or from, or an output that holds other work.
        Preempted: `stop` said so; every line so far is safe.
    """
    experiment = Experiment(config, workdir)
    model, execution, plan = experiment.model, experiment.execution, experiment.plan
    if stream:
        streamed.refuse_inexact(execution)
    target = output or workdir / "predictions.jsonl"
    images, path = in_all_or_none(
        lambda: (open_input(experiment, source), output_path(target, source=source))
    )
    part = share(len(images))
    size = local_batch_size(experiment.settings.inference.batch_size, len(part))
    params, step = _local_weights(experiment)
    identity = answer_lines.identity(
        config,
        images,
        params,
        part=part,
        step=step,
        execution=execution,
        plan=plan,
    )
    if stream:
        identity["execution"] = streamed.NAME
    totals = Totals()

    def check(number: int, line: answer_lines.Line) -> None:
        nonlocal totals
        if number >= len(part):
            raise UserError(
                f"{path} has more lines than the {len(part)} images it is about, so it has been "
                "changed since: write another --output, or remove it."
            )
        answer_lines.expect_image(images, part.start + number, line)
        totals = totals.add(line)

    with in_all_or_none(lambda: JsonLines(path, identity=identity, check=check)) as lines:
        if lines.count:
            logger.info("going on behind line %d of %d in %s", lines.count, len(part), path)
        results = no_answers()
        if lines.count < len(part):
            kind = (
                streamed.StreamedAnswerer
                if stream
                else functools.partial(Answerer, execution=execution)
            )
            augment = experiment.settings.data.augment
            answerer = kind(model, params, batch_size=size, plan=plan, augment=augment)
            # A float may depend on what else is in the batch and on the sizes of the program: whole
            # batches again, and sizes that suit the very first.
            first = part.start + lines.count // size * size
            if first > part.start and not answerer.has_sizes:
                answerer.measure(images, range(part.start, first))
            results = answerer.answers(images, range(first, part.stop))
        totals, rate = write_rounds(
            results, lines, totals, source=images, part=part, batch_size=size, stop=stop
        )
    if jax.process_index() == 0:
        rows = as_rows(experiment.changes) + summary_rows(totals, model, rate, path)
        print(table(rows, "Predictions"), flush=True)
    return path


def open_input(experiment: Experiment, source: str | None) -> Source:
    """The images of a file or folder, or of the evaluation split.

    Raises:
        UserError: they are not there.
    """
    if source is None:
        return experiment.eval_source
    names, _ = experiment.class_names
    return FileSource(source, class_names=names)


def output_path(target: Path, *, source: str | None) -> Path:
    """The file that this process writes.

    Raises:
        UserError: `target` lies within the input, or another number of processes has begun it.
    """
    folder = _resolved(as_path(source)) if source is not None else None
    if folder is not None and folder.is_dir() and _resolved(target).is_relative_to(folder):
        raise UserError(
            f"--output {os.fspath(target)!r} lies inside of --input and would be taken for an "
            "image: write a path outside of that folder."
        )
    count = jax.process_count()
    ending = f"-of-{count:05}"
    begun = [
        file.name
        for file in target.parent.glob(f"{glob.escape(target.name)}.part-*-of-?????")
        if count == 1 or not file.name.endswith(ending)
    ]
    if count > 1 and identity_path(target).exists():
        begun.append(target.name)
    if begun:
        raise UserError(
            f"{min(begun)} in {os.fspath(target.parent)!r} was begun by another number of "
            f"processes than {count}: start as many again, write another --output, or remove it "
            "together with its .meta.json."
        )
    if count == 1:
        return target
    return target.with_name(f"{target.name}.part-{jax.process_index():05}{ending}")


def _resolved(path: Path) -> Path:
    """Without links, of which an object store has none."""
    return path.resolve() if is_local(path) else path


def summary_rows(
    totals: Totals, model: Model, rate: float | None, path: Path
) -> list[tuple[str, str]]:
    """What the run comes to, for `table`."""
    rows = [
        ("images", f"{totals.lines:,}"),
        ("bad files", f"{totals.bad:,}"),
        ("images/s", "-" if rate is None else f"{rate:,.1f}"),
    ]
    if totals.bad < totals.lines:
        depth, gmacs = totals.mean(totals.depth), totals.mean(totals.gmacs)
        rows += [
            ("mean token depth", f"{depth:.2f} of {num_layers(model)} layers"),
            ("GMACs per image, used of dense", f"{gmacs:.4g} of {model.dense_gmacs():.4g}"),
        ]
    if totals.labelled:
        share_correct = totals.correct / totals.labelled
        rows.append(("top-1", f"{share_correct:.2%} of {totals.labelled:,} labelled"))
    if totals.affected:
        rows.append(("images that lost tokens", f"{totals.affected:,}"))
    count = jax.process_count()
    if count > 1:
        name = path.name.replace("part-00000", "part-?????")
        return [*rows, (f"written by {count} processes; join with cat", str(path.with_name(name)))]
    return [*rows, ("written to", str(path))]


def _local_weights(experiment: Experiment) -> tuple[Params, int | None]:
    """The weights in this process's memory, whatever the others do with theirs, and their step."""
    chosen = experiment.weights(make_mesh())  # on which every device holds them whole
    params = jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), chosen.params)
    return params, chosen.step
