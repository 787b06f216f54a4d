"""A small model, and a split in which three images could not be read."""

import numpy as np
import pytest

from avit_jax import create_model
from tests.evaluation.digit_split import CLASSES, IMAGES, LAYERS


@pytest.fixture(scope="session")
def model():
    return create_model(
        "avit_micro_patch4_32",
        method={"gate_scale": 3.0, "gate_center": 0.5},
        patch_size=8,
        embed_dim=24,
        depth=LAYERS,
        num_heads=2,
        num_classes=CLASSES,
    )


@pytest.fixture(scope="session")
def split():
    """37 images of 6 of the 7 classes; the last class has none, and three could not be read."""
    generator = np.random.default_rng(1)
    valid = np.ones(IMAGES, bool)
    valid[[3, 17, 36]] = False
    return {
        "image": generator.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8),
        "label": generator.integers(0, CLASSES - 1, IMAGES, dtype=np.int32),
        "valid": valid,
    }
