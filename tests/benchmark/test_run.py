"""The benchmark mode from end to end on a small model: figures, files, a picture."""

import json

import numpy as np
import pytest
from PIL import Image

from avit_jax import config as configs
from avit_jax.benchmark import peers
from avit_jax.benchmark.cases import cases
from avit_jax.benchmark.run import benchmark_run
from avit_jax.experiment import Experiment


@pytest.fixture
def config():
    config = configs.debug(configs.base(model="avit_micro_patch4_32"))
    config.model.update(patch_size=8, depth=2)
    config.method.update(gate_scale=10.0, gate_center=30.0)
    config.benchmark.update(batch_sizes=(8,), profiles=("half",), turns=2)
    config.inference.update(row_sizes=(32, 136), lengths=(17,), attention_images=4)
    return config


def test_a_benchmark_leaves_figures_and_a_picture(config, tmp_path, capsys):
    file = benchmark_run(config, tmp_path)
    (case,) = json.loads(file.read_text())["cases"]
    executions = case["executions"]
    assert set(executions) == {"dense", "masked", "compact", "static", "capped"}
    assert executions["dense"]["speedup"] == 1.0
    for name in ("masked", "compact", "static"):
        assert executions[name]["logit_difference"] <= 1e-5
    assert case["gmacs_live"] <= executions["compact"]["gmacs_executed"]
    assert case["ideal_speedup"] == pytest.approx(case["gmacs_dense"] / case["gmacs_live"])
    share = executions["compact"]["speedup"] / case["ideal_speedup"]
    assert executions["compact"]["share_of_ideal"] == pytest.approx(share)
    for figures in executions.values():
        assert figures["gmacs_executed"] > 0 and figures["memory_mb"] > 0
        assert isinstance(figures["compile_cached"], bool)
    assert executions["masked"]["same_class"] == executions["compact"]["same_class"] == 1.0
    assert 0 <= executions["capped"]["images_affected"] <= 1
    assert case["device_peak_mb"] is None  # CPUs do not tell
    with Image.open(tmp_path / "benchmark.png") as picture:
        assert np.asarray(picture).std() > 0
    out = capsys.readouterr().out
    assert "profile half, batch 8" in out
    assert "lost tokens" in out


def test_an_unknown_peer_is_refused():
    with pytest.raises(ValueError, match="write eager or compile"):
        peers.peer("onnx", None, None)


@pytest.mark.skipif(peers.available(), reason="PyTorch and transformers are installed")
def test_a_missing_peer_is_refused_with_its_remedy():
    with pytest.raises(ValueError, match="install the extra `benchmark`"):
        peers.peer("eager", None, None)


def test_a_method_that_skips_nothing_is_refused(tmp_path):
    config = configs.debug(configs.base(model="deit_micro_patch4_32"))
    with pytest.raises(ValueError, match="skips none: write the config of an adaptive model"):
        benchmark_run(config, tmp_path)


def test_batches_that_the_devices_cannot_share_are_left_out_and_named(config, tmp_path, capsys):
    config.benchmark.batch_sizes = (1, 8)
    assert [len(case.batch) for case in cases(Experiment(config, tmp_path))] == [8]
    assert "batch 1 left out: not a multiple of 8 devices" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"profiles": ("quarter",)}, "write some of paper, half"),
        ({"executions": ("compact",)}, "has no dense, which is the baseline"),
        ({"peers": ("onnx",)}, "write some of eager, compile"),
        ({"turns": 0}, "at least one turn"),
        ({"batch_sizes": ()}, "one batch of one image"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(config, settings, message, tmp_path):
    config.benchmark.update(settings)
    with pytest.raises(ValueError, match=message):
        benchmark_run(config, tmp_path)
