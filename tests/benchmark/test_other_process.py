"""Processes beside the benchmark's own: what is asked arrives, and so do answers and errors."""

import os
import threading

import pytest

from avit_jax.benchmark import other_process
from avit_jax.benchmark.other_process import OtherProcess, OtherProcesses
from avit_jax.benchmark.worker import serve
from avit_jax.errors import UserError
from avit_jax.runtime.paired_timing import SelfTimed, race


class Told:
    """A worker without programs, and an end of the benchmark."""

    def __init__(self):
        self.calls = []

    def call(self, name):
        self.calls.append(name)
        return SelfTimed(len(self.calls), 2.0)

    def refuse(self):
        raise UserError("no room here.")

    def break_down(self):
        class Local(Exception):
            pass

        raise Local("cannot travel")


@pytest.fixture
def told(monkeypatch):
    """A worker in a thread, at the other end of the same pipes that a process would have."""
    worker, threads = Told(), []

    class Thread:
        def __init__(self, command, *, stdin, stdout, env):
            self.env = env
            requests, self.stdin = (os.fdopen(end, mode) for end, mode in _pipe())
            self.stdout, replies = (os.fdopen(end, mode) for end, mode in _pipe())
            self.thread = threading.Thread(target=self.work, args=(requests, replies))
            self.thread.start()
            threads.append(self.thread)

        def work(self, requests, replies):
            with requests, replies:
                serve(worker, requests, replies)

        def wait(self):
            self.thread.join(10)
            return -9

    def _pipe():
        reading, writing = os.pipe()
        return (reading, "rb"), (writing, "wb")

    monkeypatch.setattr(other_process.subprocess, "Popen", Thread)
    yield worker
    assert threads and not any(thread.is_alive() for thread in threads)


def test_turns_are_timed_where_the_work_is_done(told):
    process = OtherProcess()
    contenders = {"here": lambda: None, "there": lambda: process.ask("call", "compact")}
    times = race(contenders, turns=3)
    assert times["there"].wall == [3, 4, 5] and times["there"].cpu == [2.0] * 3
    assert max(times["here"].wall) < 1
    assert told.calls == ["compact"] * 5
    process.close()


def test_errors_of_a_worker_are_raised_here_and_it_goes_on(told):
    process = OtherProcess()
    with pytest.raises(UserError, match=r"^no room here\.$"):
        process.ask("refuse")
    with pytest.raises(RuntimeError, match="cannot travel"):
        process.ask("break_down")
    assert process.ask("call", "x") == SelfTimed(1, 2.0)
    process.close()


def test_a_worker_that_the_system_has_ended_is_one_sentence(told):
    process = OtherProcess()
    process._process.stdin.close()  # its input ends, and so does it
    process._process.wait()
    process._process.stdin = open(os.devnull, "wb")
    with pytest.raises(UserError, match=r"status -9 .*JAX_NUM_CPU_DEVICES=1\.$"):
        process.ask("call", "x")
    process.close()


def test_every_number_of_devices_and_every_peer_has_one_process(told, monkeypatch):
    monkeypatch.setattr(
        Told, "programs", lambda *given: (["dense of 4"], ["static"]), raising=False
    )
    monkeypatch.setattr(Told, "peer", lambda *given: None, raising=False)
    with OtherProcesses() as others:
        for devices in (4, 4, 8):
            made = others.programs(devices, None, None, None)
        assert list(made.contenders) == ["dense of 4"] and made.left_out == ["static"]
        others.peer("openvino", None, None, 1)
        found = {key: one._process.env for key, one in others._running.items()}
    assert list(found) == [4, 8, "openvino"]
    assert [found[n]["JAX_NUM_CPU_DEVICES"] for n in (4, 8)] == ["4", "8"]
    assert found["openvino"] == os.environ | {"JAX_PLATFORMS": "cpu"}
