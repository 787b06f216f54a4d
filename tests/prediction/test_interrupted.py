"""Predictions that are interrupted go on without a gap, and nothing else is mixed in."""

import shutil

import numpy as np
import pytest

from avit_jax.errors import Preempted, UserError
from avit_jax.methods.base import Model
from avit_jax.prediction.run import predict_run
from avit_jax.runtime.json_lines import identity_path
from tests.prediction.lines import read

pytestmark = pytest.mark.usefixtures("compiled_once")


def test_interrupted_anywhere_the_file_ends_as_if_it_never_was(run, whole, tmp_path):
    text = whole.read_bytes()
    generator = np.random.default_rng(0)
    for length in (0, 1, len(text) - 1, *generator.integers(0, len(text), 4).tolist()):
        path = tmp_path / f"{length}.jsonl"
        path.write_bytes(text[:length])
        shutil.copy(identity_path(whole), identity_path(path))
        predict_run(*run[:2], output=path)
        assert path.read_bytes() == text


def test_a_notice_ends_the_run_after_a_batch_and_the_same_call_goes_on(run, whole, tmp_path):
    path = tmp_path / "lines.jsonl"
    with pytest.raises(Preempted, match="stopped after 192 of 510 images"):
        predict_run(*run[:2], output=path, stop=lambda step: step == 3)
    assert len(read(path)) == 192
    predict_run(*run[:2], output=path, stop=lambda step: step == 5)
    assert path.read_bytes() == whole.read_bytes()


def test_a_finished_file_is_left_as_it_is_without_a_model_being_compiled(run, whole, monkeypatch):
    text = whole.read_bytes()
    monkeypatch.setattr(Model, "compile", None)
    assert predict_run(*run[:2]).read_bytes() == text


def test_lines_that_were_moved_about_are_refused(run, whole, tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text("\n".join(reversed(whole.read_text().splitlines())) + "\n")
    shutil.copy(identity_path(whole), identity_path(path))
    with pytest.raises(UserError, match="has been changed since"):
        predict_run(*run[:2], output=path)
