"""The Slurm script: who is told of the end of an allocation, and who puts the job back."""

import signal

import pytest

from tests.launch.sandbox import BAD_USAGE, PATIENCE, PREEMPTED, Sandbox


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
