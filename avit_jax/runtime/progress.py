"""What a person sees while a model trains: a bar on a terminal, plain lines in a log file."""

from __future__ import annotations

import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TextIO

from tqdm import tqdm

# The rate shown is the median over so many intervals between updates, so that a slow one, with an
# evaluation in it, does not change it.
_INTERVALS = 10


class Progress:
    """Shows how far the training is, how fast it goes, and the latest metrics.

    Args:
        total_steps: steps of the whole run.
        start: the step that this process starts from.
        batch_size: images in one step, over all devices and processes.
        images_per_second: measures the rate, `None` as long as there is none; the median over the
            latest intervals between updates by default.
        stream: a terminal gets a bar, anything else one line per `update`.
        title: put in front of the bar and the lines.
        clock: returns seconds.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        start: int = 0,
        batch_size: int,
        images_per_second: Callable[[], float | None] | None = None,
        stream: TextIO | None = None,
        title: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total_steps
        self._batch_size = batch_size
        self._rate = images_per_second or self._median_rate
        self._stream = stream or sys.stderr
        self._title = title
        self._clock = clock
        self._first: tuple[int, float] | None = None
        self._last: tuple[int, float] | None = None
        self._rates: deque[float] = deque(maxlen=_INTERVALS)
        self._bar = None
        if self._stream.isatty():
            self._bar = tqdm(
                total=total_steps,
                initial=start,
                file=self._stream,
                desc=title or None,
                dynamic_ncols=True,
                bar_format="{desc}{percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt}{postfix}",
            )

    @property
    def images_per_second(self) -> float | None:
        """The rate that is shown; `None` in the beginning."""
        return self._rate()

    def update(self, step: int, values: Mapping[str, float]) -> None:
        """Shows that `step` steps are done, with metrics in the order given."""
        now = self._clock()
        if self._last is not None and step > self._last[0] and now > self._last[1]:
            steps, seconds = step - self._last[0], now - self._last[1]
            self._rates.append(steps * self._batch_size / seconds)
        self._last = (step, now)
        self._first = self._first or self._last
        parts = [f"{name.replace('_', ' ')} {_short(value)}" for name, value in values.items()]
        pace = []
        rate = self.images_per_second
        if rate is not None and step > self._first[0]:
            pace = [f"{rate:,.0f} images/s", f"ETA {self._remaining(step)}"]
        if self._bar is not None:
            # What a narrow terminal cuts off is the end of the line.
            self._bar.set_postfix_str("  ".join([*pace, *parts]), refresh=False)
            self._bar.update(step - self._bar.n)
            self._bar.refresh()
        else:
            head = f"{self._title}  " if self._title else ""
            line = "  ".join([f"{head}step {step}/{self._total}", *parts, *pace])
            print(line, file=self._stream, flush=True)

    def write(self, text: str) -> None:
        """Prints lines of text above the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Ends the line of the bar, which stays visible."""
        if self._bar is not None:
            self._bar.close()

    def _median_rate(self) -> float | None:
        """Images per second; `None` before the second update, since the first step compiles."""
        return statistics.median(self._rates) if self._rates else None

    def _remaining(self, step: int) -> str:
        """Time to go, as h:mm:ss, if evaluations and checkpoints go on taking their share."""
        first_step, first_time = self._first
        seconds = (self._last[1] - first_time) / (step - first_step) * (self._total - step)
        minutes, seconds = divmod(round(max(seconds, 0)), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _short(value: float) -> str:
    """Four significant digits, and small numbers such as learning rates with an exponent."""
    value = float(value)
    return f"{value:.2e}" if value != 0 and abs(value) < 1e-3 else f"{value:.4g}"
