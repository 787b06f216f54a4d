"""Predictions of other processes: killed in the midst, or two that share the images."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from avit_jax.prediction.run import predict_run
from tests import compiling
from tests.prediction.lines import IMAGES, assert_like, inference, read

pytestmark = pytest.mark.usefixtures("compiled_once")

ROOT = Path(__file__).parents[2]
# Compact execution takes six times as long to compile, and nothing here depends on which it is.
EXECUTION = "masked"
# With pauses, or the kill would have to come within a fraction of a second.
PROGRAM = """
import sys, time
from pathlib import Path
from avit_jax import config
from avit_jax.main import initialise_processes
from avit_jax.prediction.run import predict_run
initialise_processes()
workdir, output, batch_size, execution, pause = sys.argv[1:]
settings = config.from_json((Path(workdir) / "config.json").read_text())
settings.inference.update({"batch_size": int(batch_size), "execution": execution})
predict_run(
    settings, Path(workdir), output=Path(output), stop=lambda step: time.sleep(float(pause))
)
"""


def start(workdir, output, *, batch_size=2, pause=0.01, **environment):
    flags = {"XLA_FLAGS": compiling.flags_for(1), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, (workdir, output, batch_size, EXECUTION, pause))],
        cwd=ROOT,
        env=os.environ | flags | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def assert_same_images(path, whole):
    """Every image once, in order, with the same answer; batches of another size round otherwise."""
    for line, expected in zip(read(path), read(whole), strict=True):
        assert_like(line, expected)


@pytest.mark.fault
def test_killed_in_the_midst_every_image_has_one_line_in_the_end(run, whole, tmp_path):
    path = tmp_path / "lines.jsonl"
    process = start(run[1], path)
    deadline = time.monotonic() + 120
    while not path.exists() or path.stat().st_size < 10_000:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the run did not get there"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = path.read_bytes()
    assert before.count(b"\n") < IMAGES
    predict_run(inference(run.config, execution=EXECUTION), run.workdir, output=path)
    assert path.read_bytes().startswith(before[: before.rindex(b"\n") + 1])
    assert_same_images(path, whole)


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize("seed", range(4))
def test_kills_at_any_moment_leave_no_gap_and_no_double(run, whole, tmp_path, seed):
    """Five kills at random times, start-up included."""
    generator = np.random.default_rng(seed)
    path = tmp_path / "lines.jsonl"
    for _ in range(5):
        process = start(run[1], path)
        time.sleep(generator.uniform(1.0, 8.0))
        process.kill()
        process.communicate()
    finish(start(run[1], path))
    assert_same_images(path, whole)


def test_the_files_of_two_processes_one_behind_the_other_are_that_of_one(run, whole, tmp_path):
    path = tmp_path / "lines.jsonl"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    coordinates = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    processes = [
        start(run[1], path, batch_size=64, pause=0, JAX_PROCESS_ID=str(number), **coordinates)
        for number in range(2)
    ]
    tables = [finish(process) for process in processes]
    assert "Predictions" in tables[0]
    assert "Predictions" not in tables[1], "only process 0 prints"
    parts = sorted(tmp_path.glob("lines.jsonl.part-?????-of-00002"))
    assert [len(read(part)) for part in parts] == [255, 255]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert_same_images(path, whole)
