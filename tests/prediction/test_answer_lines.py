"""What one line says, what all of them come to, and which work may go on in a file."""

import dataclasses
import json
import math

import numpy as np
import pytest

from avit_jax.config import base, debug
from avit_jax.data.image_files import FileSource
from avit_jax.data.inference_batches import Loaded
from avit_jax.errors import UserError
from avit_jax.execution.plan import default_plan
from avit_jax.prediction import answer_lines
from avit_jax.prediction.answer_lines import Totals

NAMES = ("ant", "bee")


@pytest.fixture
def source(tmp_path):
    for path in ("bee/a", "bee/b", "c", "d"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    return FileSource(tmp_path, class_names=NAMES)


def made(source, **changed):
    loaded = Loaded(
        start=0,
        images=np.zeros((5, 2, 2, 3)),
        labels=[0, None, 1, 1],
        reasons=[None, "x", *[None] * 2],
    )
    answers = {
        "class_index": np.asarray([1, 0, 1, 0, 0], np.int32),
        "confidence": np.asarray([2 / 3, 1, 1 / 3, math.nan, 1], np.float32),
        "depth": np.asarray([2, 1, 3, 1, 1], np.float32),
        "gmacs": np.asarray([0.5, 9, 1.5, 9, 9], np.float32),
    }
    return answer_lines.make_lines(source, loaded, answers | changed)


def test_a_line_holds_the_answer_the_truth_where_known_and_otherwise_the_reason(source):
    assert made(source) == [
        {"image": "c", "label": "bee", "class_index": 1, "confidence": 0.666667}
        | {"depth": 2.0, "gmacs": 0.5},
        {"image": "d", "error": "x"},
        {"image": "bee/a", "label": "bee", "class_index": 1, "confidence": 0.333333}
        | {"depth": 3.0, "gmacs": 1.5, "true_label": "bee", "true_class_index": 1},
        {
            "image": "bee/b",
            "error": "makes the model answer with numbers that are not finite",
        },
    ]
    json.dumps(made(source), allow_nan=False)


def test_the_sums_count_answers_and_bad_files_apart(source):
    totals = Totals()
    for line in made(source, dropped=np.asarray([0, 5, 5, 5, 5])):
        totals = totals.add(line)
    assert totals == Totals(lines=4, bad=2, labelled=1, correct=1, affected=1, depth=5.0, gmacs=2.0)
    assert totals.mean(totals.gmacs) == 1.0
    assert math.isnan(Totals(lines=1, bad=1).mean(0.0))


def test_what_decides_the_lines_is_part_of_the_identity_and_nothing_else(source, tmp_path):
    def identity(source=source, params=1.0, step=3, execution="compact", images=4, **changed):
        config = debug(base(model="avit_micro_patch4_32").unlock())
        config.update_from_flattened_dict(changed)
        return answer_lines.identity(
            config,
            source,
            {"a": np.full(3, params)},
            part=range(4),
            step=step,
            execution=execution,
            plan=dataclasses.replace(
                default_plan(65, images, num_heads=3), capacities=(65,) * images
            ),
        )

    first = identity()
    assert (
        identity(**{"train.epochs": 3.0, "eval.batch_size": 8, "data.augment.flip": False}) == first
    )
    assert identity(images=2) == first, "sizes that only decide the speed"
    capped = identity(execution="capped")
    assert identity(execution="capped", images=2)["capacities"] != capped["capacities"]
    (tmp_path / "bee" / "e").touch()
    grown = FileSource(tmp_path, class_names=NAMES)
    renamed = FileSource(tmp_path, class_names=("wasp", "bee"))
    for changed, keys in (
        (identity(params=2.0), {"weights_sha256"}),
        (identity(step=4), {"checkpoint_step"}),
        (identity(**{"method.eps": 0.5}), {"config_sha256"}),
        (identity(**{"data.augment.crop_ratio": 0.5}), {"config_sha256"}),
        (identity(source=grown), {"names_sha256", "images"}),
        (identity(source=renamed), {"names_sha256", "images", "classes_sha256"}),
    ):
        assert {key for key in first if first[key] != changed[key]} == keys


def test_a_line_about_another_image_is_refused(source):
    answer_lines.expect_image(source, 0, {"image": "c"})
    with pytest.raises(UserError, match="about 'd' where 'c' was expected"):
        answer_lines.expect_image(source, 0, {"image": "d"})
