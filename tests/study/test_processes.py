"""Cells side by side in processes, which here do next to nothing."""

import os
import sys

import pytest

from avit_jax.study import processes
from avit_jax.study.processes import last_words, side_by_side

SCRIPT = """
import json, os, signal, sys, time
task = json.load(sys.stdin)
print(task["cell"]["name"], os.environ.get("PLACE"))
if task["say"] == "die": os.kill(os.getpid(), signal.SIGKILL)
if task["say"] == "wait":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    print(os.getpid(), file=open(task["workdir"] + "/ready", "w"), flush=True)
    time.sleep(60)
sys.exit(task["say"])
"""


@pytest.fixture(autouse=True)
def small_processes(monkeypatch):
    monkeypatch.setattr(processes, "COMMAND", (sys.executable, "-S", "-c", SCRIPT))
    monkeypatch.setattr(processes, "_LOOK", 0.01)


def task(folder, name: str, say: int | str) -> dict:
    return {"workdir": str(folder / name), "cell": {"name": name}, "say": say}


def test_all_are_worked_on_whatever_becomes_of_others(tmp_path):
    tasks = [task(tmp_path, *one) for one in (("a", 0), ("b", "die"), ("c", 2), ("d", 0))]
    ended = list(side_by_side(tasks, [{"PLACE": "0"}, {"PLACE": "1"}], lambda: False))
    assert {one.name: one.status for one in ended} == {"a": 0, "b": -9, "c": 2, "d": 0}
    assert {last_words(one.log) for one in ended if one.name in "ab"} == {"a 0", "b 1"}


def test_what_runs_is_asked_to_end_and_nothing_more_begins(tmp_path):
    tasks = [task(tmp_path, name, "wait") for name in "abc"]

    def stop() -> bool:
        return all((tmp_path / name / "ready").exists() for name in "ab")

    ended = list(side_by_side(tasks, [{}, {}], stop))
    assert sorted(one.name for one in ended) == ["a", "b"]
    assert {one.status for one in ended} == {75}
    assert not (tmp_path / "c").exists()


def test_nobody_is_left_behind_by_an_error(tmp_path):
    ready = tmp_path / "a" / "ready"

    def stop() -> bool:
        if ready.exists() and ready.read_text():
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        list(side_by_side([task(tmp_path, "a", "wait")], [{}], stop))
    with pytest.raises(ProcessLookupError):
        os.kill(int(ready.read_text()), 0)


def test_a_silent_process_is_said_to_be_so(tmp_path):
    assert last_words(tmp_path / "nowhere") == "it printed nothing"
