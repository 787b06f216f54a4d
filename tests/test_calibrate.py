"""Calibration chooses among plans by measuring, and says what a static budget would cost."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from avit_jax import calibrate, executed, flops
from avit_jax import config as configs
from avit_jax.benchmark.race import Timing
from avit_jax.checkpoint import Checkpoints
from avit_jax.inference.candidates import COVERED, candidates, capacities
from avit_jax.inference.plan import default_plan
from avit_jax.inference.plans import chosen_execution, chosen_plan
from avit_jax.types import Usage


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Config and workdir of a small run whose tokens halt at various depths."""
    method = {"gate_scale": 3.0, "gate_center": 0.5}
    config = configs.debug(configs.base(model="avit_micro_patch4_32", method=method).unlock())
    config.model.update(depth=3, embed_dim=24, num_heads=2, patch_size=8)
    config.inference.batch_size = 16
    config.eval.batch_size = 256
    workdir = tmp_path_factory.mktemp("run")
    (workdir / "config.json").write_text(configs.to_json(config))
    generator = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: generator.normal(0, 0.3, leaf.shape).astype(np.float32),
        configs.make_model(config).abstract_params(),
    )
    checkpoints = Checkpoints(workdir / "checkpoints")
    checkpoints.save(1, {"params": jax.device_put(params)})
    checkpoints.close()
    return config, workdir


def test_a_calibration_is_stored_and_found_again(run, monkeypatch, capsys):
    config, workdir = run
    base = default_plan(17, 2)
    few = {"default": base, "one by one": dataclasses.replace(base, images=1, attention_images=1)}
    monkeypatch.setattr(calibrate, "candidates", lambda *sizes: few)
    monkeypatch.setattr(calibrate, "TURNS", 2)
    plan = calibrate.calibrate_run(config, workdir)
    assert chosen_plan(config, workdir) == plan
    (entry,) = json.loads((workdir / "plans.json").read_text())
    assert entry["chosen"] in few
    assert entry["execution"] == chosen_execution(config, workdir)
    assert set(entry["speed_over_dense"]) == {"compact", "masked"}
    assert entry["images"] == 64
    budget = entry["budget"]
    assert 0 <= budget["images_affected"] <= 1
    assert abs(budget["top1"] - budget["top1_exact"]) <= budget["images_affected"]
    assert "images that the budget affects" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("masked", "execution"), [(0.9, "masked"), (1.5, "compact")], ids=["quicker", "slower"]
)
def test_masked_execution_is_chosen_where_it_is_quicker_than_the_best_plan(masked, execution):
    seconds = {"default": 2.0, "small groups": 1.0, "masked": masked, "dense": 0.5}
    drift = np.array([1.0, 3.0, 2.0])
    times = {name: Timing(list(s * drift), list(s * drift)) for name, s in seconds.items()}
    plans = {
        name: candidates(default_plan(17, 2), 17, 2)[name] for name in ("default", "small groups")
    }
    plan, record = calibrate.choose(plans, times)
    assert plan == plans["small groups"]
    assert record["execution"] == execution
    assert record["speed_over_dense"]["masked"] == pytest.approx(0.5 / masked)


def test_candidates_differ_and_contain_the_default():
    plans = candidates(default_plan(197, 16), 197, 16)
    assert plans["default"] == default_plan(197, 16)
    assert len(set(plans.values())) == len(plans) > 3
    for plan in plans.values():
        plan.check(num_tokens=197, depth=12, num_heads=3)


def test_capacities_hold_nearly_all_images_and_never_rise():
    rng = np.random.default_rng(0)
    depth = rng.integers(1, 5, (200, 30))
    usage = depth[None] > np.arange(4)[:, None, None]
    found = capacities(usage, prefix=1)
    counts = usage.sum(-1)
    assert list(found) == sorted(found, reverse=True)
    for layer, capacity in enumerate(found):
        assert (counts[layer] <= capacity).mean() >= COVERED


def test_a_full_budget_costs_what_dense_inference_costs(run):
    model = configs.make_model(run[0])
    plan = dataclasses.replace(default_plan(17, 2), capacities=(17, 17, 17))
    dense = flops.dense_inference_gmacs(model.shape)
    assert executed.budget_gmacs(model.shape, plan) == pytest.approx(dense, rel=1e-6)
    everything = Usage(tokens=np.ones((3, 1, 17), bool))
    assert flops.inference_gmacs(model.shape, everything)[0] == pytest.approx(dense, rel=1e-6)
