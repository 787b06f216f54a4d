"""Lines of predictions: read, and compared with those that they should be."""

import json

import pytest

IMAGES = 510  # of the digits' validation split


def assert_like(line, expected):
    """The same words and, but for rounding, the same numbers."""
    assert line.keys() == expected.keys()
    for name, value in expected.items():
        assert line[name] == (value if isinstance(value, str) else pytest.approx(value, rel=2e-5))


def inference(config, **values):
    """The config with other values in that section."""
    changed = config.copy_and_resolve_references()
    changed.inference.update(values)
    return changed


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]
