"""Processes meet, or all hear why they cannot make up one run."""

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from avit_jax.errors import UserError
from avit_jax.runtime import rendezvous

SAID = {"--mode": "train", "train.steps": 24}


def meet(*others, count=2, refused=None, said=SAID, seconds=20.0):
    """What `gather_all` and each `join` of the others come to: numbers, or what was raised."""
    with ThreadPoolExecutor() as pool, rendezvous.listen(0) as server:
        port = server.getsockname()[1]
        asked = {"count": count, "said": SAID, "seconds": seconds, "refused": None}
        joined = [
            pool.submit(rendezvous.join, "127.0.0.1", port, **asked | other) for other in others
        ]
        first = pool.submit(
            rendezvous.gather_all,
            server,
            count=count,
            said=said,
            refused=refused,
            seconds=seconds,
        )
        errors = [future.exception(60) for future in (first, *joined)]
        lines = {} if errors[0] else first.result()
        ends = [] if any(errors) else [future.result() for future in joined]
        for line in (*lines.values(), *ends):
            line.close()
        return errors, sorted(lines)


def test_all_that_are_alike_go_on():
    errors, numbers = meet({"number": 2}, {"number": 1}, count=3)
    assert errors == [None] * 3
    assert numbers == [1, 2]


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"number": 0}, "two processes are numbered 0"),
        ({"number": 1, "count": 4}, "told of 4 processes and process 0 of 2"),
        (
            {"number": 1, "said": SAID | {"train.steps": 25}},
            r"train\.steps is 25 in process 1 and 24 in process 0",
        ),
        ({"number": 1, "said": {"--mode": "eval"}}, "--mode is 'eval' in process 1"),
        ({"number": 1, "refused": "process 1 has refused: no."}, "process 1 has refused: no"),
    ],
)
def test_both_hear_what_does_not_fit(other, sentence):
    errors, _ = meet(other)
    for error in errors:
        with pytest.raises(UserError, match=sentence):
            raise error


def test_others_hear_that_process_0_has_refused():
    errors, _ = meet({"number": 1}, refused="process 0 has refused its command: no.")
    assert {str(error) for error in errors} == {"process 0 has refused its command: no."}


def test_who_does_not_come_is_named():
    errors, _ = meet({"number": 2}, count=3, seconds=0.5)
    assert all(
        str(error).startswith("process 1 of 3 did not come within 0.5 s") for error in errors
    )


def test_another_program_on_the_port_is_not_process_0():
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as pool:
        joined = pool.submit(
            rendezvous.join, "127.0.0.1", server.getsockname()[1], number=1, count=2, said={}
        )
        connection = server.accept()[0]
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n")
        with connection, pytest.raises(UserError, match="is not process 0 of a run that begins"):
            joined.result(60)


def test_a_stranger_who_calls_does_not_disturb():
    with ThreadPoolExecutor() as pool, rendezvous.listen(0) as server:
        first = pool.submit(rendezvous.gather_all, server, count=2, said=SAID)
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            line = rendezvous.join("127.0.0.1", port, number=1, count=2, said=SAID)
        lines = first.result(60)
        assert list(lines) == [1]
        for one in (line, lines[1]):
            one.close()


def test_nobody_at_the_address_is_said():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UserError, match=f"process 0 cannot be reached at 127.0.0.1:{port}"):
        rendezvous.join("127.0.0.1", port, number=1, count=2, said={}, seconds=0.0)
