"""What a fault is, and what may become of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.survival.scene import Scene

IDENTICAL = "identical"  # ended as the undisturbed command, to the bit
ONE_SENTENCE = "one sentence"  # stopped with one, and nothing earlier was lost
SAID = "survived, said so"  # went on, and said what it lacks
FAILED = "failed"
SKIPPED = "skipped"  # this machine cannot inject it
VERDICTS = (IDENTICAL, ONE_SENTENCE, SAID, SKIPPED, FAILED)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a fault.

    Attributes:
        verdict: one of `VERDICTS`.
        seen: the sentence that was printed, or of a failure what was wrong.
    """

    verdict: str
    seen: str = ""

    @property
    def holds(self) -> bool:
        """Whether this may become of a fault."""
        return self.verdict != FAILED


@dataclasses.dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        kind: the group that it is counted in: "files", "disk", "second run".
        name: what is injected, and what runs then; one of its kind.
        run: injects it into copies of the scene's runs, and judges what it came to.
    """

    kind: str
    name: str
    run: Callable[[Scene], Outcome]


class NotHere(Exception):
    """This machine cannot inject the fault; the argument says why."""
