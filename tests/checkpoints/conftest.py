"""Checkpoints that are open or written, a run with weights, and a file of weights."""

import shutil

import jax
import pytest

from avit_jax import config as configs
from avit_jax import save_torch
from avit_jax.checkpoints.store import Checkpoints
from tests.checkpoints.states import make_state
from tests.checkpoints.weights_of_runs import AVERAGE, MODEL, OURS, THEIRS, tiny


@pytest.fixture
def checkpoints(tmp_path):
    opened = Checkpoints(tmp_path / "checkpoints")
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def two_saved(tmp_path_factory):
    """A directory with checkpoints of steps 1 and 2."""
    directory = tmp_path_factory.mktemp("two")
    opened = Checkpoints(directory)
    opened.save(1, make_state(1))
    opened.save(2, make_state(2))
    opened.close()
    return directory


@pytest.fixture
def copy_of_two(two_saved, tmp_path):
    """As `two_saved`, with files of its own: (checkpoints, directory)."""
    directory = tmp_path / "copy"
    shutil.copytree(two_saved, directory)
    opened = Checkpoints(directory)
    yield opened, directory
    opened.close()


@pytest.fixture(scope="session")
def file(tmp_path_factory):
    """The path of a weight file."""
    path = tmp_path_factory.mktemp("published") / "theirs.pth"
    save_torch(path, MODEL.to_torch(THEIRS))
    return str(path)


@pytest.fixture(scope="session")
def run(tmp_path_factory, file):
    """The workdir of a run with a moving average, which has begun with the weights of the file."""
    workdir = tmp_path_factory.mktemp("run")
    (workdir / "config.json").write_text(configs.to_json(tiny(**{"init.weights": file})))
    checkpoints = Checkpoints(workdir / "checkpoints")
    checkpoints.save(7, jax.device_put({"params": OURS, "ema": AVERAGE}))
    checkpoints.close()
    return workdir
