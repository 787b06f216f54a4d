import pickle

import numpy as np
import pytest

from avit_jax.data import digits
from avit_jax.data.digits import DigitsSource, recover_forms


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
    with pytest.raises(ValueError, match="no split 'test'; write one of 'train', 'validation'"):
        DigitsSource(split="test")
