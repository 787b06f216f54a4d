"""Ctrl-C is one line, whatever a command is doing."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from avit_jax import errors
from avit_jax.runtime import interrupts

LINE = "avit_jax: interrupted; what was saved is safe.\n"
# Only this module is loaded: its package would take seconds. Whoever runs the tests in the
# background of a shell may have Ctrl-C ignored.
HEAD = f"""
import importlib.util, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
spec = importlib.util.spec_from_file_location("interrupts", {interrupts.__file__!r})
interrupts = importlib.util.module_from_spec(spec)
spec.loader.exec_module(interrupts)
interrupts.end_at_once()
"""


def run(program: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", HEAD + program], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("words", "is_one"),
    [
        (["python", "-m", "avit_jax.main", "--mode", "eval"], True),
        (["python", "-m", "avit_jax.study"], True),
        (["/usr/bin/python", "/usr/bin/avit-jax"], True),
        (["python", "-m", "pytest", "tests"], False),
        (["python", "script.py", "-m"], False),
        (["python"], False),
    ],
)
def test_commands_of_this_package_are_known_by_their_words(words, is_one):
    assert interrupts.is_command(words) is is_one


def test_while_libraries_load_it_ends_at_once():
    ended = run("signal.raise_signal(signal.SIGINT); print('no')")
    assert (ended.returncode, ended.stdout, ended.stderr) == (errors.EXIT_INTERRUPTED, "", LINE)


def test_later_it_rises_to_whoever_knows_what_to_save():
    ended = run(
        "interrupts.raise_from_now_on()\n"
        "try:\n    signal.raise_signal(signal.SIGINT)\n"
        "except KeyboardInterrupt:\n    print('saved')"
    )
    assert (ended.returncode, ended.stdout) == (0, "saved\n")


def test_where_it_is_swallowed_the_process_ends_all_the_same():
    ended = run(
        "interrupts.raise_from_now_on()\n"
        "class Library:\n    def __del__(self):\n        signal.raise_signal(signal.SIGINT)\n"
        "Library()\nprint('no')"
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (errors.EXIT_INTERRUPTED, "", LINE)


def test_where_it_is_ignored_it_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        interrupts.end_at_once()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_its_status_is_that_of_the_package():
    assert interrupts.EXIT_INTERRUPTED == errors.EXIT_INTERRUPTED
    assert Path(interrupts.__file__).read_text().count("import avit_jax") == 0
