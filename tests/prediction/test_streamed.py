"""`--mode predict --stream` writes the lines of predict, whatever happens on the way."""

import jax
import pytest

from avit_jax.errors import Preempted, UserError
from avit_jax.prediction.run import predict_run
from avit_jax.streaming.programs import Programs
from tests.prediction.lines import assert_like, inference, read

pytestmark = pytest.mark.usefixtures("compiled_once", "one_device")


@pytest.fixture(scope="module")
def one_device():
    """One device, whose programs are compiled once."""
    kept = {}

    class Kept(Programs):
        def __new__(cls, segments, params, **named):
            return kept.setdefault(len(segments), object.__new__(cls))

        def __init__(self, segments, params, **named):
            if not hasattr(self, "places"):
                super().__init__(segments, params, **named)

    devices = jax.local_devices()[:1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("avit_jax.methods.streamable.Programs", Kept)
        patch.setattr(jax, "local_devices", lambda: devices)
        patch.setattr(jax, "local_device_count", lambda: 1)
        yield


@pytest.fixture
def arguments(run):
    """The run, in programs of one size each, which are compiled the sooner."""
    return inference(run.config, row_sizes=(64 * 17,), lengths=(17,)), run.workdir


def test_lines_are_those_of_predict_and_a_stopped_run_goes_on(arguments, whole, tmp_path):
    path = tmp_path / "lines.jsonl"
    with pytest.raises(Preempted):
        predict_run(*arguments, output=path, stream=True, stop=lambda step: step == 2)
    assert 0 < len(read(path)) < 510
    predict_run(*arguments, output=path, stream=True)
    for line, expected in zip(read(path), read(whole), strict=True):
        assert_like(line, expected)
    with pytest.raises(UserError, match='execution was "stream", is "compact"'):
        predict_run(*arguments, output=path)


def test_a_bad_file_gets_its_reason(arguments, tmp_path):
    folder = tmp_path / "input"
    folder.mkdir()
    (folder / "notes").write_text("no image")
    path = predict_run(*arguments, source=str(folder), output=tmp_path / "bad.jsonl", stream=True)
    (line,) = read(path)
    assert line["error"].startswith("cannot be decoded")


def test_an_execution_with_other_answers_is_refused(run):
    with pytest.raises(UserError, match="--stream gives the answers of the exact executions"):
        predict_run(inference(run.config, execution="dense"), run.workdir, stream=True)
