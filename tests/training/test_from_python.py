"""Trainings and budgets from Python; the notebooks' test runs them."""

import pytest

import avit_jax
from avit_jax.errors import UserError


@pytest.mark.parametrize(
    ("recipe", "workdir", "config", "sentence"),
    [
        ("avit_digit", "run", None, "there is no config file 'avit_digit'"),
        ("avit_digits", "file", None, "file is a file: write the path of a folder"),
        ("avit_digits", "run", [("seed", 1)], "config is a list: write settings as"),
        ("avit_digits", "run", {"train.epoch": 1.0}, "the config has no key 'train.epoch'"),
        ("finetune", "run", {"data.dir": "nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    recipe, workdir, config, sentence, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=sentence):
        avit_jax.train(recipe, workdir, config=config)
    assert not (tmp_path / "run").exists()


def test_budgets_of_no_run_and_no_budgets_are_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        avit_jax.meet_budgets(tmp_path / "nothing", 0.7)
    with pytest.raises(UserError, match="there is no budget"):
        avit_jax.meet_budgets(tmp_path, [])
