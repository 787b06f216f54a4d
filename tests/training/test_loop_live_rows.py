"""A training on live rows from its config: sizes change, and an interruption changes nothing."""

import pytest

from avit_jax.checkpoints.store import Checkpoints
from avit_jax.errors import Preempted, UserError
from avit_jax.training import loop, row_sizes
from tests import commands
from tests.training.test_loop import tiny_config

LIVE = {
    "train.rows": "live",
    "data.mix.mixup": 0.0,  # one collective less, of which many at once wait for each other on CPUs
    "data.mix.cutmix": 0.0,
    "model.patch_size": 4,
    "model.depth": 3,
    "model.dropout_rate": 0.0,
    "method.gate_scale": 3.0,
    "method.gate_center": 0.5,
    "method.dense_until": 0.0,
    "method.ramp": 0.0,
    "optim.learning_rate": 0.05,
    "optim.warmup": 0.0,
    "eval.every": 0.05,  # epochs: 4 steps
    "train.steps": 9,
}


@pytest.fixture(autouse=True)
def tight(monkeypatch):
    """Room for no more than has been seen, so that some batch finds none."""
    monkeypatch.setattr(row_sizes, "HEADROOM", 0.97)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run without a break, and its log."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_sizes, "HEADROOM", 0.97)
        loop.train(tiny_config(**LIVE), workdir)
    return workdir


def sizes(workdir, step):
    return row_sizes.RowSizes.of_json(Checkpoints(workdir / "checkpoints").extra(step)["rows"])


@pytest.mark.slow
def test_it_learns_what_a_training_on_all_rows_learns(whole, tmp_path):
    loop.train(tiny_config(**LIVE | {"train.rows": "all"}), tmp_path)
    for ours, theirs in zip(*map(commands.metrics, (whole, tmp_path)), strict=True):
        assert ours.keys() == theirs.keys()
        numbers = [name for name, value in theirs.items() if isinstance(value, float)]
        assert [ours[n] for n in numbers] == pytest.approx([theirs[n] for n in numbers], rel=2e-3)


def test_rows_become_fewer_at_an_evaluation_and_more_where_a_batch_finds_no_room(whole):
    first, second = sizes(whole, 4), sizes(whole, 8)
    assert first.current == 1 and first.share < 0.9
    assert second.sizes != first.sizes or second.current != first.current


def test_an_interruption_changes_nothing_not_even_the_sizes(whole, tmp_path):
    with pytest.raises(Preempted):
        loop.train(tiny_config(**LIVE), tmp_path, stop=lambda step: step == 6)
    assert sizes(tmp_path, 6).share < 1
    loop.train(tiny_config(**LIVE), tmp_path)
    assert commands.metrics(tmp_path) == commands.metrics(whole)
    assert sizes(tmp_path, 9) == sizes(whole, 9)


def test_a_run_that_cannot_learn_on_live_rows_is_refused_before_it_starts(tmp_path):
    with pytest.raises(UserError, match="kl_reading halting"):
        loop.train(tiny_config(**LIVE, **{"method.kl_reading": "paper"}), tmp_path)
    with pytest.raises(UserError, match=r"teacher\.attention 0"):
        loop.train(tiny_config(**LIVE, **{"teacher.weights": "deit.pth"}), tmp_path)
    assert not (tmp_path / "config.json").exists()
