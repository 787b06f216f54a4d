"""What all launch scripts have in common: arguments, restarts and signals."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.sandbox import (
    BAD_USAGE,
    CONFIG,
    PATIENCE,
    PREEMPTED,
    REQUIRED,
    ROOT,
    STAND_INS,
    SUPERVISING,
    Sandbox,
)

SCRIPTS = sorted(REQUIRED)


@pytest.mark.parametrize("script", SUPERVISING)
def test_dry_run_prints_a_command_that_can_be_typed_and_runs_nothing(
    sandbox: Sandbox, script: str
) -> None:
    status, output, _ = sandbox.run(
        script, *REQUIRED[script], "--dry-run", "--", "--config.name", "it's a"
    )
    words = shlex.split(output.splitlines()[-1])
    if script == "tpu_vm.sh":
        assert "--worker=all" in words
        words = shlex.split(words[-1].removeprefix("--command="))
    assert status == 0
    assert "avit_jax.main" in words and CONFIG in words
    assert "it's a" in [word.rstrip(";") for word in words]
    assert sandbox.record.read_text() == ""


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_names_every_option(sandbox: Sandbox, script: str) -> None:
    status, output, _ = sandbox.run(script, "--help")
    source = (ROOT / "launch" / script).read_text()
    options = re.search(r"^options=\(([^)]*)\)", source, flags=re.MULTILINE)[1].split()
    assert status == 0
    assert {"config", "workdir"} <= set(options)
    assert [name for name in [*options, "dry-run"] if f"  --{name} " not in output] == []


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["--config", "configs/nowhere.py:debug"], "configs/nowhere.py"),
        (["--config="], "--config"),
        (["--devices", "8"], "--devices"),
        (["stray"], "stray"),
        (["--workdir"], "--workdir"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_argument_ends_with_one_sentence_and_status_2(
    sandbox: Sandbox, script: str, change: list[str], named: str
) -> None:
    refuses(sandbox, script, change, named)


@pytest.mark.parametrize("script", [*SUPERVISING, "tpu_queued.sh"])
@pytest.mark.parametrize(
    ("change", "named"), [(["--max-restarts", "many"], "many"), (["--restart-delay=-1"], "-1")]
)
def test_a_wrong_number_ends_with_one_sentence_and_status_2(
    sandbox: Sandbox, script: str, change: list[str], named: str
) -> None:
    refuses(sandbox, script, change, named)


@pytest.mark.parametrize("script", ["tpu_vm.sh", "tpu_queued.sh", "gke_xpk.sh", "sky.sh"])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["--workdir="], "--workdir"),
        (["--workdir", "runs/here"], "runs/here"),
        (["--config", "/configs/example.py"], "/configs/example.py"),
    ],
)
def test_other_machines_need_places_that_they_have_too(
    sandbox: Sandbox, script: str, change: list[str], named: str
) -> None:
    refuses(sandbox, script, change, named)


def refuses(sandbox: Sandbox, script: str, change: list[str], named: str) -> None:
    status, output, errors = sandbox.run(script, *REQUIRED[script], *change)
    assert status == BAD_USAGE
    assert output == ""
    assert len(errors.splitlines()) == 1
    assert named in errors and "write " in errors
    assert sandbox.record.read_text() == ""


@pytest.mark.parametrize("script", SUPERVISING)
def test_flags_after_two_dashes_reach_the_program_unchanged(sandbox: Sandbox, script: str) -> None:
    status, _, _ = sandbox.launch(script, "--workdir", "/mnt/a b", "--", "--mode", "eval $x 'y'")
    assert status == 0
    assert sandbox.lines("python") == [
        f"python <-m> <avit_jax.main> <--config> <{CONFIG}> <--workdir> </mnt/a b>"
        " <--mode> <eval $x 'y'>"
    ]


@pytest.mark.parametrize("script", SUPERVISING)
def test_a_crash_is_restarted_with_the_same_command_until_it_ends_well(
    sandbox: Sandbox, script: str
) -> None:
    status, _, errors = sandbox.launch(script, BEHAVIOUR="1 139 0")
    calls = sandbox.lines("python")
    assert status == 0
    assert len(calls) == 3 and len(set(calls)) == 1
    assert "restart 1 of 3" in errors and "restart 2 of 3" in errors


@pytest.mark.parametrize("script", ["local.sh", "tpu_vm.sh"])
def test_a_run_that_was_preempted_is_started_again(sandbox: Sandbox, script: str) -> None:
    status, _, _ = sandbox.launch(script, BEHAVIOUR="75 0")
    assert status == 0
    assert len(sandbox.lines("python")) == 2


@pytest.mark.parametrize("script", SUPERVISING)
def test_restarts_are_bounded_and_the_last_status_is_handed_on(
    sandbox: Sandbox, script: str
) -> None:
    status, _, errors = sandbox.launch(script, "--max-restarts", "1", BEHAVIOUR="1 3 0")
    assert status == 3
    assert len(sandbox.lines("python")) == 2
    assert "--max-restarts" in errors


@pytest.mark.parametrize("script", SUPERVISING)
def test_a_refused_config_is_not_tried_again(sandbox: Sandbox, script: str) -> None:
    status, _, _ = sandbox.launch(script, BEHAVIOUR="2 0")
    assert status == BAD_USAGE
    assert len(sandbox.lines("python")) == 1


@pytest.mark.parametrize("script", ["local.sh", "tpu_vm.sh"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_lets_the_run_save_and_ends_without_a_restart(
    sandbox: Sandbox, script: str, number: signal.Signals
) -> None:
    process = sandbox.start(script, *sandbox.complete(script), BEHAVIOUR="wait 0")
    sandbox.await_line("waiting")
    process.send_signal(number)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == PREEMPTED
    assert sandbox.lines("saved") == ["saved"]
    assert len(sandbox.lines("python")) == 1


def test_a_signal_during_the_pause_before_a_restart_ends_at_once(sandbox: Sandbox) -> None:
    process = sandbox.start(
        "local.sh", "--config", CONFIG, "--restart-delay", "1000", BEHAVIOUR="7 0"
    )
    assert process.stderr is not None
    assert "restart 1 of 3" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 7
    assert len(sandbox.lines("python")) == 1


def test_local_names_an_interpreter_that_is_not_there(sandbox: Sandbox) -> None:
    status, _, errors = sandbox.launch("local.sh", "--python", "python-of-nowhere")
    assert status == BAD_USAGE
    assert "python-of-nowhere" in errors


@pytest.mark.parametrize("script", ["slurm.sbatch", "tpu_vm.sh"])
def test_what_the_program_refuses_is_said_once_and_before_anything_starts(
    sandbox: Sandbox, script: str
) -> None:
    status, _, errors = sandbox.launch(script, "--", "--x", REFUSES="x: leave it out.")
    assert status == BAD_USAGE
    assert errors.splitlines() == ["avit_jax: x: leave it out."]
    assert sandbox.lines("check") == [sandbox.lines("check")[0]]
    assert not sandbox.lines("python") and not sandbox.lines("gcloud")


@pytest.mark.parametrize("script", ["gke_xpk.sh", "sky.sh"])
def test_a_scheduler_is_asked_only_for_what_the_program_would_take(
    sandbox: Sandbox, script: str
) -> None:
    status, _, errors = sandbox.run(script, *REQUIRED[script], REFUSES="x: leave it out.")
    assert (status, errors) == (BAD_USAGE, "avit_jax: x: leave it out.\n")
    assert not sandbox.lines(script[4:7]) and not sandbox.lines("sky")
    status, _, _ = sandbox.run(script, *REQUIRED[script], "--", "--config.name", "it's a")
    called = sandbox.record.read_text().splitlines()[-1]
    assert status == 0
    assert f"--config {CONFIG} --workdir gs://bucket/a\\ b --config.name it\\'s\\ a" in called


def test_shellcheck_finds_nothing() -> None:
    beside_python = str(Path(sys.executable).parent)
    shellcheck = shutil.which("shellcheck", path=f"{beside_python}{os.pathsep}{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed; pip install -e '.[test]' brings it")
    launch = ROOT / "launch"
    scripts = [*launch.glob("*.sh"), *launch.glob("*.sbatch"), *STAND_INS.iterdir()]
    finished = subprocess.run(
        [shellcheck, "--external-sources", *map(str, [*scripts, ROOT / ".ci" / "run"])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout
