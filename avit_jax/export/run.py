"""`--mode export`: a trained run as a folder or an ONNX file that works without this package."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from avit_jax.checkpoints.workdir import as_rows
from avit_jax.errors import UserError
from avit_jax.execution.dense import DENSE
from avit_jax.execution.executions import EXECUTIONS, find
from avit_jax.execution.masked import MASKED
from avit_jax.execution.plan import Plan
from avit_jax.experiment import Experiment
from avit_jax.export import load
from avit_jax.export.check import Comparison, check_images, compare
from avit_jax.export.description import describe
from avit_jax.export.program import PLATFORMS, export_program, named, plans_for
from avit_jax.methods.base import Model
from avit_jax.models.functional import Params
from avit_jax.runtime.device_mesh import make_mesh
from avit_jax.runtime.files import write_bytes_atomic, write_json_atomic
from avit_jax.runtime.processes import refuse_several_processes
from avit_jax.runtime.replaced_folder import replaced_folder
from avit_jax.runtime.stores import is_unfinished
from avit_jax.runtime.tables import table

Rows = list[tuple[str, str]]


def export_run(config: ConfigDict, workdir: Path, *, output: Path | None = None) -> Path:
    """Export the weights that other modes use, and hold what was written against the model.

    Args:
        config: of the run; `config.inference` says how the program computes.
        workdir: of the run.
        output: a new folder, or a new file that ends in `.onnx`; `None` takes `workdir/export`.

    Returns:
        The folder or file.

    Raises:
        UserError: there is nothing to export, the place is taken, or the model has no such form.
    """
    refuse_several_processes("export")
    experiment = Experiment(config, workdir)
    target = output or workdir / "export"
    if target.exists() and not is_unfinished(target):
        raise UserError(f"{target} exists already: remove it, or write another --output.")
    as_onnx = target.suffix == ".onnx"
    if as_onnx:
        _require_onnx()
    model, weights = experiment.model, experiment.weights(make_mesh(devices=jax.devices()[:1]))
    params = jax.tree.map(np.asarray, weights.params)
    images, title = check_images(experiment)
    description = describe(experiment) | {"step": weights.step}
    if as_onnx:
        rows = write_onnx(target, model, params, description, images)
    else:
        rows = write_folder(target, model, params, description, images, experiment.plan)
    rows = [("weights", weights.origin), *as_rows(experiment.changes), *rows]
    rows += [("compared on", title), ("written to", str(target))]
    print(table(rows, "Export"), flush=True)
    return target


def write_folder(
    target: Path,
    model: Model,
    params: Params,
    description: dict[str, Any],
    images: np.ndarray,
    chosen: Plan | None,
) -> Rows:
    """The folder, in full or not at all; returns lines for the terminal."""
    execution, batch_size = find(description["execution"]), description["batch_size"]
    plans = plans_for(model, batch_size, chosen)
    program = export_program(model, execution=execution, batch_size=batch_size, plans=plans)
    fixed = execution.fixed_batch
    description |= {
        "batch_size": batch_size if fixed else None,
        "platforms": PLATFORMS,
        "plans": {name: plan.to_dict() for name, plan in plans.items()} if fixed else None,
    }
    with replaced_folder(target) as folder:
        serialized = program.serialize()
        description["sha256"] = hashlib.sha256(serialized).hexdigest()
        (folder / "model.stablehlo").write_bytes(serialized)
        np.savez(folder / "weights.npz", **named(params))
        write_json_atomic(folder / "export.json", description)
        shutil.copyfile(load.__file__, folder / Path(load.__file__).name)
        plan = plans["cpu" if jax.default_backend() == "cpu" else "gpu"]
        found = load.load(folder)(images)
        comparison = compare(model, params, images, found, execution=execution, plan=plan)
        sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    batch = f"{batch_size} images, fewer are filled up" if fixed else "any number of images"
    return [
        ("execution, batch", f"{execution.name}, {batch}"),
        ("platforms", ", ".join(PLATFORMS)),
        *_size_rows(sizes),
        *_comparison_rows(comparison),
    ]


def write_onnx(
    target: Path, model: Model, params: Params, description: dict[str, Any], images: np.ndarray
) -> Rows:
    """The file; returns lines for the terminal."""
    import onnxruntime

    from avit_jax.export import onnx_graph

    wanted = find(description["execution"])
    if not wanted.exact and wanted is not DENSE:
        known = " or ".join(name for name, one in EXECUTIONS.items() if one.exact or one is DENSE)
        raise UserError(
            f"an ONNX graph has no execution {wanted.name!r}: write --config.inference.execution "
            f"{known}."
        )
    execution = MASKED if wanted.exact else DENSE  # exact answers are those of masked execution
    description |= {"execution": execution.name, "batch_size": None}
    graph = onnx_graph.build(model, params, dense=execution is DENSE, description=description)
    data = graph.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]
    found = dict(zip(outputs, session.run(outputs, {"images": images}), strict=True))
    comparison = compare(model, params, images, found, execution=execution)
    write_bytes_atomic(target, data)
    same = execution is wanted
    note = "" if same else f" (every token computed; the answers are {wanted.name}'s)"
    return [
        ("execution, batch", f"{execution.name}{note}, any number of images"),
        ("opset", str(onnx_graph.OPSET)),
        *_size_rows({target.name: len(data)}),
        *_comparison_rows(comparison),
    ]


def _require_onnx() -> None:
    missing = [name for name in ("onnx", "onnxruntime") if not importlib.util.find_spec(name)]
    if missing:
        raise UserError(
            f"an ONNX file needs {' and '.join(missing)}: install the extra with "
            "pip install -e '.[onnx]', or leave out the .onnx of --output for a StableHLO export."
        )


def _size_rows(sizes: dict[str, int]) -> Rows:
    return [(name, f"{size / 1e6:,.3f} MB") for name, size in sizes.items()]


def _comparison_rows(comparison: Comparison) -> Rows:
    return [
        ("largest difference to the model's logits", f"{comparison.logits:.1e}"),
        ("tokens with another depth", f"{comparison.depths:,} of {comparison.tokens:,}"),
    ]
