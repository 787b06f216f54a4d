"""A connection to process 0 that does not break with it.

JAX's client aborts its process, with a dump of the stack, in the moment in which its connection to
the coordinator breaks. So it is given an address on its own machine, from which all is passed on to
the coordinator. When that one has gone, the client's side stays open, and `companions.py` can end
the process in good order.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time

RETRY_SECONDS = 0.1


def local_address(host: str, port: int) -> str:
    """An address of this process that passes on to `host:port`, for as long as it lives."""
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_serve, args=(server, host, port), name="relay", daemon=True).start()
    return f"127.0.0.1:{server.getsockname()[1]}"


def _serve(server: socket.socket, host: str, port: int) -> None:
    while True:
        client, _ = server.accept()
        threading.Thread(target=_pass_on, args=(client, host, port), daemon=True).start()


def _pass_on(client: socket.socket, host: str, port: int) -> None:
    coordinator = _connected(host, port)
    for connection in (client, coordinator):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    back = threading.Thread(target=_copy, args=(coordinator, client), daemon=True)
    back.start()
    _copy(client, coordinator)
    coordinator.close()  # the client has gone; where the coordinator has, nothing is closed


def _connected(host: str, port: int) -> socket.socket:
    while True:  # its service begins a moment later than the run; JAX's client limits the time
        with contextlib.suppress(OSError):
            return socket.create_connection((host, port))
        time.sleep(RETRY_SECONDS)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while received := source.recv(1 << 16):
            target.sendall(received)
