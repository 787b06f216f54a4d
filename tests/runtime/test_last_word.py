"""A process ends, though threads of it never do."""

import subprocess
import sys

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
    assert (ended.returncode, ended.stdout, ended.stderr) == (75, "said", "")


def test_one_that_ends_by_itself_is_not_held_up():
    command = [sys.executable, "-c", HANGING.replace("threading.Event().wait", "print")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 75
