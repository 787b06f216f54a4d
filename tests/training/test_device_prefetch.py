"""Batches on the devices: in order, one ahead, and nothing left when they are closed."""

import threading

import pytest

from avit_jax.errors import UserError
from avit_jax.training import device_prefetch
from avit_jax.training.device_prefetch import AHEAD, DevicePrefetch


def take(batches):
    while not batches.arrives(60.0):
        pass
    return batches.take()


def test_batches_come_in_order_and_only_one_is_placed_ahead():
    placed = []

    def place(batch):
        placed.append(batch)
        return batch * 10

    batches = DevicePrefetch((number for number in range(100)), place)
    for number in range(5):
        assert take(batches) == number * 10
        assert len(placed) <= number + 1 + AHEAD
    batches.close()
    assert len(placed) <= 5 + AHEAD


def test_an_error_comes_in_its_place_and_the_thread_ends():
    def batches():
        yield 1
        yield 2
        raise UserError("too many are bad")

    prefetch = DevicePrefetch(batches(), lambda batch: batch)
    assert [take(prefetch), take(prefetch)] == [1, 2]
    with pytest.raises(UserError, match="too many are bad"):
        take(prefetch)
    prefetch.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "device-prefetch"]


def test_closing_closes_the_batches():
    closed = []

    def endless():
        try:
            while True:
                yield 0
        finally:
            closed.append(True)

    batches = DevicePrefetch(endless(), lambda batch: batch)
    assert take(batches) == 0
    batches.close()
    assert closed == [True]


def test_closing_does_not_wait_for_a_batch_that_never_comes(monkeypatch, caplog):
    monkeypatch.setattr(device_prefetch, "CLOSING_SECONDS", 0.05)
    go = threading.Event()

    def hanging():
        go.wait()
        yield 0

    batches = DevicePrefetch(hanging(), lambda batch: batch)
    batches.close()
    assert "it is left behind" in caplog.text
    go.set()


def test_what_has_not_arrived_is_said_without_waiting():
    go = threading.Event()

    def late():
        go.wait()
        yield 3

    batches = DevicePrefetch(late(), lambda batch: batch)
    assert not batches.arrives(0.0) and not batches.arrives(0.001)
    go.set()
    assert take(batches) == 3
    batches.close()
