"""The number of classes of a folder of photographs."""

from pathlib import Path

import pytest

from avit_jax import config as configs
from avit_jax.errors import UserError
from tests.parsing import parser

# ml_collections loads config files by a method that Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
FINETUNE = f"--config={Path(__file__).parents[2] / 'configs' / 'finetune.py'}"


@pytest.fixture
def photos(tmp_path):
    for name in ("train/a", "train/b", "train/c", "val/a"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


@pytest.fixture
def parse(monkeypatch):
    with parser(monkeypatch) as parsed:
        yield parsed


@pytest.mark.parametrize(
    ("more", "classes"),
    [
        ([], 3),
        (["--config.model.num_classes=7"], 7),
        (["--config.data.name=digits"], 1000),
    ],
)
def test_the_command_line_counts_them_unless_it_says_otherwise(photos, parse, more, classes):
    config = parse(FINETUNE, f"--config.data.dir={photos}", *more)
    assert config.model.num_classes == classes
    assert configs.make_model(config).shape.num_classes == classes
    assert configs.from_json(configs.to_json(config)).model.num_classes == classes


def test_a_folder_that_is_not_there_is_named(tmp_path, parse):
    config = parse(FINETUNE, f"--config.data.dir={tmp_path / 'gone'}")
    with pytest.raises(UserError, match=r"gone' is not a folder; write the root"):
        configs.make_model(config)
    (tmp_path / "gone" / "cats").mkdir(parents=True)
    with pytest.raises(UserError, match="no folder for split 'train' but cats; lay it out as"):
        configs.make_model(config)


@pytest.mark.parametrize(
    ("given", "patterns"),
    [("('head*','norm.*')", ("head*", "norm.*")), ("head*", ("head*",)), ("None", None)],
)
def test_frozen_parts_are_one_pattern_or_a_tuple_of_them(parse, given, patterns):
    config = parse(FINETUNE, "--config.optim.freeze", given)
    assert configs.Settings.of(config).optim.freeze == patterns
