"""A log that is not what its checkpoint says is kept, and it is said what it lacks."""

import pytest

from avit_jax.errors import UserError
from avit_jax.runtime.growing_file import LogMark
from avit_jax.runtime.metrics_log import MetricsWriter

CONTENT = b'{"step": 1}\n{"step": 2}\n{"step": 3}\n'


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (CONTENT[:24], "1 are missing"),
        (b"", "3 are missing"),
        (CONTENT[:30], "1 cannot be read"),
        (CONTENT.replace(b"{", b"(", 1), "1 cannot be read"),
        (CONTENT.replace(b"2", b"7"), "others are there, or were changed"),
    ],
)
def test_what_is_wrong_is_counted(found, said):
    assert said in LogMark.of(CONTENT).damage(found)


def test_what_follows_the_mark_is_of_no_concern():
    assert LogMark.of(CONTENT).damage(CONTENT + b"torn") is None


def written(workdir, steps, **options):
    writer = MetricsWriter(workdir, tensorboard=False, **options)
    for step in steps:
        writer.write(step, "train", {"loss": 1 / step})
    writer.flush()
    mark = writer.mark()
    writer.close()
    return mark


def test_a_sound_log_goes_on_without_a_word(tmp_path, caplog):
    mark = written(tmp_path, (1, 2))
    assert written(tmp_path, (3,), restored_step=2, mark=mark).lines == 3
    assert caplog.text == ""


def test_a_damaged_log_is_kept_beside_and_named(tmp_path, caplog):
    mark = written(tmp_path, (1, 2))
    file = tmp_path / "metrics.jsonl"
    damaged = file.read_bytes().replace(b"{", b"(", 1)
    file.write_bytes(damaged)
    assert written(tmp_path, (3,), restored_step=2, mark=mark).lines == 2
    assert "of the 2 lines that belong to the checkpoint 1 cannot be read" in caplog.text
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == damaged


def test_unreadable_lines_of_a_checkpoint_without_mark_are_said(tmp_path, caplog):
    (tmp_path / "metrics.jsonl").write_bytes(CONTENT.replace(b"{", b"(", 1))
    written(tmp_path, (), restored_step=3)
    assert "1 of 3 lines cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.unlink(), "removed or renamed"),
        (lambda file: (file.unlink(), file.write_text("x")), "replaced by another file"),
        (lambda file: file.write_text(""), "emptied or shortened to 0 bytes"),
    ],
)
def test_a_log_that_is_taken_away_while_it_grows_is_missed_at_the_next_save(tmp_path, damage, said):
    writer = MetricsWriter(tmp_path, tensorboard=False)
    writer.write(1, "train", {"loss": 1.0})
    damage(tmp_path / "metrics.jsonl")
    with pytest.raises(UserError, match=said):
        writer.close()
