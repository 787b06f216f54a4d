"""A study by its command, each cell in a process of its own."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import ROOT, TINY

FILE = f"""
from avit_jax.study import Study


def get_study(arg=None):
    return Study(
        config="avit_digits:debug",
        settings={TINY | {"train.steps": 400, "checkpoint.every": 0.25}!r},
        axes={{"method.prior": ("gaussian", "laplace")}},
        budgets=(0.6,),
    )
"""
NAMES = ["prior=gaussian,seed=0", "prior=laplace,seed=0"]


def start(folder: Path) -> subprocess.Popen:
    (folder / "own.py").write_text(FILE)
    arguments = ["--config", str(folder / "own.py"), "--workdir", str(folder / "out")]
    return subprocess.Popen(
        [sys.executable, "-m", "avit_jax.study", *arguments],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def saved(cell: Path) -> bool:
    return any((cell / "checkpoints").glob("*/manifest.json"))


def wait_for(condition, process: subprocess.Popen) -> None:
    while not condition():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.fault
def test_a_killed_cell_is_named_the_others_go_on_and_the_next_start_resumes_it(tmp_path):
    process = start(tmp_path)
    first, second = (tmp_path / "out" / "cells" / name for name in NAMES)
    wait_for(lambda: saved(first), process)
    os.kill(int(re.search(r"process (\d+)", (first / ".lock").read_text())[1]), signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    assert f"FAILED, status -9: {NAMES[0]}" in out and f"failed: {NAMES[0]};" in err
    assert (second / "cell.json").exists() and not (first / "cell.json").exists()

    owner = (first / ".lock").read_text()  # what a killed process leaves behind
    process = start(tmp_path)
    wait_for(lambda: (first / ".lock").read_text() not in (owner, ""), process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 75 and "start the same command again" in err

    process = start(tmp_path)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "1 of 2 cells finished" in out
    assert "All 2 cells finished." in (tmp_path / "out" / "table.md").read_text()
    steps = [line.split('"step": ')[1].split(",")[0] for line in open(first / "metrics.jsonl")]
    assert len(steps) == len(set(steps)) + 1  # each once, and the last also evaluated
