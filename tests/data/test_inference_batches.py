"""Images are decoded ahead in order and within bounds, and no file can end the run."""

import io
import threading

import numpy as np
import pytest
from PIL import Image

from avit_jax.data import inference_batches
from avit_jax.data.augment import Augment, eval_image
from avit_jax.data.example import BadExample, Example

AUGMENT = Augment(crop_ratio=0.875)
SIZE = 8


def encoded(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def photograph(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 15, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels))


class Listed:
    """Examples from a list, which remembers what was read."""

    name, class_names = "listed", ("ant", "bee")

    def __init__(self, images):
        self.images, self.read = images, []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.read.append(index)
        if isinstance(self.images[index], Exception):
            raise self.images[index]
        return Example(self.images[index], index % 2)

    def describe(self, index):
        return f"listed[{index}]"


def load(source, indices, *, batch_size=4, threads=2):
    return inference_batches.load_ahead(
        source,
        indices,
        batch_size=batch_size,
        image_size=SIZE,
        augment=AUGMENT,
        threads=threads,
    )


@pytest.mark.parametrize(("batch_size", "threads"), [(1, 3), (4, 2), (100, 1)])
def test_every_image_comes_once_in_order_as_evaluation_sees_it(batch_size, threads):
    source = Listed([photograph(seed) for seed in range(13)])
    seen = []
    for loaded in load(source, range(2, 13), batch_size=batch_size, threads=threads):
        assert loaded.images.shape == (batch_size, SIZE, SIZE, 3)
        assert not loaded.images[len(loaded.labels) :].any()
        seen += [
            (loaded.start + row, label, reason, loaded.images[row])
            for row, (label, reason) in enumerate(zip(loaded.labels, loaded.reasons, strict=True))
        ]
    assert [row[:3] for row in seen] == [(index, index % 2, None) for index in range(2, 13)]
    for index, *_, image in seen:
        expected = eval_image(source.images[index], size=SIZE, augment=AUGMENT)
        np.testing.assert_array_equal(image, expected)


def test_whatever_a_file_does_becomes_its_reason(monkeypatch):
    good = photograph(0)
    images = {
        good: None,
        b"text": "cannot be decoded: no known image format in its 4 bytes",
        good[: len(good) // 2]: "cannot be decoded: ",
        encoded(Image.new("RGB", (1, 2_000_000))): "is 1 x 2000000 pixels, too long and thin to be",
        photograph(1): "cannot be used: KeyError: 'quantisation'",
        photograph(2): "cannot be used: MemoryError",
    }
    broken = {photograph(1): KeyError("quantisation"), photograph(2): MemoryError()}

    def decoding(image, **arguments):
        if image in broken:
            raise broken[image]
        return eval_image(image, **arguments)

    monkeypatch.setattr(inference_batches, "eval_image", decoding)
    source = Listed([*images, BadExample("cannot be read: gone"), OSError("I/O error")])
    (loaded,) = load(source, range(len(source)), batch_size=10)
    wanted = [*images.values(), "cannot be read: gone", "cannot be used: OSError: I/O error"]
    for label, reason, start, image in zip(
        loaded.labels, loaded.reasons, wanted, loaded.images, strict=False
    ):
        assert (reason or "").startswith(start or "")
        assert (reason is None) == (start is None) == (label is not None) == image.any()


def test_memory_is_bounded_and_closing_stops_the_threads():
    source = Listed([photograph(0)] * 1000)
    batches = load(source, range(1000))
    next(batches)
    batches.close()
    assert max(source.read) < 4 * 4, "one batch delivered, two ahead, and the one in work"
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("decode")]
