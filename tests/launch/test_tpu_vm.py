"""The scripts for TPU slices: what they ask for, and how they wait for a slice or give it up."""

import signal

import pytest

from tests.launch.sandbox import BAD_USAGE, CONFIG, PATIENCE, PREEMPTED, REQUIRED, Sandbox


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
    assert [event for event in events if event not in ("gcloud", "check")] == [
        "python",
        "waiting",
        "saved",
        "python",
    ]


def test_the_first_worker_is_asked_before_any_begins(sandbox: Sandbox) -> None:
    status, _, _ = sandbox.launch("tpu_vm.sh")
    asked = [line for line in sandbox.lines("gcloud") if " ssh " in line]
    assert status == 0
    assert ["--worker=0" in line for line in asked] == [True, False]
    assert len(sandbox.lines("check")) == 2  # here, and there


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["--directory", "nowhere"], 'the workers have no folder "nowhere"; add --install'),
        (["--python", "/bin/python2"], 'the workers have no "/bin/python2" in '),
    ],
)
def test_workers_without_the_program_are_named(
    sandbox: Sandbox, change: list[str], sentence: str
) -> None:
    status, _, errors = sandbox.launch("tpu_vm.sh", *change)
    assert status == BAD_USAGE
    assert sentence in errors
    assert sandbox.lines("python") == []


@pytest.mark.parametrize("times", [1, 2])
def test_install_brings_the_repository_to_the_workers(sandbox: Sandbox, times: int) -> None:
    sandbox.make_repository()
    (sandbox.directory / "record.secret").touch()
    for _ in range(times):
        status, _, errors = sandbox.run("tpu_vm.sh", *REQUIRED["tpu_vm.sh"], "--install")
        assert status == 0, errors
    copied = sandbox.directory / "worker" / "avit_jax"
    assert (copied / CONFIG).exists() and not (copied / "record.secret").exists()
    assert sandbox.lines("uv")[-1].endswith("worker/avit_jax[tpu,gcs]")
    assert len(sandbox.lines("python")) == times


def queued(sandbox: Sandbox, *arguments: str, **environment: str) -> tuple[int, str, list[str]]:
    """Status, errors, and what was done to requests."""
    sandbox.make_repository()
    words = [*REQUIRED["tpu_queued.sh"], "--restart-delay=0", *arguments]
    status, _, errors = sandbox.run("tpu_queued.sh", *words, **environment)
    done = [line.split()[2] for line in sandbox.lines("gcloud") if "queued-resources" in line]
    return status, errors, [verb for verb in done if verb != "describe"]


def test_a_preempted_slice_is_asked_for_again_and_the_run_goes_on(sandbox: Sandbox) -> None:
    status, errors, done = queued(
        sandbox,
        BEHAVIOUR="255 0",
        REQUEST_STATES="WAITING_FOR_RESOURCES PROVISIONING ACTIVE SUSPENDED ACTIVE",
        SLICE_STATES="READY PREEMPTED READY",
    )
    assert status == 0, errors
    assert done == ["create", "delete", "create", "delete", "create", "delete"]
    assert len(sandbox.lines("python")) == 2
    assert "asking for another, 2 of 20" in errors


def test_requests_are_bounded(sandbox: Sandbox) -> None:
    status, errors, done = queued(sandbox, "--max-requests=2", REQUEST_STATES="FAILED")
    assert status == PREEMPTED
    assert done == ["create", "delete"] * 2
    assert "repeat this command to go on" in errors


@pytest.mark.parametrize(
    ("arguments", "status", "done"),
    [
        ([], 2, ["create", "delete"]),
        (["--keep"], 0, ["create"]),
    ],
)
def test_a_slice_is_given_back_unless_it_is_to_be_kept(
    sandbox: Sandbox, arguments: list[str], status: int, done: list[str]
) -> None:
    found, _, verbs = queued(sandbox, *arguments, BEHAVIOUR=str(status))
    assert (found, verbs) == (status, done)


def test_a_request_that_is_still_there_is_gone_on_with(sandbox: Sandbox) -> None:
    (sandbox.directory / "request").touch()
    assert queued(sandbox)[2] == ["delete"]


def test_a_stopped_queue_leaves_the_slice_and_says_how_to_end_it(sandbox: Sandbox) -> None:
    sandbox.make_repository()
    words = [*REQUIRED["tpu_queued.sh"], "--restart-delay=0"]
    process = sandbox.start("tpu_queued.sh", *words, BEHAVIOUR="wait 0")
    sandbox.await_line("waiting")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == PREEMPTED
    assert sandbox.lines("saved") == ["saved"]
    assert "queued-resources delete slice" in errors
    assert (sandbox.directory / "request").exists()


def test_an_unknown_type_of_slice_needs_its_image_named(sandbox: Sandbox) -> None:
    status, errors, _ = queued(sandbox, "--accelerator-type", "v9-8")
    assert status == BAD_USAGE
    assert "write --runtime-version" in errors
