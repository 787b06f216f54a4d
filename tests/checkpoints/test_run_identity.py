"""A checkpoint knows its step and its run; what has gone or come from elsewhere is said."""

import shutil

import pytest
from etils import epath

from avit_jax.checkpoints import run_identity, set_aside
from avit_jax.checkpoints.run_identity import RunIdentity
from avit_jax.checkpoints.store import Checkpoints
from avit_jax.errors import UserError
from tests.checkpoints.states import assert_same, make_state

STATE = {"x": 1.0}


def saved(workdir, *steps, run=None):
    run = run or run_identity.begin(workdir, [])
    run.write()
    checkpoints = Checkpoints(workdir / "checkpoints", run=run)
    for step in steps:
        checkpoints.save(step, STATE)
    checkpoints.close()
    return run


def restored(workdir):
    checkpoints = Checkpoints(workdir / "checkpoints", run=run_identity.read(workdir))
    return checkpoints.restore(STATE), checkpoints.passed_over


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for workdir in (ours, theirs):
        workdir.mkdir()
        saved(workdir, 1, 2)
    shutil.rmtree(ours / "checkpoints" / "2")
    shutil.copytree(theirs / "checkpoints" / "2", ours / "checkpoints" / "2")
    with pytest.raises(
        UserError, match=r"checkpoints/2 is a checkpoint of another run than .*ours"
    ):
        restored(ours)


def test_a_checkpoint_under_another_number_is_refused(tmp_path):
    saved(tmp_path, 1, 2)
    shutil.copytree(tmp_path / "checkpoints" / "2", tmp_path / "checkpoints" / "9")
    with pytest.raises(UserError, match=r"checkpoints/9 holds the checkpoint of step 2 .*name 2"):
        restored(tmp_path)


def test_a_newest_checkpoint_that_has_gone_is_missed(tmp_path):
    saved(tmp_path, 1, 2)
    shutil.rmtree(tmp_path / "checkpoints" / "2")
    (step, _), passed_over = restored(tmp_path)
    assert (step, passed_over) == (1, ["2 (gone)"])


def test_checkpoints_older_than_identities_are_still_used(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(3, make_state(3))
    checkpoints.close()
    run = run_identity.begin(tmp_path, [3])
    opened = Checkpoints(tmp_path / "checkpoints", run=run)
    assert_same(opened.restore(make_state())[1], make_state(3))


def test_a_run_whose_file_has_gone_takes_its_number_from_its_checkpoints(tmp_path):
    run = saved(tmp_path, 1)
    (tmp_path / run_identity.FILE).unlink()
    assert run_identity.begin(tmp_path, [1]).number == run.number
    saved(tmp_path, 2, run=RunIdentity(tmp_path / run_identity.FILE, "another"))
    (tmp_path / run_identity.FILE).unlink()
    with pytest.raises(UserError, match="are of 2 runs"):
        run_identity.begin(tmp_path, [1, 2])


@pytest.mark.parametrize("text", ["", "3", "[]", "{}", '{"run": 1, "saved": 2}'])
def test_a_damaged_file_is_one_sentence(tmp_path, text):
    (tmp_path / run_identity.FILE).write_text(text)
    with pytest.raises(UserError, match=r"run\.json is damaged .* or remove it"):
        run_identity.read(tmp_path)


def test_a_folder_that_cannot_be_renamed_is_passed_over(tmp_path, monkeypatch, caplog):
    saved(tmp_path, 1, 2)
    (tmp_path / "checkpoints" / "2" / "manifest.json").write_text("{")

    def fail(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(epath.Path(tmp_path)), "rename", fail)
    (step, _), _ = restored(tmp_path)
    assert step == 1
    assert "stays where it is (Permission denied)" in caplog.text
    assert set_aside.moved_before(epath.Path(tmp_path / "checkpoints")) == []
