"""An exported model; needs jax and flatbuffers only: `python load.py images.npy`.

`load(folder)(images)` takes uint8 images [B, H, W, 3], resized as export.json says, and returns
arrays: logits [B, C], depth [B, N] (layers that each token went through), gmacs [B].
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from jax import export


def load(folder=Path(__file__).parent):
    """A function of images; programs for a fixed batch get as many batches as there are images."""
    described = json.loads(Path(folder, "export.json").read_text())
    batch_size = described["batch_size"]
    program = jax.jit(
        export.deserialize(bytearray(Path(folder, "model.stablehlo").read_bytes())).call
    )
    weights = jax.device_put(dict(np.load(Path(folder, "weights.npz"))))

    def answer(images):
        images = checked(images, described["preprocessing"]["input"]["shape"][1])
        size = batch_size or max(1, len(images))
        count = max(1, -(-len(images) // size))  # batches: one of nothing for the answers' shapes
        filled = np.pad(images, [(0, count * size - len(images)), (0, 0), (0, 0), (0, 0)])
        exists = np.arange(len(filled)) < len(images)
        batches = [slice(first, first + size) for first in range(0, len(filled), size)]
        parts = [program(weights, filled[batch], exists[batch]) for batch in batches]
        return jax.tree.map(lambda *part: np.concatenate(part)[: len(images)], *parts)

    return answer


def checked(images, size):
    """Images as an array uint8 [B, S, S, 3]; raises ValueError for anything else."""
    if isinstance(images, (list, tuple)):
        shapes = {np.shape(image) for image in images}
        if len(shapes) > 1:
            raise ValueError(f"images of a list have several shapes {sorted(shapes)}: resize them.")
        images = np.stack(images) if images else np.empty((0, size, size, 3), np.uint8)
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3):
        raise ValueError(
            f"images are {images.dtype} {list(images.shape)}, but this program takes pixels 0..255 "
            f"as uint8 [B, {size}, {size}, 3], resized as export.json says."
        )
    return images


if __name__ == "__main__":
    answers = load()(np.load(sys.argv[1]))
    labels = json.loads(Path(__file__).with_name("export.json").read_text())["labels"]
    for logits, gmacs in zip(answers["logits"], answers["gmacs"], strict=True):
        print(f"{labels[logits.argmax()]}\t{gmacs:.4g} GMACs")
