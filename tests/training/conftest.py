"""Plain gradient descent."""

import pytest

from tests.training.trainer import Trainer, make_model


@pytest.fixture(scope="session")
def plain() -> Trainer:
    return Trainer(make_model())
