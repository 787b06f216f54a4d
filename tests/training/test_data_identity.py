"""Data that are others than those a checkpoint was made with are said, or refused."""

import re
from types import SimpleNamespace

import pytest

from avit_jax.errors import UserError
from avit_jax.training import data_identity


class Images:
    """A source of which only the names count."""

    def __init__(self, *names, class_names=("cat", "dog")):
        self.names, self.class_names = names, class_names

    def __len__(self):
        return len(self.names)

    def describe(self, index):
        return self.names[index]


def identity(*names, class_names=("cat", "dog"), evaluation=("/data/val/cat/9.jpg",)):
    train = Images(*names, class_names=class_names)
    return data_identity.identity(
        SimpleNamespace(train_source=train, eval_source=Images(*evaluation))
    )


BEFORE = identity("/data/train/cat/1.jpg", "/data/train/dog/2.jpg")


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (identity("/data/train/cat/1.jpg"), "training images .*2 images then, 1 now"),
        (identity("/data/train/cat/1.jpg", "/data/train/dog/3.jpg"), "with other names"),
        (
            identity("/data/train/cat/1.jpg", "/data/train/dog/2.jpg", evaluation=()),
            "evaluation images .*1 images then, 0 now",
        ),
    ],
)
def test_images_that_were_added_removed_or_renamed_are_said(now, said, caplog):
    data_identity.refuse_other_classes(BEFORE, now)
    assert len(caplog.messages) == 1
    assert re.search(said, caplog.text)


def test_data_that_have_moved_are_the_same(caplog):
    now = identity("/new/train/cat/1.jpg", "/new/train/dog/2.jpg", evaluation=("/x/cat/9.jpg",))
    data_identity.refuse_other_classes(BEFORE, now)
    assert caplog.text == ""


@pytest.mark.parametrize("class_names", [("dog", "cat"), ("cat",), ("cat", "dog", "eel")])
def test_other_classes_are_refused(class_names):
    now = identity("/data/train/cat/1.jpg", class_names=class_names)
    with pytest.raises(UserError, match="classes of the data are not those"):
        data_identity.refuse_other_classes(BEFORE, now)


def test_a_checkpoint_without_them_takes_any():
    data_identity.refuse_other_classes(None, BEFORE)
