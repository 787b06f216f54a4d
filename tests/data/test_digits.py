import pickle

import numpy as np
import pytest

from avit_jax.data import digits
from avit_jax.data.digits import DigitsSource, recover_forms
from avit_jax.errors import UserError


def test_file_has_the_images_of_uci_test_part():
    arrays = digits.load()
    assert arrays["images"].shape == (1797, 8, 8) and arrays["images"].dtype == np.uint8
    assert (arrays["images"].min(), arrays["images"].max()) == (0, 16)
    # Counts per class as UCI states them for its test part.
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.bincount(arrays["labels"]).tolist() == counts


def test_forms_are_recovered_from_the_labels_alone():
    arrays = digits.load()
    forms, edits = recover_forms(arrays["labels"])
    np.testing.assert_array_equal(forms, arrays["form"])
    # 23 rejected characters and one label that departs from the prompt.
    assert edits == 24 and 14 * digits.FORM_LENGTH - len(forms) == 23
    starts = np.flatnonzero(np.diff(forms, prepend=0))
    assert starts.tolist() == [
        0, 130, 256, 386, 516, 646, 776, 906, 1029, 1157, 1287, 1415, 1545, 1667
    ]  # fmt: skip


@pytest.mark.parametrize("lost", [[], [131], [130, 259], [5, 6, 7, 140, 200, 300]])
def test_recovery_survives_lost_characters(lost):
    labels = np.tile(digits.load()["labels"][:130], 3)
    forms = np.repeat([1, 2, 3], 130)
    # The first form is the prompt and stays complete.
    lost = [row for row in lost if row >= 130]
    found, edits = recover_forms(np.delete(labels, lost))
    np.testing.assert_array_equal(found, np.delete(forms, lost))
    assert edits == len(lost)


def test_split_is_by_form():
    train, validation = DigitsSource(split="train"), DigitsSource(split="validation")
    assert (len(train), len(validation)) == (1287, 510)
    form = digits.load()["form"]
    assert set(form[:1287]) == set(range(1, 11)) and set(form[1287:]) == set(range(11, 15))
    assert train.class_names == tuple("0123456789")


def test_examples_are_scaled_to_255_and_named():
    source = pickle.loads(pickle.dumps(DigitsSource(split="validation")))
    arrays = digits.load()
    image, label = source[3]
    expected = np.rint(arrays["images"][1290] * (255 / 16))
    np.testing.assert_array_equal(image, expected)
    assert image.dtype == np.uint8 and label == arrays["labels"][1290]
    assert source.describe(3) == "digits validation[3] (row 1290 of UCI's test file)"


def test_unknown_split_names_the_two():
    with pytest.raises(ValueError, match="no split 'test'; write one of 'train', 'validation', or"):
        DigitsSource(split="test")


def test_some_forms_are_a_split():
    assert digits.forms_of("forms 1-3") == (1, 2, 3)
    assert digits.forms_of("forms 14,1,2,6-8") == (1, 2, 6, 7, 8, 14)
    assert len(DigitsSource(split="forms 11-14")) == len(DigitsSource(split="validation"))
    for wrong in ("forms 0-3", "forms 15", "forms 3-1", "forms 5-40"):
        with pytest.raises(UserError, match="forms 1 to 14"):
            digits.forms_of(wrong)
    with pytest.raises(UserError, match="no split 'forms a'"):
        digits.forms_of("forms a")


@pytest.mark.parametrize("count", [2, 4, 5, 14])
def test_folds_evaluate_every_image_once_and_train_on_none_of_them(count):
    rows = [[DigitsSource(split=split)._rows for split in fold] for fold in digits.folds(count)]
    assert len(rows) == count
    np.testing.assert_array_equal(np.concatenate([held for _, held in rows]), np.arange(1797))
    for trained, held in rows:
        np.testing.assert_array_equal(np.union1d(trained, held), np.arange(1797))
        assert not np.intersect1d(trained, held).size


@pytest.mark.parametrize("count", [0, 1, 15])
def test_folds_without_a_form_are_refused(count):
    with pytest.raises(UserError, match="from 2 to 14"):
        digits.folds(count)
