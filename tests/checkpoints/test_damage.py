"""Checkpoints that are damaged or incomplete are noticed, named and never used silently."""

import errno
import logging
import os
import shutil
import signal
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp
from orbax.checkpoint.experimental.v1._src.context import context as orbax_context

from avit_jax.checkpoints.store import Checkpoints
from avit_jax.errors import UserError
from tests.checkpoints.states import assert_same, data_files, flip_byte, make_state


def kinds_of_files() -> list[str]:
    """Parts of file names that tell what kind of file a checkpoint's file is."""
    return ["manifest.json", "_CHECKPOINT_METADATA", "_METADATA", "_sharding", "ocdbt", "/d/"]


@pytest.mark.parametrize("kind", kinds_of_files())
def test_a_flipped_byte_is_found_and_the_previous_checkpoint_used(copy_of_two, kind, caplog):
    checkpoints, directory = copy_of_two
    name = next(name for name in data_files(directory / "2") if kind in name)
    flip_byte(directory / "2" / name)
    with caplog.at_level(logging.WARNING):
        step, found = checkpoints.restore(make_state())
    assert step == 1
    assert_same(found, make_state(1))
    assert name in caplog.text
    assert sorted(os.listdir(directory)) == ["1", "2.corrupt"]


def test_every_data_file_is_guarded(copy_of_two):
    checkpoints, directory = copy_of_two
    for name in data_files(directory / "2"):
        flip_byte(directory / "2" / name)
        with pytest.raises(UserError, match="step 2 is damaged"):
            checkpoints.restore(make_state(), step=2)
        flip_byte(directory / "2" / name)
    assert checkpoints.restore(make_state(), step=2)[0] == 2


@pytest.mark.parametrize("damage", ["truncated", "removed"])
def test_truncated_and_missing_files_are_named(copy_of_two, damage, caplog):
    checkpoints, directory = copy_of_two
    name = next(name for name in data_files(directory / "2") if "/d/" in name)
    path = directory / "2" / name
    size = path.stat().st_size
    if damage == "truncated":
        os.truncate(path, size - 1)
    else:
        path.unlink()
    with caplog.at_level(logging.WARNING):
        assert checkpoints.restore(make_state())[0] == 1
    says = f"has {size - 1} bytes instead of {size}" if damage == "truncated" else "is missing"
    assert f"{name} {says}" in caplog.text


def test_a_damaged_step_can_be_saved_again(copy_of_two):
    checkpoints, directory = copy_of_two
    flip_byte(directory / "2" / "manifest.json")
    assert checkpoints.restore(make_state())[0] == 1
    checkpoints.save(2, make_state(5))
    assert_same(checkpoints.restore(make_state())[1], make_state(5))
    assert (directory / "2.corrupt").exists()


def test_without_a_manifest_a_checkpoint_is_ignored_and_moved_aside_at_the_next_save(copy_of_two):
    checkpoints, directory = copy_of_two
    (directory / "2" / "manifest.json").unlink()
    (directory / "3.orbax-checkpoint-tmp").mkdir()
    assert checkpoints.steps() == [1]
    assert checkpoints.restore(make_state())[0] == 1
    checkpoints.save(4, make_state(4))
    checkpoints.wait()
    assert sorted(os.listdir(directory)) == ["1", "2.unlisted", "4"]


def test_what_a_killed_removal_of_the_oldest_left_is_taken_away(copy_of_two):
    checkpoints, directory = copy_of_two
    (directory / "1" / "manifest.json").unlink()
    checkpoints.save(4, make_state(4))
    checkpoints.wait()
    assert sorted(os.listdir(directory)) == ["2", "4"]


def test_only_an_unfinished_checkpoint_counts_as_none(copy_of_two):
    checkpoints, directory = copy_of_two
    for step in (1, 2):
        (directory / str(step) / "manifest.json").unlink()
    assert checkpoints.restore(make_state()) is None


def test_no_sound_checkpoint_left_never_starts_over_silently(copy_of_two):
    checkpoints, directory = copy_of_two
    for step in (1, 2):
        flip_byte(directory / str(step) / "state" / "_METADATA")
    with pytest.raises(UserError, match=r"no checkpoint .* is sound .*2: .*_METADATA .*start over"):
        checkpoints.restore(make_state())
    with pytest.raises(UserError, match=r"1\.corrupt was moved aside"):
        checkpoints.restore(make_state())


def test_a_failed_write_is_raised_by_wait_and_leaves_the_others(copy_of_two, monkeypatch):
    checkpoints, _ = copy_of_two

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("avit_jax.checkpoints.manifest.write_json_atomic", full)
        checkpoints.save(3, make_state(3))
        with pytest.raises(UserError, match=r"step 3 could not be written.*no room .*No space"):
            checkpoints.wait()
    assert checkpoints.steps() == [1, 2]
    checkpoints.save(3, make_state(3))
    checkpoints.wait()
    assert checkpoints.steps() == [1, 2, 3]


def test_where_no_folder_can_be_made_orbax_is_not_asked_to_wait_for_it(copy_of_two, monkeypatch):
    checkpoints, directory = copy_of_two

    def forbidden(path, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(type(directory), "mkdir", forbidden)
        patch.setattr(type(checkpoints._directory), "mkdir", forbidden)
        patch.setattr("avit_jax.runtime.stores.make_folder", lambda path: None)
        patch.setattr("avit_jax.checkpoints.store.ocp.save_async", lambda *_: pytest.fail("asked"))
        with pytest.raises(
            UserError, match=r"step 3 could not be written: .*/3\..* is not for this"
        ):
            checkpoints.save(3, make_state(3))
    assert checkpoints.steps() == [1, 2]


def test_a_save_has_no_limit_that_a_clock_put_forward_exceeds(copy_of_two, monkeypatch):
    checkpoints, _ = copy_of_two
    limits, save = [], ocp.save_async

    def noting(*arguments):
        limits.append(orbax_context.get_context().asynchronous.timeout_secs)
        return save(*arguments)

    monkeypatch.setattr("avit_jax.checkpoints.store.ocp.save_async", noting)
    checkpoints.save(3, make_state(3))
    checkpoints.wait()
    assert checkpoints.steps() == [1, 2, 3] and limits[0] > 1e9


@pytest.mark.parametrize("name", ["manifest.json", "state/_METADATA"])
def test_a_file_that_cannot_be_looked_at_is_damaged_unless_it_is_forbidden(
    copy_of_two, monkeypatch, name
):
    checkpoints, directory = copy_of_two
    place = directory / "2" / name
    place.unlink()
    place.symlink_to(place.name)  # to itself
    assert checkpoints.restore(make_state())[0] == 1
    stat = os.stat

    def forbidden(path, *arguments, **keywords):
        if os.fspath(path).endswith(f"1/{name}"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
        return stat(path, *arguments, **keywords)

    monkeypatch.setattr(os, "stat", forbidden)
    with pytest.raises(PermissionError):
        checkpoints.restore(make_state())
    monkeypatch.undo()
    assert (directory / "1").exists()


SAVE_FOREVER = """
import sys, jax.numpy as jnp
from avit_jax.checkpoints.store import Checkpoints
checkpoints = Checkpoints(sys.argv[1], keep=2)
for step in range(1, 10_000):
    checkpoints.save(step, {"step": jnp.full((256, 256), step)})
    print(step, flush=True)
"""


def test_killed_while_saving_leaves_a_sound_checkpoint(tmp_path):
    target = {"step": jnp.zeros((256, 256), jnp.int32)}
    for kill_after in (4, 3):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVE_FOREVER, tmp_path], stdout=subprocess.PIPE, text=True
        )
        # Line n + 1 appears as soon as checkpoint n is complete and n + 1 is being written.
        for _ in range(kill_after):
            started = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        checkpoints = Checkpoints(tmp_path, keep=2)
        step, found = checkpoints.restore(target)
        assert step >= started - 1
        np.testing.assert_array_equal(found["step"], np.full((256, 256), step))
        checkpoints.save(step + 1, target)
        checkpoints.close()
        assert set(os.listdir(tmp_path)) == {str(step), str(step + 1)}
        for left in checkpoints.steps():
            shutil.rmtree(tmp_path / str(left))
