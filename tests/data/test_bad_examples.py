import logging

import numpy as np
import pytest

from avit_jax.data.augment import Augment
from avit_jax.data.bad_examples import BadExamples, reason_bad
from avit_jax.data.pipeline import eval_batches, train_batches
from avit_jax.errors import UserError

PLAIN = Augment(kind="none", crop_ratio=1.0)


def training(requested, index):
    return {"requested": np.array(requested), "index": np.array(index)}


def test_clean_batches_only_count(list_source):
    tally = BadExamples(max_bad_share=0.0)
    after = tally.add(training([0, 1, 2], [0, 1, 2]), list_source)
    assert (after.seen, after.bad, after.names) == (3, 0, ()) and tally.seen == 0


def test_each_bad_example_is_logged_once_with_its_reason(list_source, caplog):
    list_source.images[4] = b"text"
    list_source.labels[7] = 9
    tally = BadExamples(max_bad_share=0.5)
    with caplog.at_level(logging.WARNING):
        tally = tally.add(training([3, 4, 7], [3, 5, 8]), list_source)
        tally = tally.add(training([4, 0, 1], [5, 0, 1]), list_source)
    assert (tally.seen, tally.bad, tally.names) == (6, 3, ("list[4]", "list[7]"))
    assert caplog.messages == [
        "left out bad example list[4]: it cannot be decoded: no known image format in its 4 bytes",
        "left out bad example list[7]: it has label 9, outside 0..2",
    ]


def test_the_share_ends_the_run_with_names(list_source):
    tally = BadExamples(max_bad_share=0.3)
    tally = tally.add(training([4, 6, 2, 3], [5, 7, 2, 3]), list_source)
    with pytest.raises(UserError, match=r"4 of 8 examples of list are unreadable, more than "):
        tally.add(training([4, 8, 2, 3], [5, 9, 2, 3]), list_source)
    with pytest.raises(UserError, match=r"max_bad_share = 0 allows \(list\[4\]\); repair them"):
        BadExamples(max_bad_share=0.0).add(training([4], [5]), list_source)


def test_two_bad_files_of_a_small_split_do_not_end_the_run_however_often_they_come(list_source):
    tally = BadExamples(max_bad_share=0.01)
    for _ in range(5):
        tally = tally.add(training([4, 6], [5, 7]), list_source)
    assert (tally.seen, tally.bad) == (10, 10)
    with pytest.raises(UserError, match=r"list\[4\], list\[6\], list\[8\]"):
        tally.add(training([8], [9]), list_source)


def test_bad_examples_early_in_a_large_source_do_not_end_the_run(make_source):
    source = make_source([None] * 5000, [0] * 5000)
    tally = BadExamples(max_bad_share=0.004).add(training([1, 2, 3, 4], [5, 5, 5, 5]), source)
    assert tally.bad == 4
    with pytest.raises(UserError):
        tally.add(training([8], [9]), source)


def test_batches_of_the_pipeline_are_counted(list_source):
    list_source.images[4] = None
    batches = train_batches(list_source, batch_size=11, image_size=8, augment=PLAIN, seed=0)
    tally = BadExamples(max_bad_share=0.2)
    for _ in range(3):
        tally = tally.add(next(batches), list_source)
    assert (tally.seen, tally.bad, tally.names) == (33, 3, ("list[4]",))
    tally = BadExamples(max_bad_share=0.2)
    for batch in eval_batches(list_source, batch_size=8, image_size=8, augment=PLAIN):
        tally = tally.add(batch, list_source)
    # Padding is not seen.
    assert (tally.seen, tally.bad) == (11, 1)


def test_an_example_that_reads_again_is_said_to(list_source):
    assert reason_bad(list_source, 0) == "was unreadable when it was drawn, but can be read now"
