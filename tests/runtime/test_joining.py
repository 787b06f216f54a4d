"""A process finds the others of its run, or says why not; an error in one ends all."""

import jax
import pytest

from avit_jax.errors import UserError
from avit_jax.runtime import joining

JAX = {"JAX_COORDINATOR_ADDRESS": "host:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
BATCH = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}
STEP = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NODELIST": "node[001-008]"}


@pytest.mark.parametrize(
    ("environment", "joined"),
    [
        ({}, None),
        (JAX, ("host:1", 2, 1)),
        (JAX | {"JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}, None),
        ({"JAX_NUM_PROCESSES": "1"}, None),
        (BATCH | STEP | {"JAX_NUM_PROCESSES": "1"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "JAX_NUM_PROCESSES": "1"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "JAX_COORDINATOR_ADDRESS": "a:1"}, ()),
        (JAX | {"JAX_COORDINATOR_ADDRESS": "[::1]:5", "JAX_PROCESS_ID": "0"}, ("[::1]:5", 2, 0)),
        (BATCH, None),  # the shell of an sbatch script, where srun has started nothing
        (BATCH | {"SLURM_STEP_NUM_TASKS": "1"}, None),
        (BATCH | {"SLURM_STEP_NUM_TASKS": "8"}, ()),  # of a Slurm that does not say where
        (BATCH | STEP, ("node001:61447", 8, 0)),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, ()),
        ({"TPU_WORKER_HOSTNAMES": "a"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, ()),
        ({"MEGASCALE_COORDINATOR_ADDRESS": "a"}, ()),
    ],
)
def test_a_process_joins_others_where_there_are_any(environment, joined, monkeypatch):
    calls = []
    monkeypatch.setattr(joining, "_meet", lambda *place, **asked: {})
    monkeypatch.setattr(joining, "_joined", [])
    monkeypatch.setattr(joining.relay, "local_address", lambda host, port: f"{host}:{port}")
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **kw: calls.append(args))
    joining.initialise_processes(environment)
    assert calls == ([] if joined is None else [joined])


def test_devices_of_processes_that_were_not_joined_are_refused(monkeypatch):
    joining.watch_over_others({})
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    with pytest.raises(UserError, match=r"this machine is one of 4 that .* set JAX_COORD"):
        joining.watch_over_others({})


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
        joining.initialise_processes(environment)
