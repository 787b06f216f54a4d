"""What becomes of decoding processes, and of their memory, when one of them or the run dies."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from avit_jax.data.augment import Augment
from avit_jax.data.digits import DigitsSource
from avit_jax.data.pipeline import train_batches
from avit_jax.errors import UserError

ROOT = Path(__file__).parents[2]
RUN = """
import time
from avit_jax.data.augment import Augment
from avit_jax.data.digits import DigitsSource
from avit_jax.data.pipeline import train_batches
import multiprocessing

if __name__ == "__main__":
    batches = train_batches(
        DigitsSource(split="train"), batch_size=4, image_size=8, augment=Augment(), seed=0,
        workers=1,
    )
    next(batches)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(600)
"""


def shared_memory():
    return set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()


def is_gone(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def decoding():
    return [child for child in multiprocessing.active_children() if "decode" in child.name]


@pytest.mark.fault
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_batches_outlive_their_use_and_a_killed_process_ends_them_with_one_sentence():
    before = shared_memory()
    settings = dict(batch_size=4, image_size=8, augment=Augment(), seed=0)
    source = DigitsSource(split="train")
    expected = train_batches(source, **settings)
    batches = train_batches(source, **settings, workers=1)
    kept = [next(batches) for _ in range(6)]  # more than are decoded ahead
    for batch in kept:
        assert {name: array.tolist() for name, array in batch.items()} == {
            name: array.tolist() for name, array in next(expected).items()
        }
    expected.close()
    (worker,) = decoding()
    os.kill(worker.pid, signal.SIGTERM)  # a scheduler's: the run still needs batches to save
    os.kill(worker.pid, signal.SIGINT)
    for _ in range(4):
        next(batches)
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r"one of 1 decoding .* was ended by SIGKILL; .* memory"):
        for _ in range(10):
            next(batches)
    assert not decoding()
    assert shared_memory() <= before
    assert kept[0]["image"].shape == (4, 8, 8, 3) and np.any(kept[0]["image"])


@pytest.mark.fault
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_processes_end_with_a_run_that_is_killed(tmp_path):
    before = shared_memory()
    (tmp_path / "run.py").write_text(RUN)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(tmp_path / "run.py")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as run:
        workers = [int(pid) for pid in run.stdout.readline().split()]
        assert len(workers) == 1
        run.kill()
    for _ in range(1000):
        if all(is_gone(pid) for pid in workers):
            break
        time.sleep(0.1)
    else:
        pytest.fail("a decoding process lives on after 100 s")
    assert shared_memory() <= before
