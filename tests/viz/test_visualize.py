"""From a trained run to a report: through checkpoint, files, model and pictures."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from avit_jax.data.augment import Augment, eval_image
from avit_jax.data.example import BadExample
from avit_jax.data.image_selection import Selection
from avit_jax.data.mix import normalise
from avit_jax.errors import UserError
from avit_jax.experiment import Experiment
from avit_jax.methods.per_image import token_depth
from avit_jax.models import skippable_parts
from avit_jax.runtime.device_mesh import make_mesh
from avit_jax.viz import report_folder
from avit_jax.viz.look import Unreadable, look
from avit_jax.viz.visualize import visualize_run
from tests import tiny_runs

LAYERS, LIMIT = 3, 5


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Config, workdir, model and weights."""
    return tiny_runs.trained(tmp_path_factory.mktemp("run"), tiny_runs.config_of(depth=LAYERS))


@pytest.fixture(scope="module")
def report(run):
    config, workdir, _, _ = run
    page = visualize_run(config, workdir, limit=LIMIT)
    assert page == workdir / "visualize" / "index.html"
    return page


def test_the_report_of_a_run_is_complete_and_leaves_nothing_else(report, run):
    folder = report.parent
    images = sorted(path.name for path in (folder / "images").iterdir())
    assert len(images) == 3 * LIMIT
    assert {path.name for path in (folder / "charts").iterdir()} == {
        "depth_histogram.png",
        "live_tokens.png",
        "class_depth.png",
        "cost_and_difficulty.png",
    }
    assert {path.name for path in run[1].iterdir()} == {"config.json", "checkpoints", "visualize"}
    for path in folder.rglob("*.png"):
        with Image.open(path) as picture:
            picture.verify()
    for path in folder.rglob("*.gif"):
        with Image.open(path) as picture:
            assert picture.n_frames == LAYERS
    text = report.read_text(encoding="utf-8")
    for name in images:
        assert f'href="images/{name}"' in text
    assert "step 17" in text
    assert f"{LIMIT} of 510 images" in text


def test_the_numbers_are_those_of_the_model(report, run):
    config, _, model, params = run
    selection = Experiment(config, Path()).eval_images(LIMIT)
    augment = Augment(**config.data.augment)
    pixels = [eval_image(selection[i].image, size=32, augment=augment) for i in range(LIMIT)]
    output = jax.jit(model.apply)(params, normalise(np.stack(pixels)))
    depths, gmacs = np.asarray(token_depth(model, output)), np.asarray(model.gmacs(output))
    summary = json.loads((report.parent / "summary.json").read_text())
    assert [row["mean_depth"] for row in summary["rows"]] == pytest.approx(depths.mean(1))
    assert [row["gmacs"] for row in summary["rows"]] == pytest.approx(gmacs, rel=1e-5)
    answers = np.asarray(output.logits.argmax(-1))
    assert [row["answer"] for row in summary["rows"]] == [str(answer) for answer in answers]
    labels = [selection[index].label for index in range(LIMIT)]
    assert summary["top1"] == np.mean(answers == labels)
    assert sum(summary["depth_histogram"]) == pytest.approx(1.0)
    assert summary["mean_depth"] == pytest.approx(depths.mean())
    assert len(np.unique(depths)) > 1


def test_files_of_a_folder_are_shown_and_bad_ones_are_listed_with_their_reason(run, tmp_path):
    config, workdir, _, _ = run
    source, output = tmp_path / "images", tmp_path / "report"
    (source / "7").mkdir(parents=True)
    generator = np.random.default_rng(1)
    for name in ("<script>alert(1)<script>.png", "7/seven.png", "plain.png"):
        pixels = generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(source / name)
    (source / "broken.jpg").write_bytes(b"no image at all")
    page = visualize_run(config, workdir, source=str(source), output=output)
    text = page.read_text(encoding="utf-8")
    assert text.count("<script>") == 1
    assert "&lt;script&gt;alert(1)&lt;script&gt;.png" in text
    summary = json.loads((output / "summary.json").read_text())
    assert [row["name"] for row in summary["rows"]][1:] == ["plain.png", "7/seven.png"]
    assert [row["label"] for row in summary["rows"]] == [None, None, "7"]
    (bad,) = summary["unreadable"]
    assert bad["name"] == "broken.jpg"
    assert "no known image format" in bad["reason"]
    assert bad["reason"] in text
    for path in (output / "images").iterdir():
        assert path.name.replace("_", "").replace("-", "").replace(".", "").isalnum()


def test_without_the_data_classes_have_numbers_and_the_page_names_no_place(run, tmp_path, caplog):
    config, workdir, _, _ = run
    elsewhere = config.copy_and_resolve_references()
    elsewhere.data.update(name="folder", dir=str(tmp_path / "secret"))
    Image.new("RGB", (40, 40)).save(tmp_path / "one.png")
    source, output = str(tmp_path / "one.png"), tmp_path / "report"
    text = visualize_run(elsewhere, workdir, source=source, output=output).read_text()
    assert "Classes are shown by number" in text
    assert re.search(r"<span>class \d</span>", text)
    assert str(tmp_path) not in text
    assert "secret" in caplog.text


def test_only_unreadable_files_are_one_sentence_and_no_report(run, tmp_path):
    config, workdir, _, _ = run
    (tmp_path / "broken.png").write_bytes(b"")
    output = tmp_path / "report"
    with pytest.raises(UserError, match=r"none of the chosen .* \(broken\.png cannot"):
        visualize_run(config, workdir, source=str(tmp_path / "broken.png"), output=output)
    assert not output.exists()


def test_wrong_wishes_are_refused_before_anything_is_read(run, tmp_path):
    config, workdir, _, _ = run
    with pytest.raises(UserError, match="limit is 0"):
        visualize_run(config, workdir, limit=0)
    with pytest.raises(UserError, match="no file or folder"):
        visualize_run(config, workdir, source=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no config"):
        visualize_run(config, tmp_path / "untrained")
    assert not list(tmp_path.iterdir())


def test_file_names_of_any_kind_become_safe_ones():
    assert report_folder.file_stem("a/b c.png") == "a-b-c"
    assert report_folder.file_stem("../../<x>.png") == "x"
    assert report_folder.file_stem("日本.png") == "image"
    assert len(report_folder.file_stem("x" * 300 + ".png")) == 60


def test_images_that_vanish_on_the_way_are_unreadable(run):
    config, _, model, params = run
    whole = Experiment(config, Path()).eval_images(2)

    class Vanishing:
        """Gives every example once."""

        name, class_names = whole.name, whole.class_names

        def __init__(self):
            self.given: set[int] = set()

        def __len__(self):
            return 2

        def __getitem__(self, index):
            if index in self.given:
                raise BadExample("cannot be read: gone")
            self.given.add(index)
            return whole[index]

        def describe(self, index):
            return f"image {index}"

    selection = Selection(Vanishing(), (0, 1), (True, True), "vanishing")
    mesh = make_mesh(devices=jax.devices()[:1])
    seen = list(look(model, params, selection, mesh, augment=Augment(), batch=2))
    assert seen == [Unreadable(f"image {index}", "cannot be read: gone") for index in (0, 1)]


@pytest.mark.parametrize("batch", [2, 100])
def test_the_batch_size_does_not_change_what_is_seen(batch, run):
    config, _, model, params = run
    selection = Experiment(config, Path()).eval_images(3)
    mesh = make_mesh(devices=jax.devices()[:1])
    augment = Augment(**config.data.augment)
    seen = list(look(model, params, selection, mesh, augment=augment, batch=batch))
    pixels = [eval_image(selection[i].image, size=32, augment=augment) for i in range(3)]
    output = jax.jit(model.apply)(params, normalise(np.stack(pixels)))
    np.testing.assert_array_equal(np.stack([one.depth for one in seen]), token_depth(model, output))
    np.testing.assert_array_equal(np.stack([one.live for one in seen], 1), output.usage[0].tokens)
    assert [one.label for one in seen] == [selection[index].label for index in range(3)]
    for one in seen:
        assert one.photograph.shape == (448, 448, 3)
        assert one.gmacs_until[-1] == pytest.approx(one.gmacs, rel=1e-5)
        assert np.all(np.diff(one.gmacs_until) >= 0)


def test_a_method_that_chooses_heads_and_halves_gets_them_shown(tmp_path):
    config = tiny_runs.config_of("adavit_deit_micro_patch4_32", depth=LAYERS)
    _, _, model, params = tiny_runs.trained(tmp_path, config, seed=1)
    page = visualize_run(config, tmp_path, limit=LIMIT)
    charts = {path.stem for path in (page.parent / "charts").iterdir()}
    assert {"kept_per_layer", "class_kept", "cost_and_difficulty"} <= charts
    selection = Experiment(config, Path()).eval_images(LIMIT)
    augment = Augment(**config.data.augment)
    pixels = [eval_image(selection[i].image, size=32, augment=augment) for i in range(LIMIT)]
    usage = jax.jit(model.apply)(params, normalise(np.stack(pixels))).usage[0]
    summary = json.loads((page.parent / "summary.json").read_text())
    for name, share in jax.device_get(skippable_parts.shares((usage,))).items():
        assert 0.05 < share.mean() < 0.95, name
        assert [row["kept"][name] for row in summary["rows"]] == pytest.approx(share, abs=1e-6)
        assert summary["kept"][name] == pytest.approx(share.mean(), abs=1e-6)
    squares = re.findall(r'<rect class="(on|off)"', page.read_text())
    ran = skippable_parts.ran(usage)
    assert squares.count("on") == ran["heads"].sum() + ran["halves"].sum()
    assert len(squares) == LIMIT * LAYERS * (2 + 2)
