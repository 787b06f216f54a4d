"""What the loop does when something goes wrong, in one process on a tiny experiment."""

import contextlib
import importlib.util
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax import config as configs
from avit_jax import experiment
from avit_jax.checkpoints import description
from avit_jax.checkpoints.store import Checkpoints
from avit_jax.data import sources
from avit_jax.errors import Preempted, UserError
from avit_jax.experiment import Experiment
from avit_jax.training import loop as train
from avit_jax.training import optimizers
from avit_jax.viz import depth_maps
from tests import commands

BAD_STEP = 5


@pytest.fixture(autouse=True)
def small_picture(monkeypatch):
    """At the end of a run, with one image: drawing twenty takes longer than all of its steps."""
    monkeypatch.setattr(depth_maps, "SHOWN", 1)


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
        "log.every": 1,
    }
    config.update_from_flattened_dict(chosen | settings)
    return config


@pytest.fixture
def poisoned(monkeypatch):
    """A training whose update is NaN in one step."""
    schedule = optimizers.learning_rate

    def learning_rate(*args, **kwargs):
        rate = schedule(*args, **kwargs)
        return lambda step: jnp.where(step == BAD_STEP, jnp.nan, rate(step))

    monkeypatch.setattr(optimizers, "learning_rate", learning_rate)


def test_a_step_that_is_not_finite_stops_the_run_which_rollback_then_finishes(tmp_path, poisoned):
    with pytest.raises(UserError, match=f"step {BAD_STEP + 1} is not finite") as stopped:
        train.train(tiny_config(), tmp_path)
    for word in ("of step 4 is sound", "on_nonfinite rollback", "learning_rate", "other --workdir"):
        assert word in str(stopped.value)
    assert Checkpoints(tmp_path / "checkpoints").steps() == [4]
    assert max(line["step"] for line in commands.metrics(tmp_path)) <= BAD_STEP
    assert not (tmp_path / "summary.json").exists()
    with pytest.raises(UserError, match="started with another config"):
        train.train(tiny_config(**{"data.augment.crop_ratio": 0.5}), tmp_path)

    changes = {"train.on_nonfinite": "rollback", "benchmark.turns": 3, "data.max_bad_share": 0.5}
    summary = train.train(tiny_config(**changes), tmp_path)
    assert summary["steps"] == 10
    assert json.loads((tmp_path / "skipped_steps.json").read_text()) == [BAD_STEP]
    steps = [line["step"] for line in commands.metrics(tmp_path) if line["kind"] == "train"]
    assert steps == [1, 2, 3, 4, 5, 7, 8, 9, 10]  # of a step that was left out there is no line
    assert all(np.isfinite(line["loss"]) for line in commands.metrics(tmp_path) if "loss" in line)
    assert Checkpoints(tmp_path / "checkpoints").steps() == [4, 8, 10]


@pytest.mark.slow
def test_rollbacks_come_to_an_end_and_where_nothing_is_saved_any_config_may_follow(
    tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(
            optimizers, "learning_rate", lambda *_, **__: lambda step: jnp.float32(jnp.nan)
        )
        config = tiny_config(**{"train.on_nonfinite": "rollback", "train.max_rollbacks": 1})
        # Of an earlier try under the same settings, on other data.
        (tmp_path / "config.json").write_text(configs.to_json(config))
        (tmp_path / "description.json").write_text(
            json.dumps({"format": 1, "labels": list("abcdefghij")})
        )
        with pytest.raises(UserError, match=r"after 1 rollbacks.*nothing is saved yet") as ended:
            train.train(config, tmp_path)
    assert description.kept_class_names(tmp_path) == tuple("0123456789")
    assert "--workdir" not in str(ended.value)
    assert Checkpoints(tmp_path / "checkpoints").steps() == []
    with pytest.raises(Preempted):
        config = tiny_config(**{"data.augment.crop_ratio": 0.5})
        train.train(config, tmp_path, stop=lambda step: step == 2)
    assert not (tmp_path / "skipped_steps.json").exists()
    assert [line["step"] for line in commands.metrics(tmp_path)] == [1, 2]
    assert (
        json.loads((tmp_path / "config.json").read_text())["data"]["augment"]["crop_ratio"] == 0.5
    )


def unreadable(bad, split, monkeypatch):
    """Image `bad` of a split cannot be read."""

    def open_source(*args, **kwargs):
        source = sources.open_source(*args, **kwargs)
        read = type(source).__getitem__

        class Damaged(type(source)):
            def __getitem__(self, index):
                if index == bad:
                    raise sources.BadExample("cannot be read: gone")
                return read(self, index)

        if kwargs["split"] == split:
            source.__class__ = Damaged
        return source

    monkeypatch.setattr(experiment, "open_source", open_source)


def test_an_evaluation_that_fails_costs_no_step_and_is_made_up_for(tmp_path, monkeypatch):
    unreadable(300, "validation", monkeypatch)
    strict = tiny_config(**{"eval.every": 0.03, "data.max_bad_share": 0.0})  # every 2 steps
    for _ in range(2):
        with pytest.raises(UserError, match=r"1 of 510 examples .* larger --config.data.max_bad"):
            train.train(strict, tmp_path)
        assert Checkpoints(tmp_path / "checkpoints").steps() == [2]
    with pytest.raises(Preempted):
        config = tiny_config(**{"eval.every": 0.03, "data.max_bad_share": 0.01})
        train.train(config, tmp_path, stop=lambda step: step == 3)
    lines = [(line["step"], line["kind"]) for line in commands.metrics(tmp_path)]
    assert lines == [(1, "train"), (2, "train"), (2, "eval"), (3, "train")]


def test_training_data_that_ends_a_run_loses_no_step(tmp_path, monkeypatch):
    config = tiny_config(**{"data.max_bad_share": 0.0, "checkpoint.every": 1.0})
    with contextlib.closing(Experiment(config, tmp_path).train_batches(2)) as batches:
        unreadable(next(batches)["index"][5], "train", monkeypatch)
    with pytest.raises(UserError, match=r"unreadable, more than data\.max_bad_share"):
        train.train(config, tmp_path)
    assert [line["step"] for line in commands.metrics(tmp_path)] == [1, 2]
    assert Checkpoints(tmp_path / "checkpoints").steps() == [2]


@pytest.mark.slow
def test_a_run_can_start_from_the_weights_of_another(tmp_path):
    first = train.train(tiny_config(), tmp_path / "first")
    settings = {"init.workdir": str(tmp_path / "first"), "optim.learning_rate": 1e-12}
    second = train.train(tiny_config(**settings), tmp_path / "second")
    assert second["cross_entropy"] == pytest.approx(first["cross_entropy"], abs=1e-4)
    with pytest.raises(UserError, match="other sizes"):
        train.train(tiny_config(**settings, **{"model.embed_dim": 32}), tmp_path / "third")


def test_a_summary_covers_the_whole_run_and_stays_when_nothing_is_left_to_do(tmp_path):
    config = tiny_config()
    with pytest.raises(Preempted):
        train.train(config, tmp_path, stop=lambda step: step == 6)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    times = (tmp_path / "timings.jsonl").read_text()
    (tmp_path / "timings.jsonl").write_text(times + '{"step": 7, "kin')  # as a kill leaves it
    piece = checkpoints.extra(6)["effort"]
    assert piece["timed_images"] == 5 * 16  # the first step of a process compiles
    first = train.train(config, tmp_path)
    assert first["seconds"] > piece["seconds"]
    assert checkpoints.extra(10)["effort"]["timed_images"] == (5 + 3) * 16
    lines = commands.metrics(tmp_path)
    assert_timed(lines, (tmp_path / "timings.jsonl").read_text(), before=times)
    again = train.train(config, tmp_path)
    assert commands.metrics(tmp_path) == lines
    names = ("top1", "cross_entropy", "gmacs", "steps", "seconds", "train_images_per_second")
    assert {name: again[name] for name in names} == {name: first[name] for name in names}


def assert_timed(metrics: list[dict], text: str, *, before: str) -> None:
    """Each line of metrics has one of times, and none of `before` is lost."""
    assert text.startswith(before)
    timings = [json.loads(line) for line in text.splitlines()]
    assert [(t["step"], t["kind"]) for t in timings] == [(m["step"], m["kind"]) for m in metrics]
    assert timings[5]["epoch"] == pytest.approx(6 * 16 / 1287, abs=1e-3)
    assert [t["seconds"] for t in timings] == sorted(t["seconds"] for t in timings)
    speeds = [t["images_per_second"] for t in timings if t["kind"] == "train"]
    # A slow machine may finish none of the steps in flight between two lines, and both at the next.
    assert max(speed or 0 for speed in speeds) > 0
    assert timings[-1]["evaluating_seconds"] > 0 < timings[-1]["saving_seconds"]
    assert not metrics[0].keys() & {"seconds", "time", "images_per_second"}
