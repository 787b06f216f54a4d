"""How the processes of a run meet before JAX joins them: who is there, and whether all are alike.

JAX waits for minutes for a process that never comes, and for ever where two have begun different
programs. So process 0 first listens on the coordinator's port itself. Every other one says who it
is and what it was told to do; where something does not fit, or one of them has refused its command
already, all hear why. The connections stay open for `companions.py`, which watches over the run.

Messages are lines of JSON. Whoever is connected to gets a greeting, so that another program on the
port, or a coordinator of another run, is not taken for process 0.
"""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from avit_jax.errors import UserError
from avit_jax.runtime.message_line import Line

START_SECONDS = 300.0  # for all processes to begin, as JAX allows
ANSWER_SECONDS = 10.0  # for one that is there to answer
GREETING = b"avit_jax: process 0\n"
SHOWN = 3  # differing settings that a message names


class Misfit(UserError):
    """Processes that cannot make up one run."""


def listen(port: int) -> socket.socket:
    """A socket that process 0 listens on, for IPv4 and, where there is one, IPv6.

    Raises:
        OSError: the port is taken, or may not be used.
    """
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):  # in a container IPv6 may be there and switched off
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def gather_all(
    server: socket.socket,
    *,
    count: int,
    said: Mapping[str, Any],
    refused: str | None = None,
    seconds: float = START_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> dict[int, Line]:
    """Process 0's part: waits for all others and answers them.

    Args:
        server: that they connect to; closed afterwards, for JAX takes its port.
        count: processes in all.
        said: what this process was told to do, by names that a person knows.
        refused: why this process will not begin.
        seconds: to wait.
        clock: returns seconds.

    Returns:
        A connection to each of the others, by their numbers.

    Raises:
        UserError: somebody is missing, came twice, was told something else or has refused; all who
            came, or come within `ANSWER_SECONDS`, hear the same.
    """
    lines: dict[int, Line] = {}
    problem, asked, deadline = refused, [], clock() + seconds
    if problem:
        deadline = clock() + ANSWER_SECONDS
    with server:
        while len(asked) < count - 1 and (left := deadline - clock()) > 0:
            server.settimeout(left)
            try:
                line = Line(server.accept()[0])
                hello = _hello(line)
            except TimeoutError:
                continue
            if hello is None:
                continue
            asked.append(line)
            number = hello["number"]
            found = hello["refused"] or _misfit(hello, count=count, said=said, there=lines)
            if not problem and found:
                problem, deadline = found, clock() + ANSWER_SECONDS
            lines.setdefault(number, line)
        late = not problem and len(lines) < count - 1
        if late:
            missing = sorted(set(range(1, count)) - lines.keys())
            problem = (
                f"{'processes' if len(missing) > 1 else 'process'} "
                f"{', '.join(map(str, missing[:SHOWN]))} of {count} did not come within "
                f"{seconds:g} s: start all of them, with one JAX_COORDINATOR_ADDRESS."
            )
        for line in asked:
            line.send({"end": problem} if problem else {"go": True})
    if problem:
        for line in asked:
            line.close()
        raise Misfit(problem)
    return lines


def join(
    host: str,
    port: int,
    *,
    number: int,
    count: int,
    said: Mapping[str, Any],
    refused: str | None = None,
    seconds: float = START_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> Line:
    """The part of every other process: introduces itself to process 0 and waits for its answer.

    Args and errors are those of `gather_all`; `host` and `port` are process 0's.
    """
    deadline = clock() + seconds
    while True:
        try:
            connection = socket.create_connection((host, port), timeout=ANSWER_SECONDS)
            break
        except OSError as error:
            if clock() > deadline:
                raise UserError(
                    f"process 0 cannot be reached at {host}:{port} ({error.strerror or error}): "
                    "start it, or write its address into JAX_COORDINATOR_ADDRESS."
                ) from error
            time.sleep(0.2)
    line = Line(connection)
    try:
        if not _is_greeted(connection):
            raise UserError(
                f"what answers at {host}:{port} is not process 0 of a run that begins: write "
                "another port into JAX_COORDINATOR_ADDRESS, in all processes."
            )
        line.send({"number": number, "count": count, "said": said, "refused": refused})
        connection.settimeout(max(1.0, deadline - clock()))
        answer = None
        try:
            while not (messages := line.read()):
                if messages is None:
                    break
            answer = messages[0] if messages else None
        except TimeoutError:
            pass
        if answer is None:
            raise UserError("process 0 ended before the run began: read its message.")
        if "end" in answer:
            raise Misfit(answer["end"])
    except BaseException:
        line.close()
        raise
    return line


def is_taken(error: OSError) -> bool:
    """Whether a port could not be listened on because somebody else does."""
    return error.errno == errno.EADDRINUSE


def _hello(line: Line) -> dict[str, Any] | None:
    """What a newcomer says of itself; `None` where it is no process of a run."""
    line.connection.settimeout(ANSWER_SECONDS)
    try:
        line.connection.sendall(GREETING)
        messages: list[dict[str, Any]] | None = []
        while messages == []:
            messages = line.read()
        if messages and {"number", "count", "said", "refused"} <= messages[0].keys():
            return messages[0]
    except (OSError, ValueError, AttributeError):
        pass  # a scanner of ports, a browser
    line.close()
    return None


def _misfit(
    hello: Mapping[str, Any], *, count: int, said: Mapping[str, Any], there: Mapping[int, Line]
) -> str | None:
    number = hello["number"]
    if number == 0 or number in there:
        return (
            f"two processes are numbered {number}: give each a JAX_PROCESS_ID of its own, counted "
            "from 0."
        )
    if hello["count"] != count:
        return (
            f"process {number} was told of {hello['count']} processes and process 0 of {count}: "
            "write one JAX_NUM_PROCESSES."
        )
    theirs, ours = hello["said"], json.loads(json.dumps(said))
    differing = sorted(
        key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key)
    )
    if differing:
        shown = "; ".join(
            f"{key} is {theirs.get(key)!r} in process {number} and {ours.get(key)!r} in process 0"
            for key in differing[:SHOWN]
        )
        more = f"; and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        return f"processes of one run were told different things ({shown}{more}): start all alike."
    return None


def _is_greeted(connection: socket.socket) -> bool:
    found = b""
    try:
        while len(found) < len(GREETING) and GREETING.startswith(found):
            received = connection.recv(len(GREETING) - len(found))
            if not received:
                return False
            found += received
    except OSError:
        return False
    return found == GREETING
