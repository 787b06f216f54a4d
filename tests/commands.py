"""Starts the command line as a user would, on a tiny experiment, for the end-to-end tests."""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests import compiling

ROOT = Path(__file__).parent.parent
# Everything random is on: augmentation, mixup, cutmix, dropout, stochastic depth.
TINY = {
    "model.depth": 2,
    "model.embed_dim": 16,
    "model.num_heads": 2,
    "model.patch_size": 16,
    "model.dropout_rate": 0.1,
    "model.drop_path_rate": 0.1,
    "data.mix.mixup": 0.8,
    "data.mix.cutmix": 1.0,
    "train.ema_decay": 0.9,
    "log.tensorboard": False,
}


def command(workdir: Path, *, mode: str = "train", **settings: object) -> list[str]:
    """The command line of the debug variant of the digits, with settings (`train__steps=24`)."""
    chosen = TINY | {name.replace("__", "."): value for name, value in settings.items()}
    flags = [f"--config.{name}={value}" for name, value in chosen.items()]
    config = ROOT / "configs" / "avit_digits.py"
    arguments = ["--config", f"{config}:debug", "--workdir", str(workdir), "--mode", mode]
    return [sys.executable, "-m", "avit_jax.main", *arguments, *flags]


def start(arguments: list[str], *, devices: int = 1, **environment: str) -> subprocess.Popen:
    """Start a command on so many simulated devices."""
    flags = compiling.flags_for(devices)
    return subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(arguments: list[str], *, devices: int = 1) -> tuple[int, str, str]:
    """Run a command to its end: exit status, standard output, standard error.

    It gets a process of its own, but none that imports the program again, which takes longer than
    most of what tests ask of it: it is forked from one that has done so and nothing else.
    """
    return _forked(None, arguments[3:], devices)


def run_script(script: Path, *arguments: str) -> tuple[int, str, str]:
    """What `python script arguments` does, in a process as that of `run`."""
    return _forked(script, list(arguments), devices=1)


def begin(
    arguments: list[str],
    folder: Path,
    *,
    devices: int = 1,
    script: Path | None = None,
    prepare: Callable[[], object] | None = None,
) -> multiprocessing.Process:
    """A process as that of `run`, which has just been started.

    Args:
        arguments: of the command line, behind the program.
        folder: for what it prints, `out` and `err`.
        devices: that it has.
        script: instead of the program.
        prepare: called there before anything else; a function of a module, perhaps with arguments.
    """
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["avit_jax.main", "avit_jax.training.loop"])
    environment = os.environ | {"XLA_FLAGS": compiling.flags_for(devices)}
    written = folder / "out", folder / "err"
    process = processes.Process(
        target=_main, args=(script, arguments, environment, *written, prepare)
    )
    process.start()
    return process


def _forked(script: Path | None, arguments: list[str], devices: int) -> tuple[int, str, str]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = begin(arguments, folder, devices=devices, script=script)
        process.join(timeout=300)
        if process.exitcode is None:
            process.kill()
            process.join()
        return process.exitcode, *((folder / file).read_text() for file in ("out", "err"))


def _main(
    script: Path | None,
    arguments: list[str],
    environment: dict[str, str],
    out: Path,
    err: Path,
    prepare: Callable[[], object] | None,
) -> None:
    """What `python -m avit_jax.main` or a script does, in a process that has just been forked."""
    for file, descriptor in ((out, 1), (err, 2)):
        with file.open("wb") as opened:
            os.dup2(opened.fileno(), descriptor)
    import jax

    from avit_jax import main

    os.environ.update(environment)
    jax.config.update("jax_platforms", "cpu")  # was read when JAX was imported
    os.chdir(ROOT)
    if prepare is not None:
        prepare()
    sys.argv[:] = [str(script or main.__file__), *arguments]
    if script is None:
        main.run()
    else:
        sys.path.insert(0, str(script.parent))
        runpy.run_path(str(script), run_name="__main__")


def metrics(workdir: Path) -> list[dict]:
    """The lines of a run's log; a half-written last line is left out."""
    file = workdir / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]
