"""Parses flags as the program would, for the tests of its command line."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from absl.testing import flagsaver
from ml_collections import ConfigDict

from avit_jax import main

DIGITS = str(Path(__file__).parents[1] / "configs" / "avit_digits.py")


@contextlib.contextmanager
def parser(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ConfigDict]]:
    """A function that parses arguments, once; the program's own flags are left as they were."""

    def parsed(*arguments: str) -> ConfigDict:
        monkeypatch.setattr(sys, "argv", ["main", *arguments])
        main.parse_flags(sys.argv)
        return main.CONFIG.value

    with flagsaver.flagsaver():
        yield parsed


def refusal(parse: Callable[..., ConfigDict], capsys: pytest.CaptureFixture, *arguments) -> str:
    """What the program says to arguments that it refuses."""
    with pytest.raises(SystemExit) as end:
        parse(*arguments)
    assert end.value.code == main.errors.EXIT_USAGE
    return capsys.readouterr().err
