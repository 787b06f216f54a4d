"""A forecast for devices that are there, whose compiler needs no other package."""

import importlib.util
import json

import jax
import pytest

from avit_jax import config as configs
from avit_jax.errors import UserError
from avit_jax.experiment import Experiment
from avit_jax.forecast.machines import Machine, machine_of
from avit_jax.forecast.report import print_forecast
from avit_jax.forecast.run import forecast, forecast_run

BATCH, IMAGE = 16, 32


def small_config(**model):
    config = configs.base(
        model="avit_micro_patch4_32", method={"gate_center": 0.0, "prior_weight": 0.1}
    )
    config.model.update(num_classes=10, patch_size=8, depth=2, embed_dim=64, **model)
    config.data.name = "no_such_data"
    config.init.weights = "no_such_file.pth"
    config.train.update(batch_size=BATCH, ema_decay=0.9)
    config.data.mix.update(mixup=0.0, cutmix=0.0)
    config.mesh.update(data=2, fsdp=4)
    config.forecast.update(programs=("train",), largest_batch=False)
    return config


def these_devices(memory=2**30):
    return Machine(
        name="cpu:8",
        devices=tuple(jax.devices()),
        memory=memory,
        bandwidth=1e10,
        clock=None,
        source="a test",
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return forecast(Experiment(small_config(), tmp_path_factory.mktemp("run")), these_devices())


def test_neither_data_nor_weights_are_opened_and_arguments_are_what_is_held(found):
    step = found["programs"]["train"]
    held = step["held"]
    assert held["batch"] == BATCH // 8 * (IMAGE * IMAGE * 3 + 4 + 1)
    assert held["moving average"] == held["parameters"] < held["optimiser"]
    sums_of_the_log = 200
    assert 0 < step["memory"]["arguments"] - sum(held.values()) < sums_of_the_log


def test_no_image_changes_its_place_in_a_step_on_split_weights(found):
    """Weights are gathered and gradients added up; images stay on their devices."""
    step = found["programs"]["train"]
    collectives = step["collectives"]
    assert collectives["all-gather"]["count"] > 0, "no parameter was split, this proves nothing"
    assert "all-to-all" not in collectives and "collective-permute" not in collectives
    # Forwards and backwards, all parameters at most.
    whole = 4 * Experiment(small_config(), None).model.num_params()
    assert collectives["all-gather"]["bytes"] < 2 * whole


def test_a_forecast_can_be_printed_and_kept(found, capsys):
    print_forecast(json.loads(json.dumps(found)))
    shown = capsys.readouterr().out
    assert "2 x 4 (data x fsdp)" in shown and "all-gather" in shown and "optimiser, MB" in shown
    assert "Nothing was measured" in shown


def test_a_batch_that_devices_cannot_share_is_refused(tmp_path):
    config = small_config()
    config.train.batch_size = 12
    with pytest.raises(UserError, match="write a multiple of 8"):
        forecast(Experiment(config, tmp_path), these_devices())


@pytest.mark.parametrize("name", ["v5e", "v5e:4", "v4:4x4", "h100:9", "h200", "v5e:4x4x4"])
def test_a_machine_that_nobody_knows_is_refused(name):
    with pytest.raises(UserError, match="write a TPU with its torus"):
        machine_of(name)


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("v5e:2x2", "libtpu", "tpu"), ("h100", "jax_cuda13_plugin", "gpu")],
)
def test_a_compiler_that_is_not_installed_is_named_with_its_extra(name, package, extra):
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed here")
    with pytest.raises(UserError, match=rf"pip install -e '\.\[forecast-{extra}\]'"):
        machine_of(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("machine", "package"),
    [("v5e:2x2", "libtpu"), ("v4:2x2x1", "libtpu"), ("h100", "jax_cuda13_plugin"),
     ("h100:4", "jax_cuda13_plugin")],
)  # fmt: skip
def test_a_run_is_forecast_for_a_machine_that_is_not_there(machine, package, tmp_path):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package}, the compiler for {machine}, is not installed")
    config = small_config(dtype="bfloat16")
    config.mesh.update(data=-1, fsdp=1)
    config.forecast.update(machine=machine, programs=("train", "eval", "predict"))
    found = json.loads(forecast_run(config, tmp_path).read_text())
    for program in found["programs"].values():
        assert program["fits"] and program["flops"] > 0 and program["kernel_bytes"] > 0
        assert program["waits"] == 0
        assert (program["compiler_estimate_ms"] or 0) > 0 or machine.startswith("h100")
    chips = found["machine"]["devices"]
    assert ("all-reduce" in found["programs"]["train"]["collectives"]) == (chips > 1)
