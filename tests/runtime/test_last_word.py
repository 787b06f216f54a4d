"""A process ends, though threads of it never do."""

import contextlib
import subprocess
import sys

import pytest

from avit_jax.runtime import last_word

HANGING = """
import sys, threading
from avit_jax.runtime import last_word
threading.Thread(target=threading.Event().wait).start()  # which Python waits for at its end
last_word.spoken(75, grace_seconds=0.2)
print("said", end="")
sys.exit(75)
"""


def test_it_ends_with_its_status_and_all_that_it_said():
    command = [sys.executable, "-c", HANGING]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (75, "said")
    assert ended.stderr == "warning: ended without what still hangs\n"


def test_one_that_ends_by_itself_is_not_held_up():
    command = [sys.executable, "-c", HANGING.replace("threading.Event().wait", "print")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 75


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (None, 0),
        (SystemExit(None), 0),
        (SystemExit(75), 75),
        (SystemExit("what happened"), 1),
        (RuntimeError(), 1),
    ],
)
def test_whatever_ends_a_process_is_its_last_word(raised, status, monkeypatch):
    said = []
    monkeypatch.setattr(last_word, "spoken", said.append)
    for is_alone in (True, False):
        expected = contextlib.nullcontext() if raised is None else pytest.raises(type(raised))
        with expected, last_word.last_of(lambda is_alone=is_alone: is_alone):
            if raised is not None:
                raise raised
    assert said == [status]
