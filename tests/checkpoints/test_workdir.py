"""A run goes on with the settings it was started with, also where it is older than some of them."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import pytest

from avit_jax import config as configs
from avit_jax.checkpoints import description
from avit_jax.checkpoints.workdir import refuse_other_run, write_config
from avit_jax.config import model, settings
from avit_jax.config.settings import Setting
from avit_jax.data import symmetric_beta
from avit_jax.errors import UserError
from tests import commands
from tests.survival import process

# A run of 8 steps that was stopped after 4 by the code of commit 759d9a0, in one process on one
# CPU device: configs/avit_digits.py:debug with `commands.TINY`. Beside it, what the same code
# logged without a stop.
OLD_RUN = Path(__file__).parent / "fixtures" / "workdir_759d9a0"
OLD_METRICS = OLD_RUN.with_name("metrics_759d9a0.jsonl")
CHANGED_MEANING = ("mean_depth", "halted")  # now of layers that ran, as in evaluation


@pytest.fixture
def old_run(tmp_path):
    return Path(shutil.copytree(OLD_RUN, tmp_path / "run"))


@pytest.fixture
def old_config(old_run):
    return configs.read(old_run / "config.json")


def edit(workdir, section, **values):
    """Change the saved config; `...` takes a key out."""
    file = workdir / "config.json"
    saved = json.loads(file.read_text())
    for key, value in values.items():
        if value is ...:
            del saved[section][key]
        else:
            saved[section][key] = value
    file.write_text(json.dumps(saved))


def declare(monkeypatch, section, **added):
    """Declare settings beside those of a section."""
    known = model._of_every_model

    def more():
        tree = known()
        return tree | {section: {**tree.get(section, {}), **added}}

    monkeypatch.setattr(model, "_of_every_model", more)


def mix_as_before():
    """In the process of a command: shares of mixup are drawn as by the older code."""
    draw = lambda key, alpha, shape: jax.random.beta(key, alpha, alpha, shape)  # noqa: E731
    symmetric_beta.draw = draw


def test_a_workdir_of_older_code_goes_on_as_it_would_have(old_run):
    without_newer = {"data__repeats": 1, "data__erase__probability": 0.0}
    command = commands.command(old_run, train__steps=8, **without_newer)
    ended = process.run(command, prepare=mix_as_before)
    assert ended.status == 0, ended.err
    assert "going on from step 4" in ended.err
    written = [line for line in commands.metrics(old_run) if line["kind"] == "train"]
    expected = [json.loads(line) for line in OLD_METRICS.read_text().splitlines()]
    expected = [line for line in expected if line["kind"] == "train"]
    assert [line["step"] for line in written] == [2, 4, 6, 8]
    for ours, theirs in zip(written, expected, strict=True):
        for name in theirs.keys() - {"kind", *CHANGED_MEANING}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4), name


def test_a_new_workdir_is_new_and_its_own_config_goes_on(tmp_path):
    config = configs.base(model="avit_micro_patch4_32")
    assert refuse_other_run(config, tmp_path)
    write_config(config, tmp_path)
    assert not refuse_other_run(config, tmp_path)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("train", "batch_size", 8), ("model", "depth", 1), ("method", "gate_scale", 3.0)],
)
def test_a_value_that_changed_is_refused_by_name(old_run, old_config, section, key, value):
    before = old_config[section][key]
    old_config[section][key] = value
    with pytest.raises(UserError, match=rf"another config \({section}.{key}: {before} -> {value}"):
        refuse_other_run(old_config, old_run)


def test_any_config_may_follow_a_run_without_a_checkpoint(old_run, old_config):
    shutil.rmtree(old_run / "checkpoints")
    old_config.train.batch_size = 8
    assert refuse_other_run(old_config, old_run)


@pytest.mark.parametrize(
    "key",
    [
        "data.dir", "data.workers", "data.threads", "data.eval_cache", "data.max_bad_share",
        "train.on_nonfinite",
        "train.max_rollbacks", "eval.every", "eval.batch_size", "checkpoint.every",
        "checkpoint.keep", "log.tensorboard", "dense_twin", "inference.execution",
        "inference.batch_size", "benchmark.turns",
    ],
)  # fmt: skip
def test_what_changes_nothing_that_is_learnt_may_change(old_run, old_config, key):
    *section, name = key.split(".")
    place = old_config[section[0]] if section else old_config
    with place.ignore_type():
        place[name] = "another value"
    assert key in configs.differences(old_config, (old_run / "config.json").read_text())
    assert not refuse_other_run(old_config, old_run)


@pytest.mark.parametrize(("section", "key"), [("data", "workers"), ("optim", "clip_norm")])
def test_a_saved_config_may_lack_a_setting_that_has_its_default(old_run, section, key):
    edit(old_run, section, **{key: ...})
    config = configs.read(old_run / "config.json")
    assert config[section][key] == configs.base(model=config.model.name)[section][key]
    assert not refuse_other_run(config, old_run)


def test_a_saved_config_may_lack_a_setting_of_its_model_or_method(old_run, old_config):
    edit(old_run, "model", remat=..., qkv_bias=...)
    edit(old_run, "method", df=..., kl_reading=...)
    completed = configs.read(old_run / "config.json")
    assert (completed.model.remat, completed.model.qkv_bias) == (False, True)
    assert (completed.method.df, completed.method.kl_reading) == (3.0, "paper")
    old_config.method.kl_reading = "paper"
    assert not refuse_other_run(old_config, old_run)
    assert configs.make_model(completed) == configs.make_model(old_config)


def test_a_new_setting_has_its_value_of_before_in_older_runs(old_run, old_config, monkeypatch):
    declare(monkeypatch, "optim", lookahead=Setting(0.5, before=0.0), nesterov=Setting(False))
    declare(monkeypatch, "posterity", letters=Setting((1, 2)))  # a section that is new as a whole
    assert configs.read(old_run / "config.json").optim.lookahead == 0.0
    config = configs.base(model=old_config.model.name).unlock()
    assert (config.optim.lookahead, config.posterity.letters) == (0.5, (1, 2))
    config.update(old_config)
    config.optim.lookahead = 0.0
    assert not refuse_other_run(config, old_run)
    config.optim.lookahead = 0.5
    with pytest.raises(UserError, match=r"another config \(optim.lookahead: 0.0 -> 0.5\)"):
        refuse_other_run(config, old_run)


def test_a_new_setting_may_be_changeable(old_run, old_config, monkeypatch):
    declare(monkeypatch, "log", colour=Setting("red", changeable=True))
    config = configs.read(old_run / "config.json")
    config.log.colour = "blue"
    assert not refuse_other_run(config, old_run)


def test_a_field_of_a_dataclass_says_the_same_in_its_metadata():
    @dataclasses.dataclass
    class Inner:
        weight: float = 2.0
        later: float = dataclasses.field(default=1.0, metadata={"before": 0.0})

    @dataclasses.dataclass
    class Options:
        width: int | None = None
        colour: str = dataclasses.field(default="red", metadata={"changeable": True})
        shape: tuple[int, ...] = dataclasses.field(default=(1, 2), metadata={"before": (3,)})
        inner: Inner = dataclasses.field(default_factory=lambda: Inner(weight=7.0))

    declared = {"options": settings.of_dataclass(Options(colour="blue"))}
    assert settings.changeable_keys(declared) - settings.RETIRED.keys() == {"options.colour"}
    assert settings.defaults(declared)["options"]["colour"] == "blue"  # of this named model
    assert settings.completed({}, declared)["options"] == {
        "width": None, "colour": "red", "shape": [3], "inner": {"weight": 7.0, "later": 0.0},
    }  # fmt: skip
    saved = {"options": {"inner": {"weight": 3.0}}}
    assert settings.completed(saved, declared)["options"]["inner"] == {"weight": 3.0, "later": 0.0}


def test_a_retired_setting_is_ignored_at_its_default_and_named_otherwise(
    old_run, old_config, monkeypatch
):
    monkeypatch.setitem(settings.RETIRED, "method.bias", Setting((0, 1)))
    edit(old_run, "method", bias=[0, 1])
    read = configs.read(old_run / "config.json")
    assert "bias" not in read.method
    assert configs.make_model(read) == configs.make_model(old_config)
    assert not refuse_other_run(old_config, old_run)
    edit(old_run, "method", bias=[0, 2])
    with pytest.raises(UserError, match=r"\(method.bias: \[0, 2\] -> 'absent'\)"):
        refuse_other_run(old_config, old_run)


def test_a_retired_setting_that_was_changeable_bars_nothing(old_run, old_config, monkeypatch):
    monkeypatch.setitem(settings.RETIRED, "inference.sizes", Setting(None, changeable=True))
    edit(old_run, "inference", sizes=[3, 4])
    assert not refuse_other_run(old_config, old_run)


def test_a_key_that_never_was_is_named(old_run, old_config):
    edit(old_run, "data", colour="red")
    with pytest.raises(UserError, match=r"\(data.colour: 'red' -> 'absent'\)"):
        refuse_other_run(old_config, old_run)


def test_a_model_that_is_no_longer_known_is_named(old_run, old_config):
    edit(old_run, "model", name="avit_vanished")
    with pytest.raises(UserError, match=r"model.name: 'avit_vanished' -> 'avit_micro_patch4_32'"):
        refuse_other_run(old_config, old_run)


def test_names_of_an_earlier_try_that_trained_nothing_are_forgotten(tmp_path):
    config = configs.base(model="avit_micro_patch4_32")
    shape = configs.make_model(config).shape
    description.write(tmp_path, config, shape, ("cat", "dog"))
    assert description.kept_class_names(tmp_path) == ("cat", "dog")
    description.forget(tmp_path)
    assert description.kept_class_names(tmp_path) is None
    (tmp_path / description.RUN).write_text("{")
    with pytest.raises(UserError, match=r"description\.json is damaged"):
        description.kept_class_names(tmp_path)


def test_a_longer_training_of_a_finished_run_is_told_its_way(old_run, old_config):
    old_config.train.steps = 800
    with pytest.raises(UserError, match=rf"--config.init.workdir {old_run} and another --workdir"):
        refuse_other_run(old_config, old_run)
    old_config.seed = 3
    with pytest.raises(UserError, match="write another --workdir, or the same settings"):
        refuse_other_run(old_config, old_run)
