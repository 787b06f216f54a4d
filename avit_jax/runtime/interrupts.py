"""Ctrl-C as one line, at any moment; only the standard library, for it is imported before all else.

While a command loads its libraries, for some seconds, it has nothing to lose and ends at once. From
then on a KeyboardInterrupt rises to whoever knows what to save.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

LINE = b"avit_jax: interrupted; what was saved is safe.\n"
EXIT_INTERRUPTED = 130  # as in `errors.py`, which would be importing the package


def is_command(words: list[str]) -> bool:
    """Whether a process, by the words it was started with, is one of this package's commands."""
    name = os.path.basename(words[1]) if len(words) > 1 else ""
    module = words[words.index("-m") + 1 :][:1] if "-m" in words else []
    return name == "avit-jax" or any(word.startswith("avit_jax.") for word in module)


def end_at_once() -> None:
    """From here on Ctrl-C ends this process at once, unless it is ignored as under nohup."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def raise_from_now_on() -> None:
    """From here on Ctrl-C raises KeyboardInterrupt, and ends even where a library swallows that."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, stop_now)

    def swallowed(problem: Any) -> None:
        if isinstance(problem.exc_value, KeyboardInterrupt):
            _end()
        sys.__unraisablehook__(problem)

    sys.unraisablehook = swallowed


def stop_now(number: int, frame: Any) -> None:
    """Raises KeyboardInterrupt; the process ends even where what tidies up behind that hangs.

    A checkpoint that takes longer than `last_word.GRACE_SECONDS` to be finished is given up.
    """
    from avit_jax.runtime import last_word  # late: this module stands before all imports

    last_word.spoken(EXIT_INTERRUPTED)
    raise KeyboardInterrupt


def _end(number: int = signal.SIGINT, frame: Any = None) -> None:
    os.write(2, LINE)
    os._exit(EXIT_INTERRUPTED)
