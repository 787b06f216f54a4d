import json

import pytest

from avit_jax.errors import UserError
from avit_jax.runtime.appended import StoredFile
from avit_jax.runtime.json_lines import JsonLines
from avit_jax.runtime.metrics_log import MetricsWriter
from avit_jax.runtime.stores import children

WORK = {"model": "a"}


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_log_longer_than_is_written_whole_goes_out_in_parts_and_is_one_object_at_the_end(folder):
    path, parts = folder / "log", folder / "log.part"
    file = StoredFile(path, whole=10)
    for line in (b"first\n", b"second\n", b"third\n"):
        file.write(line)
        file.sync()
    assert [part.read_bytes() for part in children(parts)] == [b"second\n", b"third\n"]
    file.close()  # as a kill would
    again = StoredFile(path, whole=10)
    assert list(again.lines()) == [b"first\n", b"second\n", b"third\n"]
    assert path.read_bytes() == b"first\nsecond\nthird\n" and not children(parts)
    again.write(b"fourth\n")
    again.sync()
    again.join()
    again.close()
    assert path.read_bytes().endswith(b"third\nfourth\n") and not children(parts)


def test_parts_that_are_in_the_object_already_are_not_read_again(folder):
    (folder / "log").write_bytes(b"first\nsecond\n")
    (folder / "log.part" / f"{6:018}").write_bytes(b"second\n")
    file = StoredFile(folder / "log")
    assert list(file.lines()) == [b"first\n", b"second\n"]
    file.close()


def test_predictions_go_on_behind_the_last_line_that_was_synced(folder):
    path = folder / "lines.jsonl"
    killed = JsonLines(path, identity=WORK)
    killed.append([{"n": 0}, {"n": 1}])
    killed.sync()
    killed.append([{"n": 2}])
    killed._file.close()
    killed._held.close()  # whose lease would be void
    seen = []
    with JsonLines(path, identity=WORK, check=lambda number, line: seen.append(line)) as lines:
        lines.append([{"n": 2}, {"n": 3}])
    assert seen == [{"n": 0}, {"n": 1}]
    assert _lines(path) == [{"n": number} for number in range(4)]
    with pytest.raises(UserError, match="holds other work"):
        JsonLines(path, identity={"model": "b"})
    assert not children(folder / "lines.jsonl.lock")


def test_metrics_are_there_from_the_flush_before_a_checkpoint_on(folder):
    log = MetricsWriter(folder)
    log.write(1, "train", {"loss": 2.0})
    log.flush()
    log.write(2, "train", {"loss": 1.0})
    assert _lines(folder / "metrics.jsonl") == [{"step": 1, "kind": "train", "loss": 2.0}]
    log.close()
    resumed = MetricsWriter(folder, restored_step=1)
    resumed.write(2, "train", {"loss": 1.5})
    resumed.close()
    assert [line["loss"] for line in _lines(folder / "metrics.jsonl")] == [2.0, 1.5]
    assert len(children(folder / "tensorboard")) >= 1
