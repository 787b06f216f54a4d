"""One sentence where steps wait for images: how fast they come, and which setting is to blame."""

from __future__ import annotations

import logging

from avit_jax.config.data import Data
from avit_jax.runtime.cores import usable_cores
from avit_jax.runtime.training_clock import Effort

logger = logging.getLogger(__name__)

TOLERATED = 0.1  # share of the time of steps that may be spent on waiting
SECONDS = 10.0  # of steps that are looked at together; less is not worth a word


class Starvation:
    """Looks at one process's training, and warns once.

    Args:
        data: whose settings say what can be changed.
    """

    def __init__(self, data: Data) -> None:
        self._data = data
        self._since: Effort | None = None
        self._warned = False

    def look(self, now: Effort) -> None:
        """Take note of what the run has taken at a log line.

        The first line only begins the count: behind it, the pipeline has had time to fill.
        """
        if self._warned or self._since is None:
            self._since = now
            return
        seconds = now.timed_seconds - self._since.timed_seconds
        if seconds < SECONDS:
            return
        images = now.timed_images - self._since.timed_images
        waited = min(now.waiting - self._since.waiting, seconds)
        self._since = now
        if images and waited > TOLERATED * seconds:
            self._warned = True
            logger.warning("%s", said(images, seconds, waited, self._data))


def said(images: int, seconds: float, waited: float, data: Data) -> str:
    """The sentence, of so many images in so much time."""
    busy = images / (seconds - waited) if seconds > waited else None
    could = f"and could be {busy:,.0f}" if busy else "and could be many more"
    return (
        f"the steps wait for images {waited / seconds:.0%} of the time, so that they are "
        f"{images / seconds:,.0f} images/s {could}: {remedies(data)}."
    )


def remedies(data: Data) -> str:
    """What makes images come faster, as far as it is not set."""
    cores = usable_cores()
    steps = []
    if data.workers < cores:
        steps.append(f"raise --config.data.workers ({data.workers}; there are {cores} cores)")
    if data.augment.kind == "inception":
        if data.augment.decoder != "opencv":
            steps.append("write --config.data.augment.decoder opencv")
        if not data.augment.fast_shrink:
            steps.append("write --config.data.augment.fast_shrink")
    if data.workers and (data.threads or 1) == 1:
        steps.append("raise --config.data.threads, if the images come from far away")
    return ", or ".join(steps) or "take a machine with more cores, or store smaller images"
