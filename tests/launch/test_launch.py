"""The launch scripts, run against stand-ins for Python, gcloud and Slurm."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STAND_INS = Path(__file__).parent / "stand_ins"
CONFIG = "configs/example.py"
REQUIRED = {
    "local.sh": ["--config", CONFIG],
    "slurm.sbatch": ["--config", CONFIG],
    "tpu_vm.sh": ["--config", CONFIG, "--name", "slice", "--zone", "zone", "--workdir", "runs/a b"],
}
SCRIPTS = sorted(REQUIRED)
BAD_USAGE, PREEMPTED = 2, 75
PATIENCE = 30  # seconds until a process that should have answered is given up


@contextlib.contextmanager
def heeding_signals() -> Iterator[None]:
    """A shell cannot trap what it was started to ignore, as under nohup or in the background."""
    numbers = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Sandbox:
    """A copy of the launch scripts beside one config, with stand-ins first on the path."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.record = directory / "record"
        self.record.touch()
        shutil.copytree(ROOT / "launch", directory / "launch")
        (directory / "configs").mkdir()
        (directory / CONFIG).touch()
        self.environment = {
            "PATH": f"{STAND_INS}{os.pathsep}{os.defpath}",
            "HOME": str(directory),
            "TMPDIR": str(directory),
            "RECORD": str(self.record),
            "BEHAVIOUR": "",
            "JOB_STATE": "RUNNING",
            "SLICE_STATES": "READY",
            "SLURM_JOB_ID": "17",
        }
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        with heeding_signals():
            process = subprocess.Popen(
                ["bash", f"launch/{script}", *arguments],
                cwd=self.directory,
                env=self.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def run(self, script: str, *arguments: str, **environment: str) -> tuple[int, str, str]:
        process = self.start(script, *arguments, **environment)
        output, errors = process.communicate(timeout=PATIENCE)
        return process.returncode, output, errors

    def launch(self, script: str, *arguments: str, **environment: str) -> tuple[int, str, str]:
        """Runs a script with the arguments that it needs and no pauses."""
        return self.run(script, *self.complete(script), *arguments, **environment)

    def complete(self, script: str) -> list[str]:
        here = ["--directory", str(self.directory), "--python", "python"]
        return [*REQUIRED[script], "--restart-delay=0", *(here if script == "tpu_vm.sh" else [])]

    def lines(self, first_word: str) -> list[str]:
        recorded = self.record.read_text().splitlines()
        return [line for line in recorded if line.split()[0] == first_word]

    def await_line(self, first_word: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self.lines(first_word):
            assert time.monotonic() < deadline, f"no line {first_word} in {self.record.read_text()}"
            time.sleep(0.02)

    def close(self) -> None:
        for process in self.processes:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.communicate()


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    box = Sandbox(tmp_path)
    yield box
    box.close()


@pytest.mark.parametrize("script", SCRIPTS)
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
    options = re.findall(r"(--[a-z-]+)\) \w+=\$2", source)
    assert status == 0
    assert {"--config", "--workdir", "--max-restarts"} <= set(options)
    assert [option for option in [*options, "--dry-run"] if f"  {option} " not in output] == []


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["--config", "configs/nowhere.py:debug"], "configs/nowhere.py"),
        (["--config="], "--config"),
        (["--devices", "8"], "--devices"),
        (["stray"], "stray"),
        (["--max-restarts", "many"], "many"),
        (["--restart-delay=-1"], "-1"),
        (["--workdir"], "--workdir"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_argument_ends_with_one_sentence_and_status_2(
    sandbox: Sandbox, script: str, change: list[str], named: str
) -> None:
    status, output, errors = sandbox.launch(script, *change)
    assert status == BAD_USAGE
    assert output == ""
    assert len(errors.splitlines()) == 1
    assert named in errors and "write " in errors
    assert sandbox.record.read_text() == ""


@pytest.mark.parametrize("option", ["--name", "--zone", "--workdir"])
def test_tpu_vm_asks_for_what_it_cannot_guess(sandbox: Sandbox, option: str) -> None:
    status, _, errors = sandbox.launch("tpu_vm.sh", f"{option}=")
    assert status == BAD_USAGE
    assert f"write {option}" in errors


def test_tpu_vm_refuses_a_config_path_that_only_this_machine_has(sandbox: Sandbox) -> None:
    status, _, errors = sandbox.launch("tpu_vm.sh", "--config", str(sandbox.directory / CONFIG))
    assert status == BAD_USAGE
    assert "absolute" in errors


@pytest.mark.parametrize("script", SCRIPTS)
def test_flags_after_two_dashes_reach_the_program_unchanged(sandbox: Sandbox, script: str) -> None:
    status, _, _ = sandbox.launch(script, "--workdir", "runs/a b", "--", "--mode", "eval $x 'y'")
    assert status == 0
    assert sandbox.lines("python") == [
        f"python <-m> <avit_jax.main> <--config> <{CONFIG}> <--workdir> <runs/a b>"
        " <--mode> <eval $x 'y'>"
    ]


@pytest.mark.parametrize("script", SCRIPTS)
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


@pytest.mark.parametrize("script", SCRIPTS)
def test_restarts_are_bounded_and_the_last_status_is_handed_on(
    sandbox: Sandbox, script: str
) -> None:
    status, _, errors = sandbox.launch(script, "--max-restarts", "1", BEHAVIOUR="1 3 0")
    assert status == 3
    assert len(sandbox.lines("python")) == 2
    assert "--max-restarts" in errors


@pytest.mark.parametrize("script", SCRIPTS)
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


def test_slurm_passes_the_warning_to_the_tasks_and_puts_the_job_back(sandbox: Sandbox) -> None:
    process = sandbox.start("slurm.sbatch", *sandbox.complete("slurm.sbatch"), BEHAVIOUR="wait")
    sandbox.await_line("waiting")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert sandbox.lines("scancel") == ["scancel --signal=TERM 17"]
    assert sandbox.lines("saved") == ["saved"]
    assert sandbox.lines("killed") == []
    assert sandbox.lines("scontrol")[-1] == "scontrol requeue 17"


def test_slurm_puts_the_job_back_when_slurm_itself_told_the_tasks_to_stop(
    sandbox: Sandbox,
) -> None:
    status, _, _ = sandbox.launch("slurm.sbatch", BEHAVIOUR="75 0")
    assert status == PREEMPTED
    assert len(sandbox.lines("python")) == 1
    assert sandbox.lines("scontrol")[-1] == "scontrol requeue 17"


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETING", "PREEMPTED"])
def test_slurm_leaves_a_job_that_is_being_cancelled(sandbox: Sandbox, state: str) -> None:
    sandbox.launch("slurm.sbatch", BEHAVIOUR="75", JOB_STATE=state)
    assert sandbox.lines("scontrol") == ["scontrol show job 17"]


def test_slurm_lets_every_task_save_before_any_is_killed(sandbox: Sandbox) -> None:
    sandbox.launch("slurm.sbatch", SLURM_CPUS_PER_TASK="6")
    (call,) = sandbox.lines("srun")
    assert "--kill-on-bad-exit=0" in call and "--cpus-per-task=6" in call


def test_slurm_outside_a_job_says_how_to_submit(sandbox: Sandbox) -> None:
    status, _, errors = sandbox.launch("slurm.sbatch", SLURM_JOB_ID="")
    assert status == BAD_USAGE
    assert "sbatch launch/slurm.sbatch" in errors


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


def test_shellcheck_finds_nothing() -> None:
    beside_python = str(Path(sys.executable).parent)
    shellcheck = shutil.which("shellcheck", path=f"{beside_python}{os.pathsep}{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed; pip install -e '.[test]' brings it")
    scripts = [*(ROOT / "launch").glob("*.s*"), *STAND_INS.iterdir(), ROOT / ".ci" / "run"]
    finished = subprocess.run(
        [shellcheck, *map(str, scripts)], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout
