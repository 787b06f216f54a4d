"""Log lines as a person reads them."""

from __future__ import annotations

import logging


class PlainLines(logging.Formatter):
    """Log lines as a person reads them: what happened, without file, thread and microseconds."""

    def format(self, record: logging.LogRecord) -> str:
        """The message, behind `warning: ` or `error: ` where it is one; a traceback below it."""
        text = super().format(record)
        is_plain = record.levelno < logging.WARNING
        return text if is_plain else f"{record.levelname.lower()}: {text}"


def print_plainly(handler: logging.Handler) -> None:
    """Make a handler print `PlainLines` of this package, and what others warn of.

    What a thread of Orbax has raised it raises again where it is waited for.
    """
    logging.getLogger("avit_jax").setLevel(logging.INFO)
    handler.setFormatter(PlainLines())
    handler.addFilter(lambda record: "_SignalingThread.run() raised" not in record.getMessage())
