"""1,797 real handwritten digits carried in the package, so that a fresh clone can train at once.

Name: Optical Recognition of Handwritten Digits, the test part (`digits.npz`).
Creators: E. Alpaydin, C. Kaynak (1998), UCI Machine Learning Repository, doi 10.24432/C50P49.
Licence: Creative Commons Attribution 4.0 International (CC BY 4.0).
Changes: repacked as `images` uint8 [1797, 8, 8] with values 0..16, `labels` uint8 [1797], and
`form` uint8 [1797], which is derived here and not part of UCI's files.

Each value counts the ink pixels in a 4x4 block of a 32x32 bitmap. UCI splits the whole data set by
writer: 3,823 training images of 30 writers and these 1,797 test images of 13 other writers. The
training part is not carried here, so that split cannot be used, and UCI names no writer per image.
But every writer copied the same preprinted form of 130 digits and the images are in form order, so
the labels alone show where each form begins (`recover_forms`): 14 forms. UCI states 13 writers, so
one writer may have filled in two forms.

The fixed split "by form": `train` is forms 1-10 (1,287 images), `validation` is forms 11-14 (510
images). No form is in both; should the writer of two forms be one from each side, that writer is.
Other forms are splits, too: "forms 3-5", "forms 1,2,6-14". `folds` parts them for cross-validation.
"""

import re
from pathlib import Path

import numpy as np

from avit_jax.data.example import Example
from avit_jax.errors import UserError

FORM_LENGTH = 130
NUM_FORMS = 14
FORMS = {"train": range(1, 11), "validation": range(11, 15)}
_SOME_FORMS = re.compile(r"forms \d+(-\d+)?(,\d+(-\d+)?)*")


def load() -> dict[str, np.ndarray]:
    """Returns `images` uint8 [1797, 8, 8] (0..16), `labels` and `form` (1..14), uint8 [1797]."""
    with np.load(Path(__file__).with_name("digits.npz")) as arrays:
        return {name: arrays[name] for name in ("images", "labels", "form")}


def recover_forms(labels: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns each image's form, int [N] counted from 1, and the number of edits it takes.

    The labels are aligned with endless copies of the preprinted prompt, which is read off the
    first form (complete: it has all 130 digits). An edit is a digit of the prompt that has no image
    (rejected by the segmentation), an image with another label than the prompt's, or an image
    beyond the prompt; a shortest path over (image, place in the prompt) finds the fewest edits
    (Levenshtein 1966). A form begins where the place wraps round to the start.
    """
    labels = np.asarray(labels, dtype=np.int64)
    prompt = labels[:FORM_LENGTH]
    places = np.arange(FORM_LENGTH)
    # Digits of the prompt skipped when going from place i to place j; staying is one extra image.
    skipped = (places[None, :] - places[:, None] - 1) % FORM_LENGTH
    np.fill_diagonal(skipped, 1)
    moves = places[None, :] != places[:, None]

    cost = places + (prompt != labels[0])
    steps = []
    for label in labels[1:]:
        total = cost[:, None] + skipped + (moves & (prompt != label)[None, :])
        steps.append(total.argmin(axis=0))
        cost = total.min(axis=0)
    cost = cost + (FORM_LENGTH - 1 - places)

    path = [int(cost.argmin())]
    for step in reversed(steps):
        path.append(int(step[path[-1]]))
    starts = np.diff(path[::-1], prepend=FORM_LENGTH) < 0
    return np.cumsum(starts), int(cost.min())


def forms_of(split: str) -> tuple[int, ...]:
    """The forms of a split: "train", "validation", or some by their numbers, "forms 1,2,6-14".

    Raises:
        UserError: it is none, or names a form that does not exist.
    """
    if split in FORMS:
        return tuple(FORMS[split])
    if not _SOME_FORMS.fullmatch(split):
        raise UserError(
            f"the digits have no split {split!r}; write one of {', '.join(map(repr, FORMS))}, or "
            "some of their forms, such as 'forms 1-3' or 'forms 1,2,6-14'"
        )
    ends = [part.partition("-") for part in split.removeprefix("forms ").split(",")]
    found = {form for a, _, b in ends for form in range(int(a), int(b or a) + 1)}
    if not found or not found <= set(range(1, NUM_FORMS + 1)):
        raise UserError(
            f"the digits have forms 1 to {NUM_FORMS}, but the split is {split!r}; write the lower "
            "number first, and none beyond these"
        )
    return tuple(sorted(found))


def folds(count: int) -> list[tuple[str, str]]:
    """Pairs of splits, to train on and to evaluate on, with which every image is evaluated once.

    Each fold evaluates whole forms, neighbours of each other, as many as the others or one more.

    Raises:
        UserError: fewer than two folds, or more than there are forms.
    """
    if not 2 <= count <= NUM_FORMS:
        raise UserError(f"{count} folds of {NUM_FORMS} forms: write a number from 2 to {NUM_FORMS}")
    forms = np.arange(1, NUM_FORMS + 1)
    return [
        tuple(f"forms {','.join(map(str, some))}" for some in (np.setdiff1d(forms, held), held))
        for held in np.array_split(forms, count)
    ]


class DigitsSource:
    """The digits of some forms, 8x8 grey pixels scaled to 0..255."""

    name = "digits"
    class_names = tuple("0123456789")

    def __init__(self, *, split: str) -> None:
        """Loads the images of `split`, see `forms_of`."""
        forms, arrays = forms_of(split), load()
        self._rows = np.flatnonzero(np.isin(arrays["form"], forms))
        # 16 inked pixels of 16 are white; 255/16 is not whole, hence the rounding.
        self._images = np.rint(arrays["images"][self._rows] * (255 / 16)).astype(np.uint8)
        self._labels = arrays["labels"][self._rows].tolist()
        self._split = split

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Example:
        """Returns the image, uint8 [8, 8] with ink bright on black, and its digit."""
        return Example(self._images[index], self._labels[index])

    def describe(self, index: int) -> str:
        """Returns for example `digits train[17] (row 17 of UCI's test file)`."""
        row = self._rows[index]
        return f"digits {self._split}[{index}] (row {row} of UCI's test file)"
