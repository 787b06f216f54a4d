import sys

import grain.python as grain
import numpy as np
import pytest

from avit_jax.data.augment import Augment
from avit_jax.data.digits import DigitsSource
from avit_jax.data.loading import MAX_SUBSTITUTES
from avit_jax.data.order import shuffled
from avit_jax.data.pipeline import eval_batches, train_batches
from avit_jax.errors import UserError

AFFINE = Augment(kind="affine", rotation=0.2, zoom=0.12, shift=3, crop_ratio=1.0)
PLAIN = Augment(kind="none", crop_ratio=1.0)


def take(source, count, **settings):
    defaults = dict(batch_size=8, image_size=16, augment=AFFINE, seed=7)
    batches = train_batches(source, **(defaults | settings))
    taken = [next(batches) for _ in range(count)]
    batches.close()
    return taken


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def joined(parts):
    """Joins the batches of several hosts, in the order of the hosts."""
    return [
        {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
        for batches in zip(*parts, strict=True)
    ]


@pytest.fixture(scope="module")
def digits():
    return DigitsSource(split="train")


def test_batches_have_the_stated_shapes_and_types(digits):
    (batch,) = take(digits, 1)
    kinds = {name: (value.shape, value.dtype.name) for name, value in batch.items()}
    assert kinds == {
        "image": ((8, 16, 16, 3), "uint8"),
        "label": ((8,), "int32"),
        "index": ((8,), "int64"),
        "requested": ((8,), "int64"),
    }
    np.testing.assert_array_equal(batch["label"], [digits[i].label for i in batch["index"]])


def test_images_belong_to_their_index(digits):
    (batch,) = take(digits, 1, augment=PLAIN, image_size=8)
    expected = np.stack([digits[i].image for i in batch["index"]])
    np.testing.assert_array_equal(batch["image"][..., 0], expected)


@pytest.mark.parametrize("step", [1, 5, 163])
def test_starting_at_a_step_gives_that_steps_batch(digits, step):
    run = take(digits, step + 2)
    assert_same(take(digits, 2, step=step), run[step:])


@pytest.mark.parametrize("count, repeats", [(11, 3), (12, 3), (5, 7)])
def test_repeats_stand_in_a_row_and_an_epoch_sees_other_images(count, repeats):
    order = shuffled(count, seed=3, repeats=repeats)
    drawn = np.array([order[position] for position in range(12 * count)]).reshape(12, count)
    distinct = -(-count // repeats)
    for epoch in drawn:
        firsts = epoch[::repeats]
        assert len(set(firsts)) == distinct
        np.testing.assert_array_equal(epoch, np.repeat(firsts, repeats)[:count])
    assert len({tuple(epoch) for epoch in drawn}) > 1
    assert set(drawn.ravel()) == set(range(count))
    # The seeded shuffle that runs without repeats have, whose first images are taken.
    whole = grain.MapDataset.range(count).seed(3).shuffle().repeat()
    for number, epoch in enumerate(drawn):
        start = number * count
        assert list(epoch[::repeats]) == [whole[start + place] for place in range(distinct)]


def test_repeats_differ_in_augmentation_and_resume_at_any_step_on_any_hosts(digits):
    run = take(digits, 4, batch_size=9, repeats=3)
    for batch in run:
        images = batch["image"].reshape(3, 3, -1)
        assert (batch["index"].reshape(3, 3) == batch["index"][::3, None]).all()
        assert (images[:, 0] != images[:, 1]).any(-1).all()
        assert (images[:, 1] != images[:, 2]).any(-1).all()
    assert_same(take(digits, 2, batch_size=9, repeats=3, step=2), run[2:])
    parts = [take(digits, 4, batch_size=9, repeats=3, host=host, hosts=3) for host in range(3)]
    assert_same(joined(parts), run)


def test_every_epoch_is_another_permutation(list_source):
    batches = take(list_source, 22, batch_size=4)
    epochs = np.concatenate([batch["index"] for batch in batches]).reshape(8, 11)
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 8


def test_augmentation_differs_between_epochs_and_seeds(digits, make_source):
    source = make_source([digits[0].image], [0])
    batches = take(source, 3, batch_size=1)
    assert not np.array_equal(batches[0]["image"], batches[1]["image"])
    assert not np.array_equal(batches[1]["image"], batches[2]["image"])
    other = take(source, 1, batch_size=1, seed=8)
    assert not np.array_equal(batches[0]["image"], other[0]["image"])
    first, second = (take(digits, 1, seed=seed)[0]["index"] for seed in (7, 8))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_joined_in_order_see_the_same_batches(digits, hosts):
    parts = [take(digits, 3, step=2, host=host, hosts=hosts) for host in range(hosts)]
    assert_same(joined(parts), take(digits, 3, step=2))


def test_worker_processes_and_threads_change_nothing(digits):
    expected = take(digits, 5, step=3)
    assert_same(take(digits, 5, step=3, threads=4), expected)
    in_processes = take(digits, 5, step=3, workers=2)
    assert_same(in_processes, expected)
    assert all(type(value) is np.ndarray for value in in_processes[0].values())


def test_unreadable_examples_give_way_to_the_next_readable(list_source):
    reference = take(list_source, 6, augment=PLAIN)
    list_source.images[4] = None
    list_source.images[5] = b"not an image"
    list_source.labels[10] = 99
    batches = take(list_source, 6, augment=PLAIN)
    substitutes = {4: 6, 5: 6, 10: 0}
    for batch, whole in zip(batches, reference, strict=True):
        np.testing.assert_array_equal(batch["requested"], whole["requested"])
        expected = [substitutes.get(int(index), int(index)) for index in batch["requested"]]
        np.testing.assert_array_equal(batch["index"], expected)
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], 20 * batch["index"])
        np.testing.assert_array_equal(batch["label"], batch["index"] % 3)
    assert_same(take(list_source, 2, step=4, augment=PLAIN), batches[4:])


def test_the_search_for_a_substitute_is_bounded(make_source):
    source = make_source([None] * 500, [0] * 500)
    with pytest.raises(UserError, match=rf"{MAX_SUBSTITUTES} examples in a row from list\[.*gone"):
        take(source, 1)


@pytest.mark.parametrize("batch_size, hosts", [(4, 1), (4, 2), (8, 4), (11, 1), (16, 2)])
def test_evaluation_counts_every_example_once(list_source, batch_size, hosts):
    parts = [
        list(
            eval_batches(
                list_source,
                batch_size=batch_size,
                image_size=8,
                augment=PLAIN,
                host=host,
                hosts=hosts,
            )
        )
        for host in range(hosts)
    ]
    assert {len(part) for part in parts} == {-(-11 // batch_size)}
    batches = joined(parts)
    assert all(len(batch["valid"]) == batch_size for batch in batches)
    whole = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    valid = whole["valid"]
    np.testing.assert_array_equal(whole["index"][valid], np.arange(11))
    np.testing.assert_array_equal(whole["label"][valid], np.arange(11) % 3)
    np.testing.assert_array_equal(whole["image"][valid][:, 0, 0, 0], 20 * np.arange(11))
    assert np.all(whole["index"][~valid] == -1) and np.all(whole["requested"][~valid] == -1)
    assert not whole["image"][~valid].any() and not whole["bad"].any()


def test_evaluation_leaves_bad_examples_out(list_source):
    list_source.images[4] = b"not an image"
    list_source.labels[10] = 99
    batches = list(eval_batches(list_source, batch_size=6, image_size=8, augment=PLAIN))
    whole = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    assert np.flatnonzero(whole["bad"]).tolist() == [4, 10]
    assert np.flatnonzero(~whole["valid"]).tolist() == [4, 10, 11]
    assert whole["index"].tolist() == [*range(11), -1]
    assert not whole["image"][~whole["valid"]].any() and not whole["label"][10:].any()


def test_evaluation_is_the_same_in_worker_processes(digits):
    settings = dict(batch_size=512, image_size=8, augment=PLAIN)
    assert_same(
        list(eval_batches(digits, workers=2, **settings)), list(eval_batches(digits, **settings))
    )


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            dict(batch_size=6, hosts=4),
            "batch_size 6 does not divide among 4 hosts; write a multiple",
        ),
        (dict(batch_size=0), "batch_size 0 does not divide"),
        (dict(host=2, hosts=2), "host 2 is not one of 2 hosts"),
    ],
)
def test_sizes_that_do_not_fit_fail_before_the_first_batch(list_source, settings, message):
    defaults = dict(batch_size=8, image_size=8, augment=PLAIN)
    with pytest.raises(ValueError, match=message):
        train_batches(list_source, seed=0, **(defaults | settings))
    with pytest.raises(ValueError, match=message):
        eval_batches(list_source, **(defaults | settings))


def test_an_empty_source_is_refused(make_source):
    with pytest.raises(ValueError, match="list has no examples; choose another split"):
        eval_batches(make_source([], []), batch_size=4, image_size=8, augment=PLAIN)


def test_a_missing_decoder_fails_before_the_first_batch(list_source, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="OpenCV is not installed"):
        take(list_source, 1, augment=Augment(decoder="opencv"))
