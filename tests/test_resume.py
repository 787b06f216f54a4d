"""An interrupted run ends exactly as one that was never interrupted."""

import signal
import time

import jax
import numpy as np
import pytest

from avit_jax import config as configs
from avit_jax.checkpoints.store import Checkpoints
from avit_jax.runtime.device_mesh import make_mesh
from avit_jax.training.optimization import Optimization
from tests import commands

STEPS = 24
SETTINGS = {"train__steps": STEPS, "checkpoint__every": 0.05, "eval__every": 0.1, "log__every": 3}


def final_state(workdir):
    config = configs.from_json((workdir / "config.json").read_text())
    optimization = Optimization(configs.Settings.of(config), configs.make_model(config), STEPS)
    abstract = optimization.abstract_state(make_mesh(devices=jax.devices()[:1]))
    step, state = Checkpoints(workdir / "checkpoints").restore(abstract)
    assert step == STEPS
    return state


def wait_for_step(workdir, step, process):
    deadline = time.monotonic() + 120
    while not any(line["step"] >= step for line in commands.metrics(workdir)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the run did not get there"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "uninterrupted"
    status, _, err = commands.run(commands.command(workdir, **SETTINGS))
    assert status == 0, err
    return final_state(workdir), commands.metrics(workdir)


def assert_ends_like(workdir, uninterrupted):
    state, lines = uninterrupted
    jax.tree.map(np.testing.assert_array_equal, final_state(workdir), state)
    assert commands.metrics(workdir) == lines


def interrupt(workdir, *, at_step, with_signal):
    arguments = commands.command(workdir, **SETTINGS)
    process = commands.start(arguments)
    wait_for_step(workdir, at_step, process)
    process.send_signal(with_signal)
    _, err = process.communicate(timeout=60)
    return arguments, process.returncode, err


@pytest.mark.fault
def test_kill_and_restart_is_bit_identical(tmp_path, uninterrupted):
    arguments, status, _ = interrupt(tmp_path, at_step=12, with_signal=signal.SIGKILL)
    assert status == -signal.SIGKILL
    status, _, err = commands.run(arguments)
    assert status == 0, err
    assert "going on from step" in err
    assert_ends_like(tmp_path, uninterrupted)


@pytest.mark.fault
def test_sigterm_saves_first_and_asks_to_be_restarted(tmp_path, uninterrupted):
    arguments, status, err = interrupt(tmp_path, at_step=9, with_signal=signal.SIGTERM)
    assert status == 75, err
    assert "start the same command again" in err
    assert Checkpoints(tmp_path / "checkpoints").steps()[-1] >= 9
    status, _, err = commands.run(arguments)
    assert status == 0, err
    assert_ends_like(tmp_path, uninterrupted)


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize("seed", range(6))
def test_kills_at_any_moment_are_bit_identical(tmp_path, uninterrupted, seed):
    """Three kills at random times, start-up and checkpointing included."""
    rng = np.random.default_rng(seed)
    arguments = commands.command(tmp_path, **SETTINGS)
    for _ in range(3):
        process = commands.start(arguments)
        time.sleep(rng.uniform(2.0, 25.0))
        process.kill()
        process.communicate()
    status, _, err = commands.run(arguments)
    assert status == 0, err
    assert_ends_like(tmp_path, uninterrupted)
