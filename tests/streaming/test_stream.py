"""Streams: every image gets its own answer, in order, whatever others do."""

import threading
import time

import numpy as np
import pytest

from avit_jax.data.example import BadExample
from avit_jax.errors import NOT_FINITE, UserError
from avit_jax.streaming.limits import Limits
from tests.streaming import toy


@pytest.fixture(scope="module")
def compiled():
    return toy.programs(), toy.programs()


@pytest.fixture
def programs(compiled):
    """Compiled once; how they were used before is forgotten."""
    for one in compiled:
        one.began.clear()
        one.error = None
        one.gate.set()
    return compiled[0]


@pytest.mark.parametrize("seed", range(8))
def test_whatever_arrives_every_image_gets_its_own_answer(programs, compiled, seed):
    """Random numbers of images that leave anywhere, from several threads, at random times."""
    generator = np.random.default_rng(seed)
    devices = compiled if seed % 2 else (programs,)
    max_wait = (None, 0.0, 0.002)[seed % 3]
    bringers = int(generator.integers(1, 4))
    brought = [[] for _ in range(bringers)]

    def bring(own, seed):
        draw = np.random.default_rng(seed)
        for number in range(int(draw.integers(0, 60))):
            leaves = int(draw.choice(3, p=[0.6, 0.3, 0.1]))
            image = toy.image(number, leaves) if draw.random() > 0.1 else np.zeros((3, 2, 3))
            own.append((number, leaves, image, stream.submit(image)))
            if draw.random() < 0.1:
                time.sleep(0.002)

    with toy.stream(*devices, capacity=int(generator.integers(1, 12)), max_wait=max_wait) as stream:
        threads = [
            threading.Thread(target=bring, args=(own, 10 * seed + index))
            for index, own in enumerate(brought)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    for number, leaves, image, future in (entry for own in brought for entry in own):
        assert future.done(), "closing answers all"
        if len(image) == 3:
            assert "images have shape" in future.result().error
        else:
            toy.expect(future.result(), number, leaves)


def test_answers_come_in_the_order_of_the_images(programs):
    leaves = [2, 0, 1, 0, 0, 2, 1, 0, 0, 0, 1, 0, 2]
    with toy.stream(programs) as stream:
        answers = stream.map(toy.image(number, at) for number, at in enumerate(leaves))
        for number, (answer, at) in enumerate(zip(answers, leaves, strict=True)):
            toy.expect(answer, number, at)
            assert answer.seconds >= 0
        pixels = np.full((2, 2, 3), 255, np.uint8)
        first, second = stream.map([pixels, toy.image(1, 0)])  # of two dtypes, in one batch
        assert first.logits[0] == pytest.approx((1 - 0.485) / 0.229)
        toy.expect(second, 1, 0)


def test_batches_are_kept_full_across_batches(programs):
    leaves = [0, 0, 0, 1] * 16
    with toy.stream(programs) as stream:
        assert len(list(stream.map(map(toy.image, range(64), leaves)))) == 64
    assert programs.began.count((0, 4)) == 16
    assert programs.began.count((1, 4)) == 4 and len(programs.began) == 20


def test_a_failed_image_is_its_own_error(programs):
    nan = toy.image(3, 0)
    nan[0, 1, 0] = np.nan
    images = [
        toy.image(0, 0),
        BadExample("cannot be decoded: no known image format"),
        np.zeros((2, 2), np.float32),
        nan,
        "words",
        toy.image(5, 1),
    ]
    with toy.stream(programs) as stream:
        first, undecoded, shape, not_finite, words, last = stream.map(images)
    toy.expect(first, 0, 0)
    toy.expect(last, 5, 1)
    assert undecoded.error == "cannot be decoded: no known image format"
    assert undecoded.logits is None and undecoded.segment is None and np.isnan(undecoded.gmacs)
    assert "images have shape (1, 2, 2)" in shape.error
    assert not_finite.error == NOT_FINITE
    assert "of type list" in words.error or "of type str" in words.error


def test_who_brings_more_than_there_is_room_for_waits(programs):
    programs.gate.clear()
    brought, start = [], time.monotonic()
    with toy.stream(programs, capacity=6) as stream:

        def bring():
            for number in range(40):
                brought.append(stream.submit(toy.image(number, 0), due=start))

        thread = threading.Thread(target=bring)
        thread.start()
        # Four images are about to run, six wait, and one more has no place.
        while len(brought) < 10:
            time.sleep(0.001)
        time.sleep(0.05)
        assert len(brought) == 10
        programs.gate.set()
        thread.join(30)
    for number, future in enumerate(brought):
        toy.expect(future.result(), number, 0)
    # Counted from when they were due, not from when there was a place.
    assert min(future.result().seconds for future in brought) >= 0.05


def test_an_image_waits_for_others_only_so_long(programs):
    with toy.stream(programs, max_wait=0.03) as stream:
        answer = stream.submit(toy.image(0, 2)).result(30)
    toy.expect(answer, 0, 2)
    assert answer.seconds >= 3 * 0.03
    assert programs.began == [(0, 1), (1, 1), (2, 1)]


def test_without_a_limit_only_closing_runs_part_of_a_batch(programs):
    with toy.stream(programs) as stream:
        futures = [stream.submit(toy.image(number, 0)) for number in range(7)]
        futures[3].result(30)
        time.sleep(0.05)
        assert [future.done() for future in futures] == [True] * 4 + [False] * 3
    assert all(future.done() for future in futures)
    assert programs.began == [(0, 4), (0, 3)]
    stream.close()
    with pytest.raises(UserError, match="the stream is closed"):
        stream.submit(toy.image(0, 0))


def test_a_consumer_that_stops_or_raises_takes_back_what_has_not_begun(programs):
    with toy.stream(programs, capacity=40, max_wait=10.0) as stream:
        answers = stream.map(toy.image(number, 0) for number in range(4))
        programs.gate.clear()
        futures = [stream.submit(toy.image(number, 0)) for number in range(12)]
        assert all(future.cancel() for future in futures[8:])
        programs.gate.set()
        toy.expect(next(answers), 0, 0)
        answers.close()
        with pytest.raises(RuntimeError, match="mine"):
            for _ in stream.map(toy.image(number, 1) for number in range(9)):
                raise RuntimeError("mine")
        for number, future in enumerate(futures[:8]):
            toy.expect(future.result(30), number, 0)
        toy.expect(next(stream.map([toy.image(7, 2)])), 7, 2)
    # The four that were cancelled have not run.
    assert sum(count for segment, count in programs.began if segment == 0) <= 4 + 8 + 9 + 1


def test_a_program_that_fails_is_the_error_of_all_that_wait(programs):
    stream = toy.stream(programs, capacity=40)
    programs.gate.clear()
    futures = [stream.submit(toy.image(number, 0)) for number in range(12)]
    programs.error = RuntimeError("out of memory")
    programs.gate.set()
    for future in futures:
        assert str(future.exception(30)) == "out of memory"
    with pytest.raises(RuntimeError, match="out of memory"):
        stream.submit(toy.image(0, 0))
    stream.close()


def test_limits_that_cannot_be_are_refused():
    for changed, sentence in (
        ({"batch_size": 0}, "batch_size is 0: write a whole number of images"),
        ({"capacity": 2.5}, "capacity is 2.5"),
        ({"max_wait": -1}, "max_wait is -1: write 0 or more"),
    ):
        with pytest.raises(UserError, match=sentence):
            Limits(**{"batch_size": 4, "capacity": 8, "max_wait": None} | changed)
