"""Parts of the work are contiguous and complete, and nobody waits for who could not begin."""

import signal

import jax
import numpy as np
import pytest

from avit_jax.errors import EXIT_INTERRUPTED, Preempted, UserError
from avit_jax.runtime import last_word, processes


@pytest.mark.parametrize(("total", "count"), [(10, 3), (3, 8), (1, 1), (0, 4)])
def test_the_parts_in_order_are_the_whole_and_about_equal(monkeypatch, total, count):
    monkeypatch.setattr(jax, "process_count", lambda: count)
    parts = []
    for index in range(count):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        parts.append(processes.share(total))
    assert [item for part in parts for item in part] == list(range(total))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_one_process_alone_gathers_its_own():
    np.testing.assert_array_equal(processes.gather(np.asarray([1, 2])), [[1, 2]])
    assert processes.in_all_or_none(lambda: "begun") == "begun"


def test_who_could_begin_hears_of_the_other_and_who_could_not_says_why(monkeypatch):
    def unable():
        raise UserError("no such folder")

    monkeypatch.setattr(processes, "gather", lambda failed: np.asarray([False, True]))
    with pytest.raises(UserError, match="process 1 could not begin: read its message"):
        processes.in_all_or_none(lambda: "begun")
    with pytest.raises(UserError, match="no such folder"):
        processes.in_all_or_none(unable)


def test_a_mode_for_one_process_refuses_several(monkeypatch):
    processes.refuse_several_processes("export")
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    with pytest.raises(UserError, match="--mode export runs in one process, but 4 were started"):
        processes.refuse_several_processes("export")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_hears_of_sigterm_and_of_ctrl_c_after_its_step(number, capfd, monkeypatch):
    said = []
    monkeypatch.setattr(last_word, "spoken", said.append)  # which would end the tests
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)}
    try:
        asked = processes.preemption_notice()
        assert not asked(1)
        signal.raise_signal(number)
        assert asked(1)
        if number == signal.SIGINT:
            assert capfd.readouterr().err.count("\n") == 1
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
            assert said == [EXIT_INTERRUPTED]
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def test_what_can_be_left_is_left_behind_the_item_in_hand_and_closed():
    closed = []

    def items():
        try:
            yield from range(9)
        finally:
            closed.append(True)

    seen = []
    with pytest.raises(Preempted, match="stopped in it"):
        for item in processes.interruptible(items(), lambda: len(seen) == 3, said="stopped in it"):
            seen.append(item)
    assert (seen, closed) == ([0, 1, 2], [True])
    assert list(processes.interruptible(items(), lambda: False, said="")) == list(range(9))
