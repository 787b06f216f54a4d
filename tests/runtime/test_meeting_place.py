"""Launchers say where processes meet; of JAX's own rules for that, ours are the same."""

import os

import pytest
from jax._src.clusters import ompi_cluster, slurm_cluster

from avit_jax.errors import UserError
from avit_jax.runtime.meeting_place import MeetingPlace, meeting_place

SLURM = {
    "SLURM_JOB_ID": "5000",
    "SLURM_STEP_NODELIST": "node1",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}
MPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1,10.108.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
SIX = "1314521088.0;tcp6://[fe80::b9b:ac5d:9cf0:b858,2620:10d:c083:150e::3000:2]:43370"


@pytest.mark.parametrize(
    "environment",
    [
        *(
            SLURM | {"SLURM_STEP_NODELIST": nodes}
            for nodes in (
                "node1",
                "node001,host2",
                "node[001-0015],host2",
                "node[001,007-015],host2",
            )
        ),
        SLURM | {"JAX_COORDINATOR_PORT": "1234"},
        MPI,
        MPI | {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911"},
        MPI | {"OMPI_MCA_orte_hnp_uri": SIX},
    ],
)
def test_it_is_where_jax_would_meet(environment, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    cluster = (
        slurm_cluster.SlurmCluster if "SLURM_JOB_ID" in environment else ompi_cluster.OmpiCluster
    )
    assert cluster.is_env_present()
    place = meeting_place(os.environ)
    port = environment.get("JAX_COORDINATOR_PORT")
    assert f"{place.host}:{place.port}" == cluster.get_coordinator_address(None, port)
    assert (place.count, place.number) == (cluster.get_process_count(), cluster.get_process_id())


def test_a_list_of_one_in_brackets_is_read_too():
    found = meeting_place(SLURM | {"SLURM_STEP_NODELIST": "gpu-a[3],login"})
    assert found.host == "gpu-a3"  # JAX 0.11 takes "gpu-a3]"


def test_variables_of_jax_come_first():
    own = {"JAX_COORDINATOR_ADDRESS": "[::1]:5", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}
    found = meeting_place(SLURM | own)
    assert found == MeetingPlace("::1", 5, 2, 0, "JAX_COORDINATOR_ADDRESS")
    assert meeting_place(SLURM | {"JAX_NUM_PROCESSES": "1"}) is None


@pytest.mark.parametrize(
    "environment",
    [
        {},
        SLURM | {"SLURM_STEP_NUM_TASKS": "1"},
        MPI | {"OMPI_COMM_WORLD_SIZE": "1"},
        MPI | {"OMPI_MCA_orte_hnp_uri": "pmix-server"},
    ],
)
def test_one_alone_meets_nobody_and_what_is_not_said_is_left_to_jax(environment):
    assert meeting_place(environment) is None


def test_jaxs_address_alone_takes_the_place_of_a_launchers():
    found = meeting_place(SLURM | {"JAX_COORDINATOR_ADDRESS": "other:99"})
    assert found == MeetingPlace("other", 99, 4, 3, "JAX_COORDINATOR_ADDRESS")
    assert meeting_place({"JAX_COORDINATOR_ADDRESS": "other:99"}) is None  # JAX knows more, or not


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"JAX_COORDINATOR_PORT": "abc"}, "JAX_COORDINATOR_PORT is 'abc': write a free port"),
        ({"JAX_COORDINATOR_PORT": "99999"}, "JAX_COORDINATOR_PORT is '99999'"),
        ({"SLURM_STEP_NUM_TASKS": "x"}, "SLURM_PROCID is '3' and SLURM_STEP_NUM_TASKS 'x': write"),
        ({"SLURM_PROCID": "4"}, "SLURM_PROCID is '4' and SLURM_STEP_NUM_TASKS '4'"),
    ],
)
def test_what_is_no_number_that_fits_is_one_sentence(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        meeting_place(SLURM | changes)
