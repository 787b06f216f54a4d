"""Capacities hold nearly every batch, are few, and rise only where tokens come back."""

import numpy as np

from avit_jax.execution.row_capacities import MULTIPLES, row_capacities

IMAGES, TOKENS = 2_000, 197


def counts(seed=0):
    depth = np.random.default_rng(seed).normal(7.0, 2.5, IMAGES)
    share = np.clip(depth - np.arange(12)[:, None], 0.0, 1.0)
    return np.round(share * TOKENS)


def test_capacities_are_multiples_that_never_rise_and_begin_with_everything():
    found = row_capacities(counts(), 256, TOKENS)
    assert found[0] == 256 * TOKENS and list(found) == sorted(found, reverse=True)
    assert all(rows % MULTIPLES[0] == 0 for rows in found)


def test_fewer_than_two_batches_in_a_hundred_find_no_room():
    live, rng = counts(), np.random.default_rng(1)
    for batch in (16, 64, 256):
        found = np.asarray(row_capacities(live, batch, TOKENS))
        drawn = live[:, rng.integers(0, IMAGES, (1_000, batch))].sum(-1)
        assert (drawn > found[:, None]).any(0).mean() < 0.02


def test_nothing_moves_for_a_few_rows():
    live = np.full((3, 10), 100.0)
    live[1:] -= 1.0
    assert len(set(row_capacities(live, 64, 100))) == 1


def test_one_image_says_nothing_about_others():
    assert row_capacities(np.array([[17.0], [8.0]]), 1, 17) == (17, 17)


def test_buffers_of_tokens_that_come_back_are_sized_by_themselves():
    few, many = np.full((2, 10), [[50.0], [99.0]])
    found = row_capacities(np.stack([few, many, few]), 64, 100, may_rise=True)
    assert found == (3_200, 6_400, 3_200), "whole where nearly everything is live"
    assert row_capacities(np.stack([few, many, few]), 64, 100) == (3_200, 3_200, 3_200)


def test_sizes_of_a_single_batch_hold_nearly_all_others():
    live, rng = counts(), np.random.default_rng(2)
    overflows = []
    for _ in range(30):
        measured, *others = live[:, rng.integers(0, IMAGES, (41, 256))].swapaxes(0, 1)
        found = np.asarray(row_capacities(measured, 256, TOKENS))
        overflows += [(other.sum(1) > found).any() for other in others]
    assert np.mean(overflows) < 0.05
