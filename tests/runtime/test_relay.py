"""The process by which JAX's client reaches the coordinator."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time

import pytest

from avit_jax.runtime import relay

SECONDS = 30  # until a connection counts as hanging


@pytest.fixture
def ends():
    """The client's end and the coordinator's of a connection that is passed on."""
    with contextlib.ExitStack() as opened:
        server = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        server.settimeout(SECONDS)
        host, _, port = relay.local_address(*server.getsockname()).rpartition(":")
        client = opened.enter_context(socket.create_connection((host, int(port)), timeout=SECONDS))
        coordinator = opened.enter_context(server.accept()[0])
        coordinator.settimeout(SECONDS)
        yield client, coordinator
        process = relay._running.pop()
        process.stdin.close()
        assert process.wait(SECONDS) == 0
        process.stdout.close()


def test_it_passes_on_and_stays_when_the_other_side_has_gone(ends):
    client, coordinator = ends
    client.sendall(b"ping")
    assert coordinator.recv(4) == b"ping"
    coordinator.sendall(b"pong")
    assert client.recv(4) == b"pong"
    coordinator.close()
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(1)


def test_it_passes_on_while_this_process_holds_pythons_lock(ends):
    client, coordinator = ends
    held = ctypes.PyDLL(None)  # whose functions do not release it
    asked = struct.pack("ihh", coordinator.fileno(), select.POLLIN, 0)
    held.send(client.fileno(), b"x", 1, 0)
    assert held.poll(asked, 1, 1000 * SECONDS) == 1
    assert coordinator.recv(1) == b"x"


def test_it_ignores_what_asks_a_run_to_stop(ends):
    client, coordinator = ends
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(relay._running[-1].pid, number)
    time.sleep(0.1)
    client.sendall(b"ping")
    assert coordinator.recv(4) == b"ping"


def test_it_ends_with_a_process_that_is_killed():
    begin = (
        "import os, signal; from avit_jax.runtime import relay; relay.local_address('h', 1); "
        "print(relay._running[0].pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", begin], stdout=subprocess.PIPE, check=False)
    number, deadline = int(ended.stdout), time.monotonic() + SECONDS
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < deadline:
            os.kill(number, 0)
            time.sleep(0.01)
