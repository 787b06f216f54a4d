"""Calibrated plans: found again for their own situation only, and open to overrides."""

import dataclasses
import json

import jax
import pytest

from avit_jax import config as configs
from avit_jax.checkpoints.stored_plans import (
    FILE,
    chosen_plan,
    save_plan,
    settings_in_use,
    situation,
)
from avit_jax.execution.plan import default_plan
from avit_jax.experiment import Experiment


@pytest.fixture
def config():
    config = configs.base(model="avit_micro_patch4_32")
    config.inference.batch_size = 16
    return config


def stored(config, workdir):
    shape = configs.make_model(config).shape
    plan = default_plan(shape.num_tokens, 3, num_heads=shape.num_heads)
    record = {"chosen": "default", "execution": "masked"}
    save_plan(workdir, situation(shape, config.inference.batch_size), plan, record)
    return plan


def test_without_calibration_there_is_nothing_to_say(config, tmp_path):
    assert Experiment(config, tmp_path).plan is None


def test_a_stored_plan_is_found_for_its_own_batch_size_only(config, tmp_path):
    plan = stored(config, tmp_path)
    assert Experiment(config, tmp_path).plan == plan
    config.inference.batch_size = 32
    assert Experiment(config, tmp_path).plan is None


def test_a_plan_for_other_devices_gives_its_places_alone_and_a_warning(config, tmp_path, caplog):
    shape = configs.make_model(config).shape
    plan = default_plan(shape.num_tokens, 3, num_heads=shape.num_heads)
    plan = dataclasses.replace(plan, capacities=(5,) * shape.depth)
    where = situation(shape, config.inference.batch_size, devices=2)
    save_plan(tmp_path, where, plan, {"execution": "masked"})
    experiment = Experiment(config, tmp_path)
    model, here = experiment.model, jax.device_count()
    sizes = model.default_plan(config.inference.batch_size // here)
    assert experiment.plan == dataclasses.replace(sizes, capacities=plan.capacities)
    assert f"on 2 devices and not used on {here}" in caplog.text
    assert experiment.execution == "compact"
    found = chosen_plan(experiment.settings.inference, model, tmp_path, name="x", devices=2)
    assert found == plan


def test_a_second_calibration_replaces_the_first(config, tmp_path):
    assert stored(config, tmp_path) == stored(config, tmp_path)
    assert (tmp_path / FILE).read_text().count('"situation"') == 1


def test_the_config_has_the_last_word(config, tmp_path):
    stored(config, tmp_path)
    config.inference.attention_images = 1
    config.inference.row_sizes = (64, 128)
    plan = Experiment(config, tmp_path).plan
    assert plan.attention_images == 1 and plan.row_sizes == (64, 128)


def test_auto_takes_the_execution_that_calibration_found_for_this_situation(config, tmp_path):
    assert Experiment(config, tmp_path).execution == "compact"
    stored(config, tmp_path)
    assert Experiment(config, tmp_path).execution == "masked"
    config.inference.batch_size = 32
    assert Experiment(config, tmp_path).execution == "compact"


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("avit_micro_patch4_32", {"gate_center": 3.0}),
        ("dvt_avit_deit_micro", {"thresholds": (0.5, 0.6)}),
        ("dvt_avit_deit_micro", {"inner.gate_center": 3.0}),
    ],
)
def test_static_sizes_and_races_are_for_the_settings_that_they_were_measured_with(
    name, setting, tmp_path
):
    config = configs.base(model=name)
    config.inference.batch_size = 16
    model = configs.make_model(config)
    plan = dataclasses.replace(model.default_plan(16), static_rows=(7,) * model.static_parts)
    record = {"execution": "static", "settings": settings_in_use(model)}
    save_plan(tmp_path, situation(model.shape, 16), plan, record)
    same = Experiment(config, tmp_path)
    assert same.plan == plan and same.execution == "static"
    changed = configs.changed(config, {f"method.{key}": value for key, value in setting.items()})
    other = Experiment(changed, tmp_path)
    assert other.plan == dataclasses.replace(plan, static_rows=None)
    assert other.execution == "compact"
    changed.inference.static_rows = plan.static_rows
    assert Experiment(changed, tmp_path).plan == plan


def test_an_execution_or_sizes_in_the_config_are_not_overruled(config, tmp_path):
    stored(config, tmp_path)
    config.inference.attention_images = 1  # of compact execution, and not what was raced
    assert Experiment(config, tmp_path).execution == "compact"
    config.inference.execution = "dense"
    assert Experiment(config, tmp_path).execution == "dense"


def test_a_plan_of_older_code_is_found(config, tmp_path):
    plan = stored(config, tmp_path)
    (entry,) = json.loads((tmp_path / FILE).read_text())
    del entry["plan"]["capacities"]  # as before there were any
    entry["plan"]["head_sizes"] = [2, 4]  # as long as there were any
    (tmp_path / FILE).write_text(json.dumps([entry]))
    assert Experiment(config, tmp_path).plan == plan


def test_a_damaged_file_is_named_with_its_remedy(config, tmp_path):
    (tmp_path / FILE).write_text("[{]")
    with pytest.raises(ValueError, match="delete it and run --mode calibrate again"):
        _ = Experiment(config, tmp_path).plan


def test_places_for_a_method_that_has_no_use_for_them_are_refused(tmp_path):
    model = "adavit_deit_micro_patch4_32"
    config = configs.debug(configs.base(model=model))
    config.inference.capacities = (5, 5)
    with pytest.raises(ValueError, match=f"capacities is .*, but {model} has no use for it"):
        _ = Experiment(config, tmp_path).plan
