"""From a trained run to a file of predictions: complete, in order, and all of it."""

import jax
import numpy as np
import pytest
from PIL import Image

from avit_jax import config as configs
from avit_jax.data.augment import Augment, eval_image
from avit_jax.data.digits import DigitsSource
from avit_jax.data.mix import normalise
from avit_jax.errors import UserError
from avit_jax.prediction.run import predict_run
from tests.prediction.lines import IMAGES, assert_like, inference, read

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture
def folder(tmp_path):
    """Digits as files, some in folders of their class, among files that are none."""
    source = DigitsSource(split="validation")
    for index, place in enumerate(("", "3", "other/deep", "3", "")):
        path = tmp_path / "input" / place / f"{index} é.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(source[index].image).save(path)
    (tmp_path / "input" / "notes").write_text("no image")
    (tmp_path / "input" / "3" / "gone.png").symlink_to(tmp_path / "nowhere")
    return tmp_path / "input"


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
        "notes",
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
    (tmp_path / "input" / "notes").touch()
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
