"""Shares of resampled batches that find no room, where they are known in advance."""

import numpy as np
import pytest

from tests.benchmark import scripts

overflow = scripts.load("overflow")


def simulate(rows, labels, *, batch=16, batches=1, may_rise=False):
    counts = overflow.Counts(np.asarray(rows), np.asarray(labels), 17, may_rise)
    return overflow.simulate(counts, batch, batches, draws=60, halves=3, seed=0)


def test_images_that_are_all_alike_always_find_room():
    found = simulate(np.full((3, 100), 9), np.zeros(100, int))
    assert found.no_room == found.one_class == 0
    assert found.rows_over_live == pytest.approx(1, abs=0.15)  # rounded up to a multiple


def test_a_class_of_its_own_difficulty_overflows_where_a_mixture_does_not():
    labels = np.arange(200) % 2
    rows = np.stack([np.full(200, 17), np.where(labels, 16, 4)])
    found = simulate(rows, labels, batches=None)
    assert found.no_room < 0.05
    assert 0.3 < found.one_class < 0.7  # every other batch is of the hard class
    assert found.rows_over_live > 1


def test_sizes_from_more_images_need_fewer_rows():
    generator = np.random.default_rng(0)
    rows = np.minimum.accumulate(generator.integers(3, 18, (3, 400)))
    one, many = (simulate(rows, np.zeros(400, int), batches=count) for count in (1, None))
    assert many.rows_over_live < one.rows_over_live
