"""Parts of the work are contiguous and complete, and nobody waits for who could not begin."""

import signal

import jax
import numpy as np
import pytest

from avit_jax.errors import UserError
from avit_jax.runtime import processes


@pytest.mark.parametrize(("total", "count"), [(10, 3), (3, 8), (1, 1), (0, 4)])
def test_the_parts_in_order_are_the_whole_and_about_equal(monkeypatch, total, count):
    monkeypatch.setattr(jax, "process_count", lambda: count)
    parts = []
    for index in range(count):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        parts.append(processes.share(total))
    assert [item for part in parts for item in part] == list(range(total))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_one_process_alone_gathers_its_own():
    np.testing.assert_array_equal(processes.gather(np.asarray([1, 2])), [[1, 2]])
    assert processes.in_all_or_none(lambda: "begun") == "begun"


def test_who_could_begin_hears_of_the_other_and_who_could_not_says_why(monkeypatch):
    def unable():
        raise UserError("no such folder")

    monkeypatch.setattr(processes, "gather", lambda failed: np.asarray([False, True]))
    with pytest.raises(UserError, match="process 1 could not begin: read its message"):
        processes.in_all_or_none(lambda: "begun")
    with pytest.raises(UserError, match="no such folder"):
        processes.in_all_or_none(unable)


def test_a_mode_for_one_process_refuses_several(monkeypatch):
    processes.refuse_several_processes("export")
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    with pytest.raises(UserError, match="--mode export runs in one process, but 4 were started"):
        processes.refuse_several_processes("export")


JAX = {"JAX_COORDINATOR_ADDRESS": "host:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
BATCH = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}


@pytest.mark.parametrize(
    ("environment", "joined"),
    [
        ({}, None),
        (JAX, ("host:1", 2, 1)),
        (JAX | {"JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}, None),
        ({"JAX_NUM_PROCESSES": "1"}, None),
        (BATCH, None),  # the shell of an sbatch script, where srun has started nothing
        (BATCH | {"SLURM_STEP_NUM_TASKS": "1"}, None),
        (BATCH | {"SLURM_STEP_NUM_TASKS": "8"}, ()),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, ()),
        ({"TPU_WORKER_HOSTNAMES": "a"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, ()),
        ({"MEGASCALE_COORDINATOR_ADDRESS": "a"}, ()),
    ],
)
def test_a_process_joins_others_where_there_are_any(environment, joined, monkeypatch):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *arguments: calls.append(arguments))
    processes.initialise_processes(environment)
    assert calls == ([] if joined is None else [joined])


def test_devices_of_processes_that_were_not_joined_are_refused(monkeypatch):
    processes.refuse_unjoined()
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    with pytest.raises(UserError, match=r"this machine is one of 4 that .* set JAX_COORD"):
        processes.refuse_unjoined()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"JAX_PROCESS_ID": None}, r"JAX_PROCESS_ID, JAX_PROCESS_ID is not set: set all three"),
        ({"JAX_COORDINATOR_ADDRESS": None}, r", JAX_COORDINATOR_ADDRESS is not set: set all three"),
        ({"JAX_PROCESS_ID": "one"}, "^JAX_PROCESS_ID is 'one' and JAX_NUM_PROCESSES '2': write"),
        ({"JAX_PROCESS_ID": "2"}, "^JAX_PROCESS_ID is '2' and JAX_NUM_PROCESSES '2': write"),
    ],
)
def test_half_an_address_of_the_others_is_refused(changes, sentence):
    environment = {key: value for key, value in (JAX | changes).items() if value is not None}
    with pytest.raises(UserError, match=sentence):
        processes.initialise_processes(environment)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_hears_of_sigterm_and_of_ctrl_c_after_its_step(number, capfd):
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)}
    try:
        asked = processes.preemption_notice()
        assert not asked(1)
        signal.raise_signal(number)
        assert asked(1)
        if number == signal.SIGINT:
            assert capfd.readouterr().err.count("\n") == 1
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
