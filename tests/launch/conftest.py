"""A place of its own for every launch."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launch.sandbox import Sandbox


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    box = Sandbox(tmp_path)
    yield box
    box.close()
