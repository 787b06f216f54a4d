"""Processes that watch over each other end with a sentence when one of them goes."""

import multiprocessing
import os
import socket
import sys
import time

import pytest

from avit_jax.errors import EXIT_PREEMPTED
from avit_jax.runtime import companions
from avit_jax.runtime.message_line import Line

SECONDS = 60  # until a process counts as hanging


def watch(connection: socket.socket, err: str, work: str) -> None:
    """In a process with one other: it watches, and does its work."""
    sys.stderr = open(err, "w")
    companions.GRACE_SECONDS = 0.1
    lines = {1: Line(connection)}
    others = companions.Companions(lines, number=0, beat_seconds=0.05, silence_seconds=0.2)
    others.watch()
    if work == "end":
        others.end("no more disk", 2)
    time.sleep(1.0 if work == "be done" else SECONDS)
    os._exit(0)


@pytest.fixture
def process(tmp_path):
    """Starts such a process; returns what waits for its end, and this end of its connection."""
    context, started, ours, err = multiprocessing.get_context("forkserver"), [], [], tmp_path / "e"
    context.set_forkserver_preload(["avit_jax.main", "avit_jax.training.loop"])  # as tests.commands

    def start(work: str = ""):
        here, there = socket.socketpair()
        ours.append(here)
        with there:
            one = context.Process(target=watch, args=(there, str(err), work))
            started.append(one)
            one.start()

        def ended() -> tuple[int, str]:
            one.join(SECONDS)
            return one.exitcode, err.read_text().strip()

        return ended, Line(here)

    yield start
    for one in started:
        one.kill()
        one.join()
    for one in ours:
        one.close()


def test_whoever_ends_without_a_word_ends_the_others(process):
    ended, line = process()
    assert line.read()  # it has begun
    line.close()
    status, err = ended()
    assert status == EXIT_PREEMPTED
    assert err.startswith("avit_jax: process 1 has ended without a word; start the same command")


def test_whoever_says_nothing_for_long_ends_the_others(process):
    ended, line = process()
    status, err = ended()
    assert status == EXIT_PREEMPTED
    assert "process 1 has not been heard of for 0.2 s" in err
    messages = []
    while (found := line.read()) is not None:
        messages += found
    assert "has not been heard of" in messages[-1]["end"], "the others are told"


def test_a_reason_is_handed_on_with_its_status(process):
    ended, line = process()
    line.send({"end": "process 1: no such folder", "status": 2})
    assert ended() == (2, "avit_jax: process 1: no such folder")


def test_who_has_done_its_work_may_go(process):
    ended, line = process("be done")
    line.send({"done": 1})
    line.close()
    assert ended() == (0, "")


def test_an_end_of_its_own_is_said_once_and_told(process):
    ended, line = process("end")
    assert ended() == (2, "avit_jax: no more disk")
    messages = []
    while (found := line.read()) is not None:
        messages += found
    assert messages[-1] == {"end": "process 0: no more disk", "status": 2}
