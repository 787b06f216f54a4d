"""The processes of one run watch over each other, so that none waits for one that has gone.

JAX's collectives wait for ever for a process that has ended or stands still, and JAX itself notes
it after minutes and aborts with a dump of the stack. Here process 0 has a connection to each of the
others (`rendezvous.py`). A process that ends says why; the connection of one that was killed closes
by itself; and one that says nothing for `SILENCE_SECONDS` stands still. Then all end, each with the
sentence. What was saved is safe: the same command goes on from it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from avit_jax.errors import EXIT_PREEMPTED
from avit_jax.runtime.message_line import Line

BEAT_SECONDS = 2.0
SILENCE_SECONDS = 20.0
GRACE_SECONDS = 2.0  # for a process to say itself what others have told it already
GO_ON = "start the same command in all of them again to go on from the last checkpoint"


class Companions:
    """The other processes of this run, as this one sees them: process 0 all, the others it alone.

    Args:
        lines: connections by the numbers of processes.
        number: of this process.
        beat_seconds: between two signs of life.
        silence_seconds: after which a process counts as standing still.
    """

    def __init__(
        self,
        lines: Mapping[int, Line],
        *,
        number: int,
        beat_seconds: float = BEAT_SECONDS,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        self._lines, self.number = dict(lines), number
        self._beat_seconds = beat_seconds
        # Beats are counted, not timed: neither a clock that is put forward nor this process's own
        # standstill makes another one silent.
        self._most_missed = round(silence_seconds / beat_seconds)
        self._is_ending, self._speaking = threading.Event(), threading.Lock()

    def watch(self) -> None:
        """Begins to watch, in threads that end with the process."""
        for number, line in self._lines.items():
            line.connection.settimeout(self._beat_seconds)
            self._start(self._listen_to, number, line)
        self._start(self._beat)

    def leave(self) -> None:
        """Says that this process has done all its work."""
        self._tell({"done": self.number})

    def end(self, sentence: str, status: int, *, is_said: bool = False) -> NoReturn:
        """Ends all processes of the run with a sentence, this one at once.

        Args:
            sentence: what happened.
            status: of all of them, as they exit.
            is_said: whether this process has written it already.
        """
        self._is_ending.set()
        self._tell({"end": f"process {self.number}: {sentence}", "status": status})
        self._exit("" if is_said else sentence, status)

    def leave_word_to_others(self) -> None:
        """Returns where no other process is at fault, else not at all.

        A collective fails where another process was killed; what this one has to say of that is
        known here a little later, and better than the library's error.
        """
        if self._is_ending.wait(GRACE_SECONDS):
            threading.Event().wait()  # a thread that listens is ending this process

    def _start(self, work: Any, *args: Any) -> None:
        threading.Thread(target=work, args=args, name="companions", daemon=True).start()

    def _beat(self) -> None:
        while True:
            self._tell({"alive": self.number})
            time.sleep(self._beat_seconds)

    def _listen_to(self, number: int, line: Line) -> None:
        missed, is_done = 0, False
        while True:
            try:
                messages = line.read()
            except TimeoutError:
                missed += 1
                if missed > self._most_missed and not is_done:
                    seconds = self._most_missed * self._beat_seconds
                    self._fall(
                        f"process {number} has not been heard of for {seconds:g} s; {GO_ON}."
                    )
                continue
            if messages is None:
                if not is_done:
                    self._fall(f"process {number} has ended without a word; {GO_ON}.")
                return
            missed = 0
            for message in messages:
                is_done = is_done or "done" in message
                if "end" in message:
                    self._fall(message["end"], message["status"])

    def _fall(self, sentence: str, status: int = EXIT_PREEMPTED) -> None:
        """Ends this process because of another one."""
        # It may be about to end by itself: all find the same fault in what they share.
        if self._is_ending.wait(GRACE_SECONDS):
            return
        self._is_ending.set()
        if self.number == 0:
            self._tell({"end": sentence, "status": status})
        self._exit(sentence, status)

    def _exit(self, sentence: str, status: int) -> NoReturn:
        """Ends at once: a collective that waits for another process cannot be left otherwise."""
        self._speaking.acquire()  # several threads may come here; the first one ends the process
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"\navit_jax: {sentence}\n" if sentence else "")
            sys.stderr.flush()
        os._exit(status)

    def _tell(self, message: Mapping[str, Any]) -> None:
        for line in self._lines.values():
            line.send(message)
