"""The benchmark mode from end to end on a small model: figures, files, a picture."""

import json

import numpy as np
import pytest
from PIL import Image

from avit_jax import config as configs
from avit_jax.benchmark import cases as run_cases
from avit_jax.benchmark import run
from avit_jax.benchmark.cases import cases
from avit_jax.benchmark.other_process import OtherProcesses
from avit_jax.benchmark.programs import Programs
from avit_jax.benchmark.room import NoRoom
from avit_jax.benchmark.run import benchmark_run
from avit_jax.experiment import Experiment


@pytest.fixture
def config():
    config = configs.debug(configs.base(model="avit_micro_patch4_32"))
    config.model.update(patch_size=8, depth=2)
    config.method.update(gate_scale=10.0, gate_center=30.0, kl_reading="halting")
    config.benchmark.update(batch_sizes=(8,), profiles=("half",), turns=2, calls=2)
    config.inference.update(row_sizes=(32, 136), lengths=(17,), attention_images=4)
    return config


def test_a_benchmark_leaves_figures_and_a_picture(config, tmp_path, capsys):
    config.benchmark.training = True
    file = benchmark_run(config, tmp_path)
    (case,) = json.loads(file.read_text())["cases"]
    executions = case["executions"]
    assert set(executions) == {"dense", "masked", "compact", "static", "capped"}
    assert executions["dense"]["speedup"] == 1.0
    for name in ("masked", "compact", "static"):
        assert executions[name]["logit_difference"] <= 1e-5
    assert case["gmacs_needed"] <= executions["compact"]["gmacs_executed"]
    assert case["ideal_speedup"] == pytest.approx(case["gmacs_dense_needed"] / case["gmacs_needed"])
    dense = configs.make_model(config).dense_gmacs()  # the number that every other mode shows
    assert case["gmacs_dense"] == dense > case["gmacs_dense_needed"]
    assert case["gmacs_needed"] * (1 - 1e-6) <= case["gmacs"] < dense  # one is a float32
    share = executions["compact"]["speedup"] / case["ideal_speedup"]
    assert executions["compact"]["share_of_ideal"] == pytest.approx(share)
    for figures in executions.values():
        assert figures["gmacs_executed"] > 0 and figures["memory_mb"] > 0
        assert isinstance(figures["compile_cached"], bool)
        assert 0 < figures["temporaries_mb"] < figures["memory_mb"]
        assert "share_of_peak" not in figures  # nobody publishes that of this machine's processor
    assert executions["masked"]["same_class"] == executions["compact"]["same_class"] == 1.0
    assert 0 <= executions["capped"]["images_affected"] <= 1
    assert case["device_peak_mb"] is None  # CPUs do not tell
    steps = case["training"]["executions"]
    assert set(steps) == {"dense step", "masked step", "live step"}
    assert 0 < steps["live step"]["rows_run"] < 1
    assert steps["dense step"]["speedup"] == 1.0
    for figures in steps.values():
        assert figures["images_per_second"] > 0 and figures["temporaries_mb"] > 0
    with Image.open(tmp_path / "benchmark.png") as picture:
        assert np.asarray(picture).std() > 0
    out = capsys.readouterr().out
    assert "profile half, batch 8" in out
    assert max(len(line) for line in out.splitlines() if str(tmp_path) not in line) <= 80
    assert "lost tokens" in out
    assert "training steps, ideal speed-up" in out


def test_the_better_dense_of_two_numbers_of_devices_is_the_baseline(config, tmp_path, monkeypatch):
    """As where nobody has said how many there are; the other process is this one."""
    plans = []

    def here(others, devices, case, plan, chosen):
        plans.append((devices, plan))
        return Programs(case, plan, chosen)

    monkeypatch.setattr(run_cases, "also_on", lambda batch_size: (2,))
    monkeypatch.setattr(OtherProcesses, "programs", here)
    config.benchmark.executions = ("dense",)
    (case,) = json.loads(benchmark_run(config, tmp_path).read_text())["cases"]
    assert list(case["executions"]) == ["dense", "dense, 2 devices"]
    rows = [figures["milliseconds"] for figures in case["executions"].values()]
    fastest = list(case["executions"])[rows.index(min(rows))]
    assert case["executions"][fastest]["speedup"] == 1.0
    assert case["baseline"].endswith(", 2 devices") == (fastest == "dense, 2 devices")
    ((devices, plan),) = plans
    assert devices == 2 and plan.dense_images == 4 and plan.attention_images == 4
    assert len(plan.capacities) == 2 and plan.static_rows is None


def test_devices_that_somebody_has_counted_are_all_that_are_raced(monkeypatch):
    assert run_cases.also_on(32) == ()  # of these tests, in XLA_FLAGS
    monkeypatch.setattr(run_cases.cpu_devices, "is_left_open", lambda: True)
    monkeypatch.setattr(run_cases.cpu_devices, "usable_cores", lambda: 10)
    monkeypatch.setattr(run_cases.jax, "device_count", lambda: 1)
    assert [run_cases.also_on(size) for size in (1, 16, 60)] == [(), (8,), (10,)]


def test_a_batch_without_room_is_reported_by_its_name(config, tmp_path, capsys, monkeypatch):
    def full(case, *others):
        raise NoRoom(case.name)

    monkeypatch.setattr(run, "run_case", full)
    found = json.loads(benchmark_run(config, tmp_path).read_text())
    assert found["cases"] == []
    assert found["out_of_memory"] == ["profile half, batch 8"]
    assert "profile half, batch 8 left out: out of memory" in capsys.readouterr().out


def test_a_method_that_skips_nothing_is_refused(tmp_path):
    config = configs.debug(configs.base(model="deit_micro_patch4_32"))
    with pytest.raises(ValueError, match="skips none: write the config of an adaptive model"):
        benchmark_run(config, tmp_path)


def test_batches_that_the_devices_cannot_share_are_left_out_and_named(config, tmp_path, capsys):
    config.benchmark.batch_sizes = (1, 8)
    experiment = Experiment(config, tmp_path)
    assert [len(case.batch) for case in cases(experiment, experiment.settings.benchmark)] == [8]
    assert "batch 1 left out: not a multiple of 8 devices" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"profiles": ("quarter",)}, "write some of paper, half"),
        ({"executions": ("compact",)}, "has no dense, which is the baseline"),
        ({"executions": ()}, "write some of dense"),
        ({"peers": ("onnx",)}, "write some of eager, compile, graphs"),
        ({"calls": 0}, "config.benchmark.calls"),
        ({"turns": 0}, "at least one turn"),
        ({"batch_sizes": ()}, "one batch of one image"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(config, settings, message, tmp_path):
    config.benchmark.update(settings)
    with pytest.raises(ValueError, match=message):
        benchmark_run(config, tmp_path)
