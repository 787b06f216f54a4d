"""What threads of libraries print behind a failure that is told in one sentence."""

from __future__ import annotations

import sys
from typing import Any


def keep_quiet() -> None:
    """From here on nobody prints that an event loop was closed before an answer came for it.

    Where a checkpoint cannot be written Orbax closes the loop in which it waits for TensorStore,
    whose threads then find it closed, each with a stack.
    """
    show = sys.unraisablehook

    def hook(problem: Any) -> None:
        error = problem.exc_value
        if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            show(problem)

    sys.unraisablehook = hook
