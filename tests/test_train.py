"""What the loop does when something goes wrong, in one process on a tiny experiment."""

import importlib.util
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax import optim, train
from avit_jax.checkpoint import Checkpoints
from avit_jax.errors import UserError
from tests import commands

BAD_STEP = 5


def tiny_config(**settings):
    path = Path(commands.ROOT) / "configs" / "avit_digits.py"
    spec = importlib.util.spec_from_file_location("avit_digits", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config("debug")
    chosen = {
        **commands.TINY,
        "train.steps": 10,
        "train.batch_size": 16,
        "eval.batch_size": 512,
        "checkpoint.every": 0.05,  # epochs: 4 steps
        "checkpoint.keep": 10,
        "log.every": 3,
    }
    config.update_from_flattened_dict(chosen | settings)
    return config


@pytest.fixture
def poisoned(monkeypatch):
    """A training whose update is NaN in one step."""
    schedule = optim.learning_rate

    def learning_rate(*args, **kwargs):
        rate = schedule(*args, **kwargs)
        return lambda step: jnp.where(step == BAD_STEP, jnp.nan, rate(step))

    monkeypatch.setattr(optim, "learning_rate", learning_rate)


def test_a_step_that_is_not_finite_stops_the_run_and_is_named(tmp_path, poisoned):
    with pytest.raises(UserError, match=f"step {BAD_STEP + 1} is not finite"):
        train.train(tiny_config(), tmp_path)
    assert Checkpoints(tmp_path / "checkpoints").steps() == [4]
    assert max(line["step"] for line in commands.metrics(tmp_path)) <= BAD_STEP
    assert not (tmp_path / "summary.json").exists()


def test_rollback_leaves_the_step_out_and_finishes(tmp_path, poisoned):
    config = tiny_config(**{"train.on_nonfinite": "rollback"})
    summary = train.train(config, tmp_path)
    assert summary["steps"] == 10
    assert json.loads((tmp_path / "skipped_steps.json").read_text()) == [BAD_STEP]
    steps = [line["step"] for line in commands.metrics(tmp_path) if line["kind"] == "train"]
    assert steps == [3, 6, 9, 10]
    assert all(np.isfinite(line["loss"]) for line in commands.metrics(tmp_path) if "loss" in line)
    assert Checkpoints(tmp_path / "checkpoints").steps() == [4, 8, 10]


def test_rollbacks_come_to_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(optim, "learning_rate", lambda *_, **__: lambda step: jnp.float32(jnp.nan))
    config = tiny_config(**{"train.on_nonfinite": "rollback", "train.max_rollbacks": 1})
    with pytest.raises(UserError, match="after 1 rollbacks"):
        train.train(config, tmp_path)
    assert Checkpoints(tmp_path / "checkpoints").steps() == []


def test_a_run_can_start_from_the_weights_of_another(tmp_path):
    first = train.train(tiny_config(), tmp_path / "first")
    settings = {"init.workdir": str(tmp_path / "first"), "optim.learning_rate": 1e-12}
    second = train.train(tiny_config(**settings), tmp_path / "second")
    assert second["cross_entropy"] == pytest.approx(first["cross_entropy"], abs=1e-4)
    with pytest.raises(UserError, match="other sizes"):
        train.train(tiny_config(**settings, **{"model.embed_dim": 32}), tmp_path / "third")


def test_a_finished_run_is_only_evaluated_again(tmp_path):
    config = tiny_config()
    first = train.train(config, tmp_path)
    lines = commands.metrics(tmp_path)
    again = train.train(config, tmp_path)
    assert commands.metrics(tmp_path) == lines
    for name in ("top1", "cross_entropy", "gmacs", "steps"):
        assert again[name] == first[name]
