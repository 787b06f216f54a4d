"""The script for TPU slices: what it asks for, and how it waits for a slice or gives it up."""

import pytest

from tests.launch.sandbox import BAD_USAGE, CONFIG, PREEMPTED, Sandbox


@pytest.mark.parametrize("option", ["--name", "--zone", "--workdir"])
def test_tpu_vm_asks_for_what_it_cannot_guess(sandbox: Sandbox, option: str) -> None:
    status, _, errors = sandbox.launch("tpu_vm.sh", f"{option}=")
    assert status == BAD_USAGE
    assert f"write {option}" in errors


def test_tpu_vm_refuses_a_config_path_that_only_this_machine_has(sandbox: Sandbox) -> None:
    status, _, errors = sandbox.launch("tpu_vm.sh", "--config", str(sandbox.directory / CONFIG))
    assert status == BAD_USAGE
    assert "absolute" in errors


def test_tpu_vm_waits_for_a_slice_that_is_starting(sandbox: Sandbox) -> None:
    status, _, _ = sandbox.launch("tpu_vm.sh", SLICE_STATES="CREATING STARTING READY")
    assert status == 0
    assert len(sandbox.lines("python")) == 1


@pytest.mark.parametrize("state", ["PREEMPTED", "TERMINATED", "STOPPED", "UNHEARD_OF"])
def test_tpu_vm_stops_when_the_slice_is_gone(sandbox: Sandbox, state: str) -> None:
    status, _, errors = sandbox.launch(
        "tpu_vm.sh", BEHAVIOUR="255 0", SLICE_STATES=f"READY {state}"
    )
    assert status == PREEMPTED
    assert len(sandbox.lines("python")) == 1
    assert "create or start it again" in errors


def test_tpu_vm_gives_up_on_a_slice_that_never_gets_ready(sandbox: Sandbox) -> None:
    status, _, errors = sandbox.launch("tpu_vm.sh", "--ready-timeout=0", SLICE_STATES="REPAIRING")
    assert status == PREEMPTED
    assert "still REPAIRING" in errors
    assert sandbox.lines("python") == []


@pytest.mark.fault
def test_tpu_vm_lets_a_process_left_by_a_broken_connection_save_before_the_next_one_starts(
    sandbox: Sandbox,
) -> None:
    status, _, _ = sandbox.launch("tpu_vm.sh", BEHAVIOUR="wait 0", DROP_FIRST="yes")
    events = [line.split()[0] for line in sandbox.record.read_text().splitlines()]
    assert status == 0
    assert [event for event in events if event != "gcloud"] == [
        "python",
        "waiting",
        "saved",
        "python",
    ]
