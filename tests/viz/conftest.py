"""Images whose depths, answers and costs are known, without a model."""

import numpy as np
import pytest

from avit_jax.viz.look import Looked

GRID, LAYERS, SIDE = 4, 5, 32


@pytest.fixture
def make_looked():
    """Builds a `Looked` with 1 + 4 x 4 tokens that rest for good after their depth."""

    def make(**changed) -> Looked:
        generator = np.random.default_rng(changed.pop("seed", 0))
        depth = changed.pop("depth", generator.integers(1, LAYERS + 1, 1 + GRID**2))
        live = depth > np.arange(LAYERS)[:, None]
        until = 0.1 + np.cumsum(live.mean(1))
        values = {
            "name": "cat/one.png",
            "photograph": generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8),
            "label": 1,
            "answer": 1,
            "confidence": 0.75,
            "depth": depth,
            "live": live,
            "gmacs": float(until[-1]),
            "gmacs_until": until,
        }
        return Looked(**values | changed)

    return make
