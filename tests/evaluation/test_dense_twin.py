"""A twin's accuracy stands beside a run's own only where the two can be compared."""

import json
from pathlib import Path

import pytest

from avit_jax import config as configs
from avit_jax.evaluation.dense_twin import dense_twin
from avit_jax.experiment import Experiment


def found(**changes):
    config = configs.base(model="avit_micro_patch4_32").unlock()
    config.update_from_flattened_dict(changes)
    return dense_twin(Experiment(config, Path()))


@pytest.fixture
def twin(tmp_path):
    (tmp_path / "config.json").write_text(
        configs.to_json(configs.base(model="deit_micro_patch4_32"))
    )
    (tmp_path / "summary.json").write_text(json.dumps({"top1": 0.625}))
    return tmp_path


def test_a_comparable_twin_is_shown(twin):
    assert found(dense_twin=str(twin)) == (0.625, "62.50%")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"data.name": "cifar10"}, "data.name: 'imagenet2012' -> 'cifar10'"),
        ({"model.num_classes": 2}, "model.num_classes: 1000 -> 2"),
        ({"model.depth": 3}, "model.depth: 6 -> 3"),
    ],
)
def test_another_task_or_size_is_not_comparable(twin, changes, named):
    top1, text = found(dense_twin=str(twin), **changes)
    assert top1 is None
    assert text.startswith("not comparable") and named in text


@pytest.mark.parametrize("result", ["{}", "[]", "no JSON", '{"top1": null}'])
def test_a_result_that_cannot_be_read_is_named(twin, result):
    (twin / "summary.json").write_text(result)
    top1, text = found(dense_twin=str(twin))
    assert top1 is None
    assert "cannot be read" in text


def test_no_twin_and_no_result_say_so(tmp_path):
    assert found().text == "not trained (set config.dense_twin to its workdir)"
    assert "holds no result" in found(dense_twin=str(tmp_path)).text
