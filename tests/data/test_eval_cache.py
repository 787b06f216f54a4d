"""Evaluation images that are kept: the same ones, decoded once, within a budget."""

import numpy as np
import pytest

from avit_jax.data.augment import Augment
from avit_jax.data.eval_cache import GB, EvalBatches

SETTINGS = {"batch_size": 4, "image_size": 8, "augment": Augment(crop_ratio=1.0)}
BATCH = 4 * (8 * 8 * 3 + 4 + 8 + 8 + 1 + 1)  # bytes


class Counted:
    """A source that counts how often an example is read."""

    def __init__(self, source):
        self.source, self.reads = source, 0
        self.name, self.class_names = source.name, source.class_names

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        self.reads += 1
        return self.source[index]


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_processes_have_nothing_to_do_where_everything_is_kept(list_source):
    batches = EvalBatches(list_source, 1.0, SETTINGS)
    first = list(batches)
    in_processes = EvalBatches(list_source, 1.0, SETTINGS | {"workers": 2})
    in_processes._kept = first
    assert_same(list(in_processes), first)


@pytest.mark.parametrize(("kept", "again"), [(0, 11), (1, 7), (2, 3), (3, 0)])
def test_later_passes_are_the_same_and_decode_only_what_found_no_room(list_source, kept, again):
    list_source.images[5] = b"not an image"
    source = Counted(list_source)
    batches = EvalBatches(source, kept * BATCH / GB, SETTINGS)
    first = list(batches)
    assert source.reads == 11
    second = list(batches)
    assert source.reads == 11 + again
    assert_same(second, first)


def test_a_pass_that_is_left_early_keeps_what_it_has_seen(list_source):
    source = Counted(list_source)
    batches = EvalBatches(source, 1.0, SETTINGS)
    begun = iter(batches)
    first = next(begun)
    begun.close()
    reads = source.reads
    whole = list(batches)
    assert_same(whole[:1], [first])
    assert len(whole) == 3 and source.reads >= reads + 7
    assert_same(list(batches), whole)


def test_the_memory_is_said_before_anything_is_decoded(list_source, caplog):
    caplog.set_level("INFO")
    next(iter(EvalBatches(list_source, 1e-6, SETTINGS)))
    assert caplog.messages == [
        "evaluation images take 2,112 bytes, of which at most 1,000 are kept in memory "
        "(config.data.eval_cache)"
    ]
