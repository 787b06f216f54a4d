"""A copy of the launch scripts, run against stand-ins for Python, gcloud and Slurm."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STAND_INS = Path(__file__).parent / "stand_ins"
CONFIG = "configs/example.py"
TPU = ["--config", CONFIG, "--name", "slice", "--zone", "zone"]
STORE = ["--workdir", "gs://bucket/a b"]
REQUIRED = {
    "local.sh": ["--config", CONFIG],
    "slurm.sbatch": ["--config", CONFIG],
    "tpu_vm.sh": [*TPU, *STORE],
    "tpu_queued.sh": [*TPU, *STORE, "--accelerator-type", "v5litepod-256"],
    "gke_xpk.sh": [
        *("--config", CONFIG, *STORE, "--cluster", "cluster", "--workload", "run"),
        *("--tpu-type", "v5litepod-256"),
    ],
    "sky.sh": ["--config", CONFIG, *STORE, "--name", "run", "--accelerators", "H100:8"],
}
# Those that stay with the run and start it again; the others hand it over to a scheduler.
SUPERVISING = ("local.sh", "slurm.sbatch", "tpu_vm.sh")
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
        (directory / "worker").mkdir()
        self.environment = {
            "PATH": f"{STAND_INS}{os.pathsep}{os.defpath}",
            "HOME": str(directory),
            "WORKER_HOME": str(directory / "worker"),
            "TMPDIR": str(directory),
            "RECORD": str(self.record),
            "BEHAVIOUR": "",
            "JOB_STATE": "RUNNING",
            "SLICE_STATES": "READY",
            "REQUEST_STATES": "ACTIVE",
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

    def make_repository(self) -> None:
        """What is copied to workers is what git knows or would add."""
        subprocess.run(["git", "init", "--quiet", str(self.directory)], check=True)
        (self.directory / ".gitignore").write_text("record*\nworker/\nrequest\n*.tgz\n*.pid\n")

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
