"""A loop that was closed before an answer came for it is not printed; all else is."""

import sys
from types import SimpleNamespace

from avit_jax.runtime import aftermath


def test_only_a_closed_loop_is_left_out(monkeypatch):
    shown = []
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    aftermath.keep_quiet()
    texts = ("Event loop is closed", "no more memory")
    problems = [SimpleNamespace(exc_value=RuntimeError(text)) for text in texts]
    for problem in problems:
        sys.unraisablehook(problem)
    assert shown == problems[1:]
