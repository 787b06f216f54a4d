"""Calibration chooses among plans by measuring, and says what a static budget would cost."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from avit_jax.calibration import fastest_plan as calibrate
from avit_jax.execution.candidates import COVERED, candidates, capacities
from avit_jax.execution.capped import image_gmacs
from avit_jax.execution.plan import default_plan
from avit_jax.experiment import Experiment
from avit_jax.methods.base import Model
from avit_jax.models import costs
from avit_jax.runtime.paired_timing import Timing
from avit_jax.types import Usage
from tests import tiny_runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small run whose tokens halt at various depths."""
    return calibratable(tmp_path_factory.mktemp("run"), "avit_micro_patch4_32")


def calibratable(workdir, name):
    config = tiny_runs.config_of(name)
    config.inference.batch_size = 16
    config.eval.batch_size = 256
    return tiny_runs.trained(workdir, config)


@pytest.fixture
def quick(monkeypatch):
    """Two plans are raced, two turns long."""

    def two(model, batch_size):
        base = model.default_plan(batch_size)
        return {"default": base, "one": dataclasses.replace(base, images=1, attention_images=1)}

    monkeypatch.setattr(Model, "candidate_plans", two)
    monkeypatch.setattr(calibrate, "TURNS", 2)


def test_a_calibration_is_stored_and_found_again(run, quick, capsys):
    config, workdir, *_ = run
    plan = calibrate.calibrate_run(config, workdir)
    assert Experiment(config, workdir).plan == plan
    (entry,) = json.loads((workdir / "plans.json").read_text())
    assert entry["chosen"] in ("default", "one")
    assert entry["execution"] == Experiment(config, workdir).execution
    assert set(entry["speed_over_dense"]) == {"compact", "masked", "static"}
    assert len(plan.static_rows) == 3 and plan.static_rows[0] == 16 * 17 // jax.device_count()
    assert entry["images"] == 64
    budget = entry["capped"]
    assert 0 <= budget["images_affected"] <= 1
    assert abs(budget["top1"] - budget["top1_exact"]) <= budget["images_affected"]
    assert "images that lose tokens, capped" in capsys.readouterr().out


@pytest.mark.slow
def test_a_method_that_cannot_be_capped_is_calibrated_without_places(tmp_path, quick, capsys):
    config, workdir, *_ = calibratable(tmp_path, "adavit_deit_micro_patch4_32")
    plan = calibrate.calibrate_run(config, workdir)
    assert plan.capacities is None and Experiment(config, workdir).plan == plan
    (entry,) = json.loads((workdir / "plans.json").read_text())
    assert "capped" not in entry
    printed = capsys.readouterr().out
    assert "chosen plan" in printed and "capped" not in printed


@pytest.mark.parametrize(
    ("masked", "static", "execution"),
    [(0.9, 1.2, "masked"), (1.5, 1.2, "compact"), (0.9, 0.8, "static")],
)
def test_the_quickest_exact_execution_is_chosen(masked, static, execution):
    seconds = {"default": 2.0, "small groups": 1.0, "masked": masked, "static": static}
    seconds["dense"] = 0.5
    drift = np.array([1.0, 3.0, 2.0])
    times = {name: Timing(list(s * drift), list(s * drift)) for name, s in seconds.items()}
    plans = {
        name: candidates(default_plan(17, 2, num_heads=3), 17, 2)[name]
        for name in ("default", "small groups")
    }
    plan, record = calibrate.choose(plans, times)
    assert plan == plans["small groups"]
    assert record["execution"] == execution
    assert record["speed_over_dense"]["masked"] == pytest.approx(0.5 / masked)


def test_candidates_differ_and_contain_the_default():
    plans = candidates(default_plan(197, 16, num_heads=3), 197, 16)
    assert plans["default"] == default_plan(197, 16, num_heads=3)
    assert len(set(plans.values())) == len(plans) > 3
    for plan in plans.values():
        plan.check(num_tokens=197, depth=12)


def test_capacities_hold_nearly_all_images_and_never_rise():
    rng = np.random.default_rng(0)
    depth = rng.integers(1, 5, (200, 30))
    usage = depth[None] > np.arange(4)[:, None, None]
    found = capacities(usage, prefix=1)
    counts = usage.sum(-1)
    assert list(found) == sorted(found, reverse=True)
    for layer, capacity in enumerate(found):
        assert (counts[layer] <= capacity).mean() >= COVERED


def test_places_for_everything_cost_what_dense_inference_costs(run):
    model = run.model
    plan = dataclasses.replace(default_plan(17, 2, num_heads=3), capacities=(17, 17, 17))
    dense = costs.dense_inference_gmacs(model.shape)
    assert image_gmacs(model, plan) == pytest.approx(dense, rel=1e-6)
    everything = Usage(tokens=np.ones((3, 1, 17), bool))
    assert costs.inference_gmacs(model.shape, everything)[0] == pytest.approx(dense, rel=1e-6)


def test_where_no_compact_program_was_raced_the_plan_is_the_default():
    times = {name: Timing([s] * 3, [s] * 3) for name, s in (("masked", 2.0), ("dense", 1.0))}
    default = default_plan(17, 2, num_heads=3)
    plan, record = calibrate.choose({"default": default}, times)
    assert plan == default and record["execution"] == "masked"
    assert record["speed_over_default"] == {}
