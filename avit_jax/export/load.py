"""An exported model; needs jax and flatbuffers only: `python load.py images.npy`.

`load(folder)(images)` takes uint8 images [B, H, W, 3], resized as export.json says, and returns
arrays: logits [B, C], depth [B, N] (layers that each token went through), gmacs [B].
"""

import hashlib
import io
import json
import sys
from pathlib import Path

import jax
import numpy as np
from jax import export


def load(folder=Path(__file__).parent):
    """A function of images; programs for a fixed batch get as many batches as there are images.

    Raises ValueError where a file of the folder is missing or damaged.
    """
    described = read(folder, "export.json", description)
    batch_size = described["batch_size"]
    stored = read(folder, "model.stablehlo", lambda stored: unchanged(stored, described["sha256"]))
    weights = read(folder, "weights.npz", lambda stored: dict(np.load(io.BytesIO(stored))))
    program = jax.jit(export.deserialize(bytearray(stored)).call)
    weights = jax.device_put(weights)

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


def read(folder, name, understood):
    """A file of the folder, as `understood` makes it of its bytes; ValueError where it cannot."""
    try:
        return understood(Path(folder, name).read_bytes())
    except Exception as error:  # whatever readers of damaged files raise
        damage = f"{name} in {folder} is missing or damaged ({type(error).__name__}: {error})"
        raise ValueError(f"{damage}: export the run again.") from error


def description(stored):
    """What the loader needs of export.json."""
    said = json.loads(stored)
    return {name: said[name] for name in ("batch_size", "labels", "preprocessing", "sha256")}


def unchanged(stored, sha256):
    """The bytes of the program, if they are what was exported: of others JAX might make others."""
    if hashlib.sha256(stored).hexdigest() != sha256:
        raise ValueError("it is not the program that export.json describes")
    return stored


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
    here = Path(__file__).parent
    try:
        answers = load(here)(np.load(sys.argv[1]))
    except (EOFError, OSError, ValueError) as problem:
        sys.exit(f"load.py: {problem}")
    labels = read(here, "export.json", description)["labels"]
    for logits, gmacs in zip(answers["logits"], answers["gmacs"], strict=True):
        print(f"{labels[logits.argmax()]}\t{gmacs:.4g} GMACs")
