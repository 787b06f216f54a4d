"""Exported programs against the same model in process: size, start-up, throughput, answers.

    pip install -e '.[onnx]' && python benchmarks/export.py --model avit_tiny_patch16_224

Weights are random but for the channel that halts, images are painted to halt at the share of the
GMACs that --profile names. `model.compile`, the loader of the exported folder (uint8 in, NumPy out)
and onnxruntime take turns in one process; ratios are paired
(`avit_jax/runtime/paired_timing.py`).
Start-up is a fresh Python that runs `load.py` up to the first answers, with an empty compilation
cache and then with the one that it left.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import onnxruntime
from jax import export

from avit_jax import config as configs
from avit_jax.benchmark import profiles
from avit_jax.data.mix import normalise
from avit_jax.execution.executions import find
from avit_jax.experiment import Experiment
from avit_jax.export import load
from avit_jax.export.description import describe
from avit_jax.export.program import PLATFORMS, export_program, plans_for
from avit_jax.export.run import write_folder, write_onnx
from avit_jax.runtime.environment import environment, start_again_prepared
from avit_jax.runtime.paired_timing import race, speedup
from avit_jax.runtime.tables import columns, table


def start_up(folder: Path, images: Path, cache: Path) -> float:
    """Seconds of a fresh Python from its start to its end, all images answered."""
    settings = {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, str(folder / "load.py"), str(images)],
        env=os.environ | settings,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - began


def baked_in(program: export.Exported, weights: dict, images: np.ndarray) -> list[tuple]:
    """Size and compilation with the weights beside the program, and as its constants."""
    arguments = (images, np.ones(len(images), bool))

    def closed(images: jax.Array, exists: jax.Array) -> dict[str, jax.Array]:
        return program.call(weights, images, exists)

    rows = []
    for name, found, given in (
        ("weights beside", program, (weights, *arguments)),
        (
            "weights baked in",
            export.export(jax.jit(closed), platforms=PLATFORMS)(*arguments),
            arguments,
        ),
    ):
        data = found.serialize()
        began = time.perf_counter()
        jax.jit(export.deserialize(data).call).lower(*given).compile()
        rows.append((name, f"{len(data) / 1e6:.2f}", f"{time.perf_counter() - began:.1f}"))
    return rows


def measure(options: argparse.Namespace, execution: str, folder: Path) -> None:
    """Exports one execution of the model, measures it and prints the tables."""
    config = configs.base(model=options.model)
    config.inference.update(batch_size=options.batch_size, execution=execution)
    experiment = Experiment(config, folder)
    model = experiment.model
    params, images = profiles.as_pixels(
        model, *profiles.script(model, options.profile, options.batch_size)
    )
    target = folder / execution
    description = describe(experiment)
    rows = write_folder(target, model, params, dict(description), images, None)
    print(table(rows, f"{options.model}, {execution}"))

    np.save(folder / "images.npy", images)
    first, second = (
        [
            start_up(target, folder / "images.npy", folder / f"{execution}{turn}")
            for turn in range(3)
        ]
        for _ in range(2)
    )
    print(
        f"start-up, cold: {statistics.median(first):.1f} s, warm: {statistics.median(second):.1f} s"
    )

    answer = load.load(target)
    found = answer(images)
    predictor = model.compile(params, batch_size=options.batch_size, execution=execution)
    arguments = predictor.put(np.asarray(normalise(images)))
    contenders = {
        "model.compile": lambda: predictor.run(*arguments).logits,
        "exported": lambda: answer(images),
    }
    if execution == "masked":
        file = folder / "model.onnx"
        print(table(write_onnx(file, model, params, dict(description), images), "ONNX"))
        choices = onnxruntime.SessionOptions()
        # Its threads would else keep the cores busy in the others' turns.
        choices.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(file, choices, providers=["CPUExecutionProvider"])
        contenders["onnxruntime"] = lambda: session.run(None, {"images": images})
        program = export_program(
            model,
            execution=find(execution),
            batch_size=options.batch_size,
            plans=plans_for(model, options.batch_size, None),
        )
        weights = dict(np.load(target / "weights.npz"))
        print(columns(("weights", "MB", "compile s"), baked_in(program, weights, images)))
    timings = race(contenders, turns=options.turns)
    difference = np.abs(found["logits"] - np.asarray(contenders["model.compile"]())).max()
    print(
        f"{found['gmacs'].mean():.3g} of {model.dense_gmacs():.3g} GMACs; largest difference to "
        f"model.compile {difference:.1e}"
    )
    lines = []
    for name, timing in timings.items():
        wall = speedup(timings["model.compile"], timing)
        cpu = np.asarray(timings["model.compile"].cpu) / np.asarray(timing.cpu)
        lines.append(
            (
                name,
                f"{options.batch_size / timing.median():.1f}",
                f"{wall.median:.2f} ({wall.low:.2f}-{wall.high:.2f})",
                f"{np.median(cpu):.2f}",
            )
        )
    head = f"{execution}, batch {options.batch_size}"
    print(columns((head, "images/s", "paired ratio, wall", "CPU time"), lines), flush=True)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="avit_tiny_patch16_224")
    parser.add_argument("--executions", default="masked,compact", help="separated by commas")
    parser.add_argument("--profile", default="paper", help="paper, half or none")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--turns", type=int, default=9)
    options = parser.parse_args()
    start_again_prepared([sys.executable, *sys.argv])
    print(environment(("jax", "onnxruntime")))
    with tempfile.TemporaryDirectory() as folder:
        for execution in options.executions.split(","):
            measure(options, execution, Path(folder))


if __name__ == "__main__":
    main()
