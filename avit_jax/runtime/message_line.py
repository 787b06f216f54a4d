"""A connection between two processes that carries messages, lines of JSON."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Mapping
from typing import Any


class Line:
    """A connection that carries lines of JSON.

    Args:
        connection: a TCP socket, which is closed by `close`.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._rest = b""
        self._sending = threading.Lock()

    def send(self, message: Mapping[str, Any]) -> None:
        """Sends a message; where the other end has gone, nothing happens: reading finds that."""
        with contextlib.suppress(OSError), self._sending:
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def read(self) -> list[dict[str, Any]] | None:
        """Waits for what comes, which may be no whole message yet; `None` at the end.

        Raises:
            TimeoutError: nothing has come in the connection's time.
        """
        try:
            received = self.connection.recv(1 << 16)
        except TimeoutError:
            raise
        except OSError:
            return None
        if not received:
            return None
        *whole, self._rest = (self._rest + received).split(b"\n")
        return [json.loads(line) for line in whole]

    def close(self) -> None:
        """Ends the connection."""
        self.connection.close()
