"""The command line: bad input gets one sentence and status 2, and leaves nothing behind."""

import json

import pytest

from tests import commands

# Patches halt in several layers, although hardly anything has been learnt.
SETTINGS = {
    "train__steps": 4,
    "model__depth": 4,
    "model__patch_size": 8,
    "method__gate_scale": 3.0,
    "method__gate_center": 0.5,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    arguments = commands.command(workdir, **SETTINGS)
    status, out, err = commands.run(arguments)
    assert status == 0, err
    return workdir, out


def test_a_run_leaves_everything_it_promises(trained):
    workdir, out = trained
    summary = json.loads((workdir / "summary.json").read_text())
    for name in ("top1", "top5", "top1_dense", "mean_depth", "gmacs", "gmacs_dense", "halted"):
        assert isinstance(summary[name], float), name
    assert summary["images"] == 510
    assert summary["steps"] == 4
    assert sum(summary["depth_histogram"]) == pytest.approx(1.0)
    # Or everything below would compare executions that skip nothing.
    assert sum(share > 0.01 for share in summary["depth_histogram"]) >= 3
    for name in ("config.json", "metrics.jsonl", "checkpoints/4", "depth_maps.png"):
        assert (workdir / name).exists(), name
        assert str(workdir) in out
    assert "top-1, adaptive" in out
    assert not list(workdir.glob("*.partial"))


def test_evaluation_agrees_with_the_end_of_training(trained):
    workdir, _ = trained
    status, out, err = commands.run(commands.command(workdir, mode="eval", **SETTINGS))
    assert status == 0, err
    summary = json.loads((workdir / "summary.json").read_text())
    evaluated = json.loads((workdir / "eval.json").read_text())
    for name in ("images", "top1", "top5", "cross_entropy", "gmacs", "class_mean_depth"):
        assert evaluated[name] == summary[name], name
    assert "mean depth" in out


def test_predictions_agree_with_the_end_of_training(trained):
    workdir, _ = trained
    status, out, err = commands.run(commands.command(workdir, mode="predict", **SETTINGS))
    assert status == 0, err
    lines = [json.loads(line) for line in (workdir / "predictions.jsonl").read_text().splitlines()]
    summary = json.loads((workdir / "summary.json").read_text())
    right = sum(line["label"] == line["true_label"] for line in lines)
    assert right / len(lines) == pytest.approx(summary["top1"], abs=1e-9)
    assert len(lines) == summary["images"]
    assert "Predictions" in out


def test_compact_answers_of_trained_weights_are_the_masked_ones(trained, tmp_path):
    """`--mode benchmark` on the run's own weights and images, where tokens halt at all depths."""
    workdir, _ = trained
    arguments = commands.command(
        workdir,
        mode="benchmark",
        **SETTINGS,
        benchmark__profiles="('real',)",
        benchmark__executions="('dense','compact')",
        benchmark__batch_sizes="(8,)",
        benchmark__turns=1,
    )
    status, out, err = commands.run([*arguments, "--output", str(tmp_path)])
    assert status == 0, err
    (case,) = json.loads((tmp_path / "benchmark.json").read_text())["cases"]
    compact = case["executions"]["compact"]
    assert case["images_compared"] == 256
    assert compact["logit_difference"] <= 1e-5
    assert compact["images_near_threshold"] < 128
    assert (compact["same_class"], compact["top1_change"]) == (1.0, 0.0)
    assert case["gmacs_needed"] < 0.9 * case["gmacs_dense_needed"]
    assert "speed-up (quartiles)" in out
    assert (tmp_path / "benchmark.png").exists()


def test_calibration_is_what_auto_execution_follows(trained):
    workdir, _ = trained
    arguments = commands.command(workdir, mode="calibrate", **SETTINGS, inference__batch_size=1)
    status, out, err = commands.run(arguments)
    assert status == 0, err
    (entry,) = json.loads((workdir / "plans.json").read_text())
    assert entry["execution"] in ("compact", "masked")
    assert "fastest exact execution" in out and entry["execution"] in out


def test_another_config_in_the_same_workdir_is_refused(trained):
    workdir, _ = trained
    before = (workdir / "config.json").read_text()
    status, _, err = commands.run(commands.command(workdir, **SETTINGS, method__target_depth=2.0))
    assert status == 2
    was = json.loads(before)["method"]["target_depth"]
    assert f"method.target_depth: {was} -> 2.0" in err
    assert (workdir / "config.json").read_text() == before


BAD = {
    "an unknown key": (["--config.optim.learning_rat=1"], "learning_rat"),
    "a value of another type": (["--config.train.batch_size=many"], "batch_size"),
    "an unknown mode": (["--mode=trian"], "trian"),
    "a stray argument": (["debug"], "unexpected argument 'debug'"),
    "contradictory values": (["--config.train.accumulation=3"], "not a multiple"),
    "a bad prior": (["--config.method.prior=gausian"], "gausian"),
    "a missing data folder": (["--config.data.name=folder"], "data.dir"),
    "another number of classes": (["--config.model.num_classes=7"], "--config.model.num_classes"),
    "nothing to evaluate": (["--mode=eval"], "config.json"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence(case, tmp_path):
    extra, expected = BAD[case]
    workdir = tmp_path / "run"
    status, _, err = commands.run([*commands.command(workdir), *extra])
    assert status == 2, err
    assert expected in err
    assert "Traceback" not in err
    assert not workdir.exists()


def test_a_dry_run_refuses_what_the_run_would_and_writes_nothing(tmp_path):
    arguments = commands.command(tmp_path / "there", mode="train", **SETTINGS)
    status, out, err = commands.run([*arguments, "--dry_run"])
    assert (status, err) == (0, "")
    assert out.startswith("nothing to refuse: --mode train of avit_micro_patch4_32, 10 classes")
    status, out, err = commands.run([*arguments, "--workdir=gs://no-bucket/x", "--dry_run"])
    assert (status, err) == (0, "") and out.endswith("in gs://no-bucket/x\n")  # nobody is asked
    status, _, err = commands.run([*arguments, "--workdir=s3://bucket/x", "--dry_run"])
    assert status == 2 and "Orbax keeps no checkpoints in" in err
    status, _, err = commands.run([*arguments, "--config.model.num_heads=3", "--dry_run"])
    assert status == 2
    assert err.startswith("avit_jax: ") and len(err.splitlines()) == 1 and "num_heads" in err
    assert list(tmp_path.iterdir()) == []
