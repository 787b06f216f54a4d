"""A connection to process 0 that does not break with it.

JAX's client aborts its process, with a dump of the stack, in the moment in which its connection to
the coordinator breaks. So it is given an address on its own machine, from which all is passed on to
the coordinator. When that one has gone, the client's side stays open, and `companions.py` can end
the process in good order.

What passes on is a process of its own, run from this file with nothing but the standard library.
JAX's preemption service waits for the other processes while it holds Python's lock
(`reached_sync_point` does not release it), so a thread would wait for it, and it for the thread.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time

RETRY_SECONDS = 0.1

_running: list[subprocess.Popen[bytes]] = []  # which end when their standard input closes


def local_address(host: str, port: int) -> str:
    """An address on this machine that passes on to `host:port`, for as long as this process lives.

    Raises:
        OSError: no further process can be started.
        UserError: one ended at once.
    """
    # Here, for the process that runs this file has no package.
    from avit_jax.errors import UserError

    command = [sys.executable, "-I", __file__, host, str(port)]
    pipe = subprocess.PIPE
    # In a session of its own: Ctrl-C in a terminal is for those who have something to save.
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True)
    _running.append(process)
    assert process.stdout is not None
    own = process.stdout.readline().strip()
    if not own:
        raise UserError(
            f"the process that was to pass on to process 0 at {host}:{port} ended with status "
            f"{process.wait()}: look for what ends new processes here, such as a limit."
        )
    return f"127.0.0.1:{int(own)}"


def main(host: str, port: int) -> None:
    """Passes on, until whoever has started it is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a cluster asks every process of a run to stop
        signal.signal(number, signal.SIG_IGN)
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_serve, args=(server, host, port), daemon=True).start()
    print(server.getsockname()[1], flush=True)
    sys.stdin.buffer.read()  # nothing is ever written: it ends with the process that has the pipe
    os._exit(0)


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


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
