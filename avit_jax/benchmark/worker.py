"""A process of the benchmark that keeps what it has compiled, and times one call when it is told.

`python -m avit_jax.benchmark.worker` reads requests from its standard input and writes replies to
its standard output, pickled; it ends with its input. Only `other_process.py` starts it.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from typing import Any, BinaryIO

import jax
import numpy as np

from avit_jax.benchmark import contenders
from avit_jax.benchmark.answers import Answers
from avit_jax.benchmark.cases import Case
from avit_jax.benchmark.programs import Programs
from avit_jax.config.inference import Benchmark
from avit_jax.execution.plan import Plan
from avit_jax.models.vit import ViTShape
from avit_jax.runtime import environment
from avit_jax.runtime.compilation_cache import use_compilation_cache
from avit_jax.runtime.paired_timing import SelfTimed


class Worker:
    """What may be asked for: each method is a request."""

    def __init__(self):
        self._programs: Programs | None = None
        self._contenders: contenders.Contenders = {}

    def programs(self, case: Case, plan: Plan, chosen: Benchmark) -> tuple[list[str], list[str]]:
        """Compile a case's programs in place of those before; names of them and of what is full."""
        self._programs, self._contenders = None, {}
        self._programs = Programs(case, plan, chosen)
        self._contenders = self._programs.contenders
        return list(self._contenders), self._programs.left_out

    def peer(self, kind: str, shape: ViTShape, images: np.ndarray, calls: int) -> None:
        """Make a peer's network in place of the one before."""
        self._contenders = {}
        self._contenders = {kind: contenders.peer_on_cpu(kind, shape, images, calls)}

    def call(self, name: str) -> SelfTimed:
        """Do a contender's work once."""
        cpu, wall = time.process_time(), time.perf_counter()
        jax.block_until_ready(self._contenders[name]())
        return SelfTimed(time.perf_counter() - wall, time.process_time() - cpu)

    def figures(self, name: str, masked: Answers) -> dict[str, Any]:
        """See `Programs.figures`."""
        assert self._programs is not None
        return self._programs.figures(name, masked)


def serve(worker: Worker, requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer requests `(method, arguments)` with `(result, None)` or `(None, error)` to the end."""
    while True:
        try:
            method, arguments = pickle.load(requests)
        except EOFError:
            return
        try:
            reply = getattr(worker, method)(*arguments), None
        except Exception as error:
            reply = None, error
        replies.write(_pickled(reply))
        replies.flush()


def _pickled(reply: tuple[Any, Exception | None]) -> bytes:
    """A reply; errors of libraries that cannot travel become their text."""
    try:
        data = pickle.dumps(reply)
        pickle.loads(data)
    except Exception:
        return pickle.dumps((None, RuntimeError(repr(reply[1] or reply[0]))))
    return data


def main() -> None:
    """Serve the process that has started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which then closes the pipe
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no reply
    environment.use_own_dtypes()
    use_compilation_cache()
    serve(Worker(), sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
