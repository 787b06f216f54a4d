"""Metrics that read as one run, files that are never half-written, and tables."""

import json
import math
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax.runtime.files import write_json_atomic, write_text_atomic
from avit_jax.runtime.metrics_log import MetricsWriter
from avit_jax.runtime.tables import columns, table


def lines_of(workdir) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def write_steps(workdir, steps, **options) -> None:
    writer = MetricsWriter(workdir, tensorboard=False, **options)
    for step in steps:
        writer.write(step, "train", {"loss": 1 / step})
    writer.close()


def test_lines_hold_step_kind_and_values(tmp_path):
    writer = MetricsWriter(tmp_path, tensorboard=False)
    writer.write(100, "eval", {"top1": jnp.float32(0.1), "depth": np.array([1, 2]), "count": 3})
    writer.close()
    expected = {"step": 100, "kind": "eval", "top1": float(np.float32(0.1)), "depth": [1, 2]}
    assert lines_of(tmp_path) == [{**expected, "count": 3}]


@pytest.mark.parametrize("value", [0.1 + 0.2, 5e-324, float(np.float32(1 / 3)), 1e300, -0.0])
def test_floats_keep_all_their_bits(tmp_path, value):
    writer = MetricsWriter(tmp_path, tensorboard=False)
    writer.write(1, "train", {"loss": value})
    writer.close()
    assert lines_of(tmp_path)[0]["loss"].hex() == value.hex()


def test_bfloat16_is_written_as_the_number_it_is(tmp_path):
    write_json_atomic(tmp_path / "x.json", {"x": jnp.bfloat16(1.5)})
    assert json.loads((tmp_path / "x.json").read_text()) == {"x": 1.5}


def test_values_that_are_no_numbers_stay_valid_json(tmp_path):
    writer = MetricsWriter(tmp_path, tensorboard=False)
    writer.write(1, "train", {"loss": math.nan, "norms": [math.inf, jnp.float32(-math.inf)]})
    writer.close()
    line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
    assert math.isnan(float(line["loss"]))
    assert [float(norm) for norm in line["norms"]] == [math.inf, -math.inf]


def test_a_resumed_log_equals_an_uninterrupted_one(tmp_path):
    write_steps(tmp_path / "whole", range(1, 10))
    write_steps(tmp_path / "resumed", range(1, 8))
    write_steps(tmp_path / "resumed", range(5, 10), restored_step=4)
    whole, resumed = ((tmp_path / run / "metrics.jsonl") for run in ("whole", "resumed"))
    assert resumed.read_bytes() == whole.read_bytes()


def test_nothing_restored_starts_an_empty_log(tmp_path):
    write_steps(tmp_path, range(1, 4))
    MetricsWriter(tmp_path, tensorboard=False).close()
    assert lines_of(tmp_path) == []


@pytest.mark.parametrize("half", [b'{"step": 3, "kind": "tr', b'{"step": 3}', b"\x00\x00", b"7\n"])
def test_a_half_written_line_is_cut(tmp_path, half):
    write_steps(tmp_path, (1, 2))
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(half)
    write_steps(tmp_path, (4,), restored_step=3)
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2, 4]


def test_names_of_fixed_fields_are_refused(tmp_path):
    writer = MetricsWriter(tmp_path, tensorboard=False)
    with pytest.raises(ValueError, match="'step'"):
        writer.write(1, "train", {"step": 1})
    writer.close()


def test_only_process_zero_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("jax.process_index", lambda: 1)
    writer = MetricsWriter(tmp_path)
    writer.write(1, "train", {"loss": 1.0})
    writer.flush()
    writer.close()
    assert list(tmp_path.iterdir()) == []


def read_events(path):
    """Events of a file: records of length (8 bytes), checksum (4), data, checksum (4)."""
    from tensorboardX.proto.event_pb2 import Event

    content, position, events = path.read_bytes(), 0, []
    while position < len(content):
        size = int.from_bytes(content[position : position + 8], "little")
        events.append(Event.FromString(content[position + 12 : position + 12 + size]))
        position += size + 16
    return events


def test_scalars_become_tensorboard_events_and_later_ones_are_purged_on_resume(tmp_path):
    writer = MetricsWriter(tmp_path, restored_step=4)
    writer.write(5, "train", {"loss": 0.5, "histogram": [1, 2], "norm": math.inf})
    writer.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    events = read_events(path)
    scalars = [(e.step, v.tag, v.simple_value) for e in events for v in e.summary.value]
    assert scalars == [(5, "train/loss", 0.5), (5, "train/norm", math.inf)]
    assert [e.step for e in events if e.HasField("session_log")] == [5]


def test_flushed_lines_are_there_before_closing(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.write(1, "train", {"loss": 0.5})
    writer.flush()
    flushed = lines_of(tmp_path)
    writer.close()
    assert len(flushed) == 1


def test_events_are_all_there_after_closing(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.write(1, "train", {"loss": 0.5})
    writer.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    assert any(event.summary.value for event in read_events(path))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    write_text_atomic(tmp_path / "x.txt", "old")

    def fail(_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_text_atomic(tmp_path / "x.txt", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]
    assert (tmp_path / "x.txt").read_text() == "old"


def test_json_refuses_what_it_cannot_hold(tmp_path):
    with pytest.raises(TypeError, match="a set cannot be written as JSON"):
        write_json_atomic(tmp_path / "x.json", {"x": {1}})
    assert list(tmp_path.iterdir()) == []


def test_columns_align_words_left_and_numbers_right():
    text = columns(["name", "GMACs"], [["avit_tiny", "0.9"], ["deit_tiny", "11.25"], ["x", "–"]])
    assert text.splitlines() == [
        "name       GMACs",
        "─────────  ─────",
        "avit_tiny    0.9",
        "deit_tiny  11.25",
        "x              –",
    ]


def test_columns_refuse_a_row_of_another_length():
    with pytest.raises(ValueError, match="2 columns was given 1 cells"):
        columns(["a", "b"], [["1"]])


@pytest.mark.parametrize("title", ["run", "a title that is wider than every row of the table"])
def test_table_is_a_box_of_equal_lines(title):
    lines = table([("top-1", "98.3 %"), ("mean token depth", "3.4 of 6")], title).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert title in lines[1]
    assert "mean token depth   3.4 of 6" in lines[4]


def test_writing_needs_neither_tensorflow_nor_torch(tmp_path):
    program = (
        "import sys; from avit_jax.runtime.metrics_log import MetricsWriter; "
        "MetricsWriter(sys.argv[1]).close(); "
        "print(*sorted({'tensorflow', 'torch'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, tmp_path]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "\n"
