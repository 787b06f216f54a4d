"""From a trained run to a file of predictions: complete, in order, and resumed without a seam."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from avit_jax import config as configs
from avit_jax.data.augment import Augment, eval_image
from avit_jax.data.digits import DigitsSource
from avit_jax.data.mix import normalise
from avit_jax.errors import Preempted, UserError
from avit_jax.methods.base import Model
from avit_jax.prediction.run import predict_run
from avit_jax.runtime.json_lines import identity_path
from tests import tiny_runs

ROOT = Path(__file__).parents[2]
IMAGES = 510  # of the digits' validation split
PROGRAM = """
import sys
from pathlib import Path
from avit_jax import config
from avit_jax.main import initialise_processes
from avit_jax.prediction.run import predict_run
initialise_processes()
workdir, output, batch_size = sys.argv[1:]
settings = config.from_json((Path(workdir) / "config.json").read_text())
settings.inference.batch_size = int(batch_size)
predict_run(settings, Path(workdir), output=Path(output))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Config, workdir, model and weights."""
    config = tiny_runs.config_of()
    config.inference.batch_size = 64
    return tiny_runs.trained(tmp_path_factory.mktemp("run"), config)


def inference(config, **values):
    """The config with other values in that section."""
    changed = config.copy_and_resolve_references()
    changed.inference.update(values)
    return changed


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """The same program serves many tests; compiling it takes longer than all they do with it."""
    programs, compile_anew = {}, Model.compile

    def compile_once(self, params, **arguments):
        key = arguments["batch_size"], arguments["execution"]
        if key not in programs:
            programs[key] = compile_anew(self, params, **arguments)
        return programs[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Model, "compile", compile_once)
        yield


@pytest.fixture(scope="module")
def whole(run):
    """The file of an undisturbed run over the evaluation split."""
    config, workdir, *_ = run
    path = predict_run(config, workdir)
    assert path == workdir / "predictions.jsonl"
    return path


@pytest.fixture
def folder(tmp_path):
    """Digits as files, some in folders of their class, among files that are none."""
    source = DigitsSource(split="validation")
    for index, place in enumerate(("", "3", "other/deep", "3", "")):
        path = tmp_path / "input" / place / f"{index} é.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(source[index].image).save(path)
    (tmp_path / "input" / "notes.txt").write_text("no image")
    (tmp_path / "input" / "3" / "gone.png").symlink_to(tmp_path / "nowhere")
    return tmp_path / "input"


def assert_like(line, expected):
    """The same words and, but for rounding, the same numbers."""
    assert line.keys() == expected.keys()
    for name, value in expected.items():
        assert line[name] == (value if isinstance(value, str) else pytest.approx(value, rel=2e-5))


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_image_of_the_split_has_its_line_with_the_models_own_numbers(run, whole, capsys):
    config, _, model, params = run
    source, augment = DigitsSource(split="validation"), Augment(**config.data.augment)
    pixels = [eval_image(source[i].image, size=32, augment=augment) for i in range(IMAGES)]
    output = jax.jit(model.apply)(params, normalise(np.stack(pixels)))
    lines = read(whole)
    assert [line["image"] for line in lines] == [source.describe(i) for i in range(IMAGES)]
    assert [line["true_class_index"] for line in lines] == [source[i].label for i in range(IMAGES)]
    assert {line["label"] == str(line["class_index"]) for line in lines} == {True}
    probabilities = np.asarray(jax.nn.softmax(output.logits))
    expected = {
        "confidence": probabilities.max(-1),
        "class_index": probabilities.argmax(-1),
        "depth": output.usage[0].tokens.sum(0).mean(-1),
        "gmacs": model.gmacs(output),
    }
    assert len(set(np.asarray(expected["gmacs"]).tolist())) > 3, "the images differ in cost"
    for name, values in expected.items():
        np.testing.assert_allclose([line[name] for line in lines], values, rtol=2e-5, err_msg=name)
    predict_run(config, run[1])
    table = capsys.readouterr().out
    top1 = np.mean(probabilities.argmax(-1) == [source[i].label for i in range(IMAGES)])
    assert f"{top1:.2%} of 510 labelled" in table
    assert str(whole) in table


def test_a_folder_gives_a_line_per_file_and_a_bad_file_its_reason(run, folder, tmp_path):
    config, workdir, *_ = run
    path = predict_run(config, workdir, source=str(folder), output=tmp_path / "out" / "lines.jsonl")
    lines = read(path)
    assert [line["image"] for line in lines] == [
        "0 é.png",
        "4 é.png",
        "notes.txt",
        "3/1 é.png",
        "3/3 é.png",
        "3/gone.png",
        "other/deep/2 é.png",
    ]
    assert [line.get("true_label") for line in lines] == [None] * 3 + ["3"] * 2 + [None] * 2
    assert [line.get("error") for line in lines] == [
        *[None] * 2,
        "cannot be decoded: no known image format in its 8 bytes",
        *[None] * 2,
        "cannot be read: No such file or directory",
        None,
    ]
    alone = predict_run(
        config, workdir, source=str(folder / "3" / "3 é.png"), output=tmp_path / "one.jsonl"
    )
    (line,) = read(alone)
    assert_like(line, lines[4] | {"image": "3 é.png"})


def test_nothing_but_bad_files_is_no_failure(run, tmp_path, capsys):
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "notes.txt").touch()
    path = predict_run(*run[:2], source=str(tmp_path / "input"), output=tmp_path / "lines.jsonl")
    (line,) = read(path)
    assert line["error"].startswith("cannot be decoded")
    assert "bad files" in capsys.readouterr().out


@pytest.mark.parametrize("execution", ["masked", "dense"])
def test_other_executions_write_the_same_lines_or_the_whole_cost(run, whole, tmp_path, execution):
    config = inference(run.config, execution=execution)
    path = predict_run(config, run.workdir, output=tmp_path / "lines.jsonl")
    lines, compact = read(path), read(whole)
    if execution == "dense":
        assert {line["depth"] for line in lines} == {3.0}
    else:
        for line, expected in zip(lines, compact, strict=True):
            assert_like(line, expected)


def test_tokens_lost_for_want_of_places_are_never_silent(run, tmp_path, capsys):
    config = inference(run.config, execution="capped", capacities=(17, 4, 2))
    path = predict_run(config, run.workdir, output=tmp_path / "lines.jsonl")
    affected = sum(line["dropped"] > 0 for line in read(path))
    assert 0 < affected < IMAGES
    row = capsys.readouterr().out.partition("images that lost tokens")[2]
    assert row.split()[0] == str(affected)


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


def test_another_model_input_or_execution_is_not_mixed_in(run, whole, folder, tmp_path):
    config, workdir, *_ = run
    text = whole.read_bytes()
    changed = configs.from_json(configs.to_json(config))
    changed.method.eps = 0.3
    for arguments, difference in (
        ({"config": changed}, "config_sha256"),
        ({"config": inference(config, execution="masked")}, 'execution was "compact", is "masked"'),
        ({"source": str(folder)}, "images was 510, is 7"),
    ):
        with pytest.raises(UserError, match=rf"holds other work \(.*{difference}"):
            predict_run(**{"config": config, "workdir": workdir} | arguments)
    path = predict_run(config, workdir, source=str(folder), output=tmp_path / "lines.jsonl")
    (folder / "new.png").touch()
    with pytest.raises(UserError, match="images was 7, is 8"):
        predict_run(config, workdir, source=str(folder), output=path)
    assert whole.read_bytes() == text


def test_lines_that_were_moved_about_are_refused(run, whole, tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text("\n".join(reversed(whole.read_text().splitlines())) + "\n")
    shutil.copy(identity_path(whole), identity_path(path))
    with pytest.raises(UserError, match="has been changed since"):
        predict_run(*run[:2], output=path)


def test_what_cannot_work_is_said_in_one_sentence(run, folder, tmp_path):
    config, workdir, *_ = run
    for arguments, sentence in (
        ({"source": str(tmp_path / "nowhere")}, "no file or folder"),
        ({"source": str(folder), "output": folder / "3" / "lines.jsonl"}, "lies inside of --input"),
    ):
        with pytest.raises(UserError, match=sentence):
            predict_run(config, workdir, **arguments)
    (tmp_path / "other.jsonl.part-00001-of-00004").touch()
    with pytest.raises(UserError, match="begun by another number of processes than 1"):
        predict_run(config, workdir, output=tmp_path / "other.jsonl")


def start(workdir, output, *, batch_size=2, **environment):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=1", "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(workdir), str(output), str(batch_size)],
        cwd=ROOT,
        env=os.environ | flags | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def assert_same_images(path, whole):
    """Every image once, in order, with the same answer; batches of another size round otherwise."""
    for line, expected in zip(read(path), read(whole), strict=True):
        assert_like(line, expected)


@pytest.mark.fault
def test_killed_in_the_midst_every_image_has_one_line_in_the_end(run, whole, tmp_path):
    path = tmp_path / "lines.jsonl"
    process = start(run[1], path)
    deadline = time.monotonic() + 120
    while not path.exists() or path.stat().st_size < 10_000:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the run did not get there"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = path.read_bytes()
    assert before.count(b"\n") < IMAGES
    predict_run(*run[:2], output=path)
    assert path.read_bytes().startswith(before[: before.rindex(b"\n") + 1])
    assert_same_images(path, whole)


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize("seed", range(4))
def test_kills_at_any_moment_leave_no_gap_and_no_double(run, whole, tmp_path, seed):
    """Five kills at random times, start-up included."""
    generator = np.random.default_rng(seed)
    path = tmp_path / "lines.jsonl"
    for _ in range(5):
        process = start(run[1], path)
        time.sleep(generator.uniform(1.0, 8.0))
        process.kill()
        process.communicate()
    finish(start(run[1], path))
    assert_same_images(path, whole)


def test_the_files_of_two_processes_one_behind_the_other_are_that_of_one(run, whole, tmp_path):
    path = tmp_path / "lines.jsonl"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    coordinates = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    processes = [
        start(run[1], path, batch_size=64, JAX_PROCESS_ID=str(number), **coordinates)
        for number in range(2)
    ]
    tables = [finish(process) for process in processes]
    assert "Predictions" in tables[0]
    assert "Predictions" not in tables[1], "only process 0 prints"
    parts = sorted(tmp_path.glob("lines.jsonl.part-?????-of-00002"))
    assert [len(read(part)) for part in parts] == [255, 255]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert_same_images(path, whole)
