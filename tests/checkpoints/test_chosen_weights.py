"""Which weights the modes take that do not train."""

import jax
import numpy as np
import pytest

from avit_jax import config as configs
from avit_jax.checkpoints.store import Checkpoints
from avit_jax.checkpoints.workdir import as_rows
from avit_jax.errors import UserError
from avit_jax.evaluation.run import evaluate_run
from avit_jax.experiment import Experiment
from avit_jax.runtime.device_mesh import make_mesh
from tests.checkpoints.weights_of_runs import (
    AVERAGE,
    MODEL,
    OURS,
    THEIRS,
    assert_same,
    policies,
    tiny,
)
from tests.pretrained.files import checkpoint_of


@pytest.mark.parametrize(
    ("weights", "wanted"), [("auto", AVERAGE), ("ema", AVERAGE), ("raw", THEIRS)]
)
def test_a_checkpoint_of_others_is_chosen_from_like_a_run(tmp_path, weights, wanted):
    both = {"model": MODEL.to_torch(THEIRS), "model_ema": MODEL.to_torch(AVERAGE)}
    path = checkpoint_of(tmp_path / "x.pth", **both)
    config = tiny(**{"init.weights": str(path), "eval.weights": weights})
    assert_same(Experiment(config, tmp_path).weights(make_mesh()).params, wanted)


@pytest.mark.parametrize(
    ("weights", "wanted", "name"),
    [("auto", AVERAGE, "ema"), ("ema", AVERAGE, "ema"), ("raw", OURS, "params")],
)
def test_a_checkpoint_comes_before_what_it_was_trained_from(file, run, weights, wanted, name):
    config = tiny(**{"init.weights": file, "eval.weights": weights})
    chosen = Experiment(config, run).weights(make_mesh())
    assert_same(chosen.params, wanted)
    assert (chosen.origin, chosen.step) == (f"step 7 of {run} ({name})", 7)


def test_without_a_checkpoint_the_modes_take_what_a_training_would_start_from(file, run, tmp_path):
    chosen = Experiment(tiny(**{"init.weights": file}), tmp_path).weights(make_mesh())
    assert_same(chosen.params, THEIRS)
    assert (chosen.origin, chosen.step) == (file, None)
    chosen = Experiment(tiny(**{"init.workdir": str(run)}), tmp_path).weights(make_mesh())
    assert_same(chosen.params, AVERAGE)
    with pytest.raises(UserError, match=r"no config.json of a run: .* --config.init.weights FILE"):
        Experiment(tiny(), tmp_path).weights(make_mesh())


def test_an_average_that_nobody_kept_is_not_replaced_silently(file, tmp_path):
    config = tiny(**{"eval.weights": "ema", "init.weights": file})
    with pytest.raises(UserError, match="no moving average"):
        Experiment(config, tmp_path).weights(make_mesh())
    (tmp_path / "config.json").write_text(configs.to_json(tiny(**{"train.ema_decay": 0.0})))
    with pytest.raises(UserError, match="keeps no moving average"):
        Experiment(config, tmp_path).weights(make_mesh())


def test_a_file_is_evaluated_and_named(file, tmp_path, capsys):
    summary = evaluate_run(tiny(**{"init.weights": file}), tmp_path)
    assert (summary["images"], summary["weights"]) == (510, file)
    assert file in capsys.readouterr().out


def test_a_run_is_not_evaluated_as_a_method_that_it_has_no_parameters_for(run):
    config, _ = policies()
    with pytest.raises(UserError, match=r"trained with other settings \(model\.name: 'avit_micro"):
        Experiment(config, run).weights(make_mesh())


def test_weights_used_otherwise_than_trained_are_said_to_be(file, run, caplog):
    same = {"init.weights": file}
    with caplog.at_level("INFO", logger="avit_jax.experiment"):
        Experiment(tiny(**same), run).weights()
        assert not _said(caplog)
        experiment = Experiment(tiny(**same, **{"method.gate_center": 0.0, "data.dir": "x"}), run)
        experiment.weights()
    (message,) = _said(caplog)
    assert "method.gate_center: 10.0 -> 0.0" in message
    assert as_rows(experiment.changes) == [
        ("changed: data.dir", "None -> 'x'"),
        ("changed: method.gate_center", "10.0 -> 0.0"),
    ]


def _said(caplog):
    """By the experiment itself, whatever other loggers are set to."""
    return [one.getMessage() for one in caplog.records if one.name == "avit_jax.experiment"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("train.ema_decay", 0.0), ("method.target_depth", 2.0), ("seed", 1), ("init.weights", None)],
)
def test_what_has_made_the_parameters_cannot_differ_where_they_are_used(file, run, key, value):
    config = tiny(**({"init.weights": file} | {key: value}))
    with pytest.raises(UserError, match=rf"trained with other settings \({key}: .* leave them out"):
        Experiment(config, run).weights()


def test_a_run_looks_at_images_of_another_size_with_its_positions_interpolated(file, run):
    config = tiny(**{"init.weights": file, "model.image_size": 64})
    found = Experiment(config, run).weights().params
    assert_same(found["blocks"], AVERAGE["blocks"])
    wanted = configs.make_model(config).from_torch(MODEL.to_torch(AVERAGE))
    assert_same(found, wanted)


def test_a_run_whose_weights_are_not_finite_is_refused(tmp_path):
    config = tiny()
    (tmp_path / "config.json").write_text(configs.to_json(config))
    broken = jax.tree.map(np.copy, OURS)
    broken["head"]["bias"][0] = np.nan
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(3, jax.device_put({"params": OURS, "ema": broken}))
    checkpoints.close()
    with pytest.raises(
        UserError, match=r"step 3 of .* \(ema\) are NaN or infinite in head\.bias: "
    ):
        Experiment(config, tmp_path).weights(make_mesh())
    config = tiny(**{"eval.weights": "raw"})
    assert_same(Experiment(config, tmp_path).weights(make_mesh()).params, OURS)
