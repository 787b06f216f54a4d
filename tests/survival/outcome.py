"""What became of a fault: ended identical, one sentence, said so; or what was wrong."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from avit_jax.errors import EXIT_PREEMPTED, EXIT_USAGE
from tests.survival.fault import FAILED, IDENTICAL, ONE_SENTENCE, SAID, Outcome
from tests.survival.process import Ended

LONGEST = 600  # characters of a sentence
# Not the user's business: internals that leak where an error was not thought of.
LEAKS = ("Traceback", "Exception ignored", "Fatal Python error", "core dumped", "terminate called")


def judge(
    ended: Ended,
    *,
    identical: Callable[[], bool] = lambda: False,
    says: str = "",
    kept: Callable[[], str | None] = lambda: None,
) -> Outcome:
    """What a command came to after a fault.

    Args:
        ended: the command.
        identical: whether what it left is what the undisturbed command leaves; asked where it
            ended with status 0.
        says: pattern of what has to be said where it did not end identical.
        kept: what has been lost of what was there before, if anything; asked in any case.
    """
    text = ended.err + ended.out
    said = [line for line in ended.err.splitlines() if line.startswith("avit_jax: ")]
    wrong = next((f"printed {leak!r}" for leak in LEAKS if leak in text), None)
    if ended.status is None:
        wrong = "did not end"
    elif wrong is None and ended.status == 0:
        if identical():
            wrong = kept()
            if wrong is None:
                return Outcome(IDENTICAL, _last_warning(ended.err))
        elif says and re.search(says, text):
            wrong = kept()
            if wrong is None:
                return Outcome(SAID, _last_warning(ended.err))
        else:
            wrong = f"status 0, not as undisturbed, and nothing said like {says!r}"
    elif wrong is None and ended.status in (EXIT_USAGE, EXIT_PREEMPTED):
        if ended.status == EXIT_USAGE and len(said) != 1:
            wrong = f"{len(said)} sentences"
        elif said and len(said[0]) > LONGEST:
            wrong = f"a sentence of {len(said[0])} characters"
        elif not re.search(says, text):
            wrong = f"no word of {says!r}"
        else:
            wrong = kept()
        if wrong is None:
            return Outcome(ONE_SENTENCE, said[0] if said else _last_warning(ended.err))
    elif wrong is None:
        wrong = f"status {ended.status}"
    tail = " | ".join(ended.err.strip().splitlines()[-6:])
    return Outcome(FAILED, f"{wrong}: status {ended.status}: {tail[-900:]}")


def both(*outcomes: Outcome) -> Outcome:
    """Of several commands in a row: the first that failed, or the last."""
    return next((one for one in outcomes if not one.holds), outcomes[-1])


def contents(folder: Path, *, of: str = "*") -> dict[str, str]:
    """SHA-256 of each file below a folder -> its path there."""
    found = {}
    for file in sorted(folder.rglob(of)) if folder.is_dir() else ():
        if file.is_file() and not file.is_symlink():
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            found[content] = str(file.relative_to(folder))
    return found


def nothing_lost(folder: Path, *, of: str = "*") -> Callable[[], str | None]:
    """For `judge`: whether all that is in a folder now is there later, if perhaps moved aside."""
    before = contents(folder, of=of)

    def lost() -> str | None:
        after = contents(folder, of="*")
        gone = [name for content, name in before.items() if content not in after]
        return f"lost {', '.join(gone[:3])} of {len(gone)}" if gone else None

    return lost


def _last_warning(err: str) -> str:
    lines = [line for line in err.splitlines() if line.startswith(("warning: ", "avit_jax: "))]
    return lines[-1] if lines else ""
