"""Which devices each of several cells gets."""

import json
import subprocess

import jax
import pytest

from avit_jax.errors import UserError
from avit_jax.runtime import cpu_devices
from avit_jax.study import places as module
from avit_jax.study.places import Machine, look, places


def test_each_accelerator_has_its_cell():
    assert places(Machine("gpu", 3), None, {}) == [
        {"CUDA_VISIBLE_DEVICES": name} for name in ("0", "1", "2")
    ]
    seen = {"CUDA_VISIBLE_DEVICES": "5,2"}
    assert places(Machine("gpu", 2), None, seen) == [
        {"CUDA_VISIBLE_DEVICES": "5"}, {"CUDA_VISIBLE_DEVICES": "2"}
    ]  # fmt: skip
    first, second = places(Machine("tpu", 2), None, {})
    assert (first["TPU_VISIBLE_CHIPS"], second["TPU_VISIBLE_CHIPS"]) == ("0", "1")


def test_fewer_cells_share_the_accelerators_and_one_has_all():
    assert places(Machine("gpu", 4), 2, {}) == [
        {"CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "2,3"}
    ]  # fmt: skip
    assert places(Machine("gpu", 4), 1, {}) == places(Machine("tpu", 4), 1, {}) == [{}]


def test_cells_on_a_cpu_share_its_threads():
    assert places(Machine("cpu", 8), None, {}) == [{}]
    assert places(Machine("cpu", 8), 3, {}) == [{"NPROC": "2"}] * 3


def test_more_cells_than_devices_are_refused():
    with pytest.raises(UserError, match="there are 2 cores"):
        places(Machine("cpu", 2), 3, {})
    with pytest.raises(UserError, match="there are 2 accelerators"):
        places(Machine("gpu", 2), 3, {})
    with pytest.raises(UserError, match="write 1, whose cells use them all, or 4"):
        places(Machine("tpu", 4), 2, {})


def test_a_cpu_is_known_without_starting_jax():
    assert look({"JAX_PLATFORMS": "cpu", "NPROC": "1"}) == Machine("cpu", 1)


def asked(monkeypatch, *, status: int = 0, out: str = "", err: str = "") -> None:
    """Where an accelerator's JAX is installed, the process that looks for it ends so."""
    monkeypatch.setattr(cpu_devices, "_accelerators_installed", lambda: True)
    ended = subprocess.CompletedProcess([], status, out, err)
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: ended)


def test_what_this_process_computes_on_is_not_what_cells_do(monkeypatch):
    asked(monkeypatch, out='warning\n["gpu", 2]\n')
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", "cpu")  # as the command does, which computes nothing
    try:
        assert look({}) == Machine("gpu", 2)
    finally:
        jax.config.update("jax_platforms", before)


def test_a_jax_that_does_not_start_is_said(monkeypatch):
    asked(monkeypatch, status=1, err="Traceback\nRuntimeError: no CUDA\n")
    with pytest.raises(
        UserError, match=r"does not start on this machine \(RuntimeError: no CUDA\)"
    ):
        look({})


def test_the_process_that_looks_prints_platform_and_number(capsys):
    exec(module._PRINT, {})
    assert json.loads(capsys.readouterr().out) == ["cpu", len(jax.devices())]
