"""How many CPU devices share a batch: as many as suit it and the cores, or as somebody said."""

import jax
import pytest

import avit_jax
from avit_jax import config as configs
from avit_jax.config import shared_batch
from avit_jax.errors import UserError
from avit_jax.runtime import cpu_devices

CORES = (1, 2, 6, 10)
# What the README's commands put through at once: predictions, and evaluation of the digits.
COMMANDS = {
    32: (1, 2, 4, 8),
    256: (1, 2, 4, 8),
    1: (1, 1, 1, 1),
    30: (1, 2, 6, 10),
    7: (1, 1, 1, 7),
}


@pytest.fixture
def untouched(monkeypatch):
    """JAX as a user has it before it starts; what is set is collected instead."""
    chosen = {}
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(cpu_devices, "_accelerators_installed", lambda: False)
    monkeypatch.setattr(cpu_devices.jax.config, "update", chosen.__setitem__)
    return chosen


@pytest.mark.parametrize("images", COMMANDS)
@pytest.mark.parametrize("cores", CORES)
def test_devices_are_the_largest_divisor_of_the_batch(images, cores, untouched, monkeypatch):
    monkeypatch.setattr(cpu_devices, "usable_cores", lambda: cores)
    wanted = COMMANDS[images][CORES.index(cores)]
    found = cpu_devices.share(images, environment={})
    if wanted == 1:
        assert found is None and not untouched
    else:
        assert found == wanted and untouched == {"jax_num_cpu_devices": wanted}


@pytest.mark.parametrize(
    "said",
    [
        {"XLA_FLAGS": "--xla_a=1 --xla_force_host_platform_device_count=3"},
        {"JAX_PLATFORMS": "cuda"},
        {"JAX_PLATFORMS": "tpu,cpu"},
        {"NPROC": "1"},
    ],
)
def test_what_the_user_has_said_stays(said, untouched, monkeypatch):
    monkeypatch.setattr(cpu_devices, "usable_cores", lambda: 8)
    assert cpu_devices.share(32, environment=said) is None and not untouched


def test_a_number_in_the_settings_of_jax_stays(untouched, monkeypatch):
    monkeypatch.setattr(cpu_devices, "usable_cores", lambda: 8)
    monkeypatch.setattr(type(jax.config), "jax_num_cpu_devices", 1, raising=False)
    assert cpu_devices.share(32, environment={}) is None and not untouched


def test_nproc_says_how_many_cores_there_are(untouched, monkeypatch):
    monkeypatch.setattr(cpu_devices, "usable_cores", lambda: 8)
    assert cpu_devices.share(32, environment={"NPROC": "4"}) == 4


def test_where_an_accelerator_may_be_found_a_cpu_has_to_be_asked_for(untouched, monkeypatch):
    monkeypatch.setattr(cpu_devices, "usable_cores", lambda: 8)
    monkeypatch.setattr(cpu_devices, "_accelerators_installed", lambda: True)
    # Where JAX_PLATFORMS was set when these tests began, JAX remembers it.
    monkeypatch.setattr(type(jax.config), "jax_platforms", None, raising=False)
    assert cpu_devices.share(32, environment={}) is None
    assert cpu_devices.share(32, environment={"JAX_PLATFORMS": "cpu"}) == 8


def test_devices_that_would_have_too_little_to_do_stay_one(untouched, monkeypatch):
    monkeypatch.setattr(cpu_devices, "usable_cores", lambda: 8)
    least = 8 * cpu_devices.LEAST_WORK / 32
    assert cpu_devices.share(32, 0.99 * least, {}) is None and not untouched
    assert cpu_devices.share(32, least, {}) == 8


def test_once_jax_has_started_python_is_told_so(monkeypatch):
    jax.devices()
    monkeypatch.setattr(cpu_devices, "is_left_open", lambda environment: True)
    monkeypatch.setattr(cpu_devices, "usable_cores", lambda: 8)
    with pytest.raises(UserError, match="JAX has started already"):
        avit_jax.use_every_core(32)
    with pytest.raises(UserError, match="batch_size is 0"):
        avit_jax.use_every_core(0)


def test_python_keeps_what_is_set():
    assert avit_jax.use_every_core(32) == jax.device_count() == 8


@pytest.mark.parametrize(
    ("mode", "images"),
    [
        ("train", 1),
        ("benchmark", 1),
        ("export", 1),
        ("convert", 1),
        ("visualize", 1),
        ("predict", 20),
        ("calibrate", 20),
        ("eval", 60),
    ],
)
def test_modes_that_use_a_trained_model_share_their_batches(mode, images):
    config = configs.base(model="avit_micro_patch4_32")
    config.inference.batch_size, config.eval.batch_size = 20, 60
    found = shared_batch.batch_of(mode, config)
    assert found.images == images
    assert images == 1 or found.gmacs == configs.make_model(config).dense_gmacs()
    config.mesh.data = 2
    assert shared_batch.batch_of(mode, config).images == 1
