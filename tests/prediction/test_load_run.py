"""A trained run from Python: it answers as --mode predict does, wherever its weights have gone."""

import io
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from PIL import Image

import avit_jax
from avit_jax import config as configs
from avit_jax.checkpoints.workdir import CONVERTED
from avit_jax.data.digits import DigitsSource
from avit_jax.errors import UserError
from avit_jax.export.convert import convert_run
from avit_jax.export.program import named
from avit_jax.prediction import loaded_run
from avit_jax.prediction.inputs import GivenImages
from avit_jax.prediction.run import predict_run
from avit_jax.pretrained.written_pixels import written_pixels
from avit_jax.runtime.files import write_json_atomic
from tests.prediction.lines import read

pytestmark = pytest.mark.usefixtures("compiled_once")
SOURCE = DigitsSource(split="validation")
NAMES = tuple("abcdefghij")


@pytest.fixture(scope="module")
def loaded(run):
    return avit_jax.load_run(run.workdir, execution="masked")


@pytest.fixture
def described(run, tmp_path):
    """The run, with class names of its own and data that are not at hand."""
    workdir = shutil.copytree(run.workdir, tmp_path / "described")
    config = run.config.copy_and_resolve_references()
    config.data.update(name="folder", dir=str(tmp_path / "gone"))
    config.teacher.workdir = "/home/me/teacher"
    (workdir / "config.json").write_text(configs.to_json(config))
    write_json_atomic(workdir / "description.json", {"format": 1, "labels": NAMES})
    return config, workdir


def test_paths_images_and_arrays_get_the_answers_of_the_command_line(run, loaded, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(2):
        Image.fromarray(SOURCE[index].image).save(folder / f"{index}.png")
    (folder / "2.jpg").write_bytes(b"no image")
    config = run.config.copy_and_resolve_references()
    config.inference.execution = "masked"
    expected = read(
        predict_run(config, run.workdir, source=str(folder), output=tmp_path / "lines.jsonl")
    )
    with Image.open(folder / "1.png") as opened:
        images = [str(folder), opened, SOURCE[0].image]
        images += [(folder / "1.png").read_bytes(), np.stack([SOURCE[0].image[..., None]] * 2)]
        found = loaded.predict(images)
    lines = [*expected, expected[1], expected[0], expected[1], expected[0], expected[0]]
    for answer, line in zip(found, lines, strict=True):
        assert (answer.label, answer.error) == (line.get("label"), line.get("error"))
        if answer.error is None:
            assert answer.probability == pytest.approx(line["confidence"], rel=2e-5)
            assert answer.gmacs == pytest.approx(line["gmacs"], rel=2e-5)
            assert answer.depth_map.shape == (4, 4)
            of_class_token = answer.depth * 17 - answer.depth_map.sum()
            assert of_class_token == pytest.approx(round(of_class_token), abs=1e-3)
            assert 1 <= round(of_class_token) <= 3
    assert found[0].image == str(folder / "0.png")
    names = ["image 2", "image 3", "image 4[0]", "image 4[1]"]
    assert [answer.image for answer in found[4:]] == names


def test_model_and_preprocessing_give_the_same_by_hand(loaded):
    one = loaded.preprocess(SOURCE[0].image)
    assert one.shape == (32, 32, 3) and one.dtype == np.float32
    several = loaded.preprocess([SOURCE[0].image])
    np.testing.assert_array_equal(several[0], one)
    logits = loaded.model.apply(loaded.params, several).logits
    (answer,) = loaded.predict(SOURCE[0].image)
    assert answer.class_index == logits.argmax()
    assert answer.label == loaded.class_names[answer.class_index]


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        ("missing.jpg", "there is no file or folder 'missing.jpg'"),
        (3, "image 0 is a int: pass a path"),
        ([SOURCE[0].image, np.zeros((8, 8, 3))], "image 1 has pixels float64 .* as uint8"),
        (np.array(["a.png", "b.png"]), r"image 0 is an array of <U5, .*: pass \.tolist\(\)"),
        (io.StringIO("x"), "image 0 is a file opened for text"),
        (np.zeros((2, 8, 8, 2), np.uint8), r"image 0\[0\] has pixels uint8 \[8, 8, 2\]"),
    ],
)
def test_what_is_no_image_is_refused_before_anything_is_computed(loaded, images, sentence):
    with pytest.raises(UserError, match=sentence):
        loaded.predict(images)
    with pytest.raises(UserError, match=sentence):
        loaded.preprocess(images)


def test_bytes_and_opened_files_are_one_image(loaded, tmp_path):
    path = tmp_path / "0.png"
    Image.fromarray(SOURCE[0].image).save(path)
    content, expected = path.read_bytes(), loaded.preprocess(path)
    written = io.BytesIO()
    written.write(content)
    with path.open("rb") as opened:
        for image in (bytearray(content), memoryview(content), written, opened):
            np.testing.assert_array_equal(loaded.preprocess(image), expected)
            np.testing.assert_array_equal(loaded.preprocess([image] * 2)[1], expected)
        assert GivenImages(opened, class_names=NAMES).describe(0) == str(path)


def test_threads_that_ask_at_once_share_a_program(run, monkeypatch):
    built = []

    def build(*_, **arguments):
        time.sleep(0.05)
        built.append(arguments["batch_size"])

    monkeypatch.setattr(loaded_run, "Answerer", build)
    fresh = avit_jax.load_run(run.workdir, execution="masked")
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(fresh._answerer, [3] * 4))
    assert len(built) == 1


def test_no_images_are_no_error(loaded):
    assert loaded.predict([]) == []
    assert loaded.preprocess([]).shape == (0, 32, 32, 3)


def test_names_and_preprocessing_go_with_the_weights(run, described, tmp_path):
    """Through a weight file, a workdir made of it, and the folder of an export."""
    config, workdir = described
    config.data.augment.crop_ratio = 0.8
    file, again, exported = (tmp_path / name for name in ("x.safetensors", "again", "exported"))
    convert_run(config, workdir, output=str(file))
    knows = configs.typed(configs.kept_at(file))
    convert_run(knows, again, source=str(file))
    exported.mkdir()
    shutil.copy(f"{file}.json", exported / "export.json")
    np.savez(exported / "weights.npz", **named(run.params))
    assert written_pixels(file) == "imagenet"
    for place in (file, again, exported):
        found = avit_jax.load_run(place, execution="masked")
        assert found.class_names == NAMES
        jax.tree.map(np.testing.assert_array_equal, found.params, run.params)
        assert found.predict(SOURCE[0].image)[0].label in NAMES
        assert configs.kept_at(place).data.augment.crop_ratio == 0.8
    assert "/home/me" not in (tmp_path / "x.safetensors.json").read_text()
    assert (again / CONVERTED).exists()
    np.savez(exported / "weights.npz", **named(run.params["blocks"]))
    with pytest.raises(UserError, match=r"weights\.npz are not those that .* describes"):
        avit_jax.load_run(exported)


def test_weights_of_others_need_the_name_of_their_model(run, tmp_path):
    folder = tmp_path / "theirs"
    (folder / "checkpoints").mkdir(parents=True)
    file = folder / "model.safetensors"
    avit_jax.save_torch(file, run.model.to_torch(run.params))
    for name in ("config.json", "description.json", "model.safetensors.json"):
        (folder / name).write_text('{"architectures": ["ViT"], "labels": ["cat"]}')
    (tmp_path / "theirs.json").write_text("[1]")
    sizes = {f"model.{name}": run.config.model[name] for name in run.config.model if name != "name"}
    del sizes["model.num_classes"]  # which the file has, whatever published weights had
    given = {"model": run.config.model.name, "config": sizes | {"method.gate_scale": 3.0}}
    found = avit_jax.load_run(file, **given)
    jax.tree.map(np.testing.assert_array_equal, found.params, run.params)
    assert found.class_names[3] == "class 3"
    assert avit_jax.load_run(folder, **given).class_names == found.class_names
    assert avit_jax.load_run(file, **given, class_names=NAMES).class_names == NAMES
    for wrong, sentence in (
        ({}, r"does not say what model it is of: .* model=\"deit_tiny"),
        (given | {"class_names": NAMES[:3]}, "3 class_names were given for 10 classes"),
        (given | {"config": sizes | {"model.num_classes": 7}}, "set model.num_classes to 10"),
    ):
        with pytest.raises(UserError, match=sentence):
            avit_jax.load_run(file, **wrong)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"model": "deit_tiny_patch16_224"}, "says itself that it is of avit_micro_patch4_32"),
        ({"operating_point": 0.5}, "run --mode calibrate --budget 0.5 there first"),
        ({"config": {"model.depth": 2}}, r"trained with other settings \(model.depth: 3 -> 2\)"),
        ({"config": {"optim.rate": 2}}, "the config has no key 'optim.rate'"),
        ({"config": {"model.image_size": "x"}}, "image_size cannot be 'x': write a value like 32"),
        ({"config": "x"}, "config is a str: write settings as"),
        ({"config": {"inference": {"batch_size": 8}}}, "inference is a section: .*'inference\\."),
        ({"config": {"model": None}}, "config.model is a section"),
        ({"class_names": range(10)}, r"class_names is range\(0, 10\): write a list of names"),
        ({"class_names": "abcdefghij"}, "class_names is 'abcdefghij': write a list of names"),
        ({"execution": "quick"}, "config.inference.execution is 'quick'"),
    ],
)
def test_a_run_knows_itself(run, arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        avit_jax.load_run(run.workdir, **arguments)


def test_a_run_without_a_checkpoint_does_not_answer_from_what_it_would_start_from(run, tmp_path):
    file = tmp_path / "start.pth"
    avit_jax.save_torch(file, run.model.to_torch(run.params))
    config = run.config.copy_and_resolve_references()
    config.init.weights, config.model.num_classes = str(file), 7
    (tmp_path / "config.json").write_text(configs.to_json(config))
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="holds no checkpoint yet"):
        avit_jax.load_run(tmp_path)


def test_what_cannot_be_loaded_is_said_in_one_sentence(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"")
    for source, sentence in (
        (tmp_path, "holds no trained run"),
        (None, "nothing to load from a NoneType"),
        (5, "nothing to load from a int"),
        (tmp_path / "nowhere", "there is nothing at"),
        (tmp_path / "x.onnx", "load the run or the folder that it was exported from"),
    ):
        with pytest.raises(UserError, match=sentence):
            avit_jax.load_run(source)


@pytest.mark.parametrize(
    ("model", "size", "black"),
    [("deit_tiny_patch16_224", 224, -2.1179), ("vit_base_patch16_224", 224, -1.0)],
)
def test_images_for_weights_of_others_are_normalised_as_these_were_published(model, size, black):
    image = np.zeros((20, 30, 3), np.uint8)
    found = avit_jax.preprocess(image, model)
    assert found.shape == (size, size, 3)
    assert found[0, 0, 0] == pytest.approx(black, abs=1e-4)
    assert avit_jax.preprocess([image] * 2, model, pixels="symmetric")[1].max() == -1.0
    with pytest.raises(UserError, match="pixels is 'x': write one of"):
        avit_jax.preprocess(image, model, pixels="x")
    with pytest.raises(UserError, match="crop_ratio is 0"):
        avit_jax.preprocess(image, model, crop_ratio=0)
    with pytest.raises(UserError, match=r"model is a NoneType: .* run\.preprocess"):
        avit_jax.preprocess(image, None)
