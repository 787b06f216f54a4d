"""Which weights a training starts from."""

import jax
import numpy as np
import pytest

from avit_jax import config as configs
from avit_jax.checkpoints.store import Checkpoints
from avit_jax.checkpoints.weights import initial_weights, weights_of_file
from avit_jax.errors import UserError
from avit_jax.experiment import Experiment
from avit_jax.pretrained.pixels import for_our_pixels
from avit_jax.pretrained.torch_writer import save_torch
from avit_jax.runtime.device_mesh import make_mesh, state_shardings
from avit_jax.training.loop import train
from avit_jax.training.optimization import Optimization
from avit_jax.training.start import restore_or_init
from tests.checkpoints.weights_of_runs import AVERAGE, MODEL, THEIRS, assert_same, policies, tiny
from tests.pretrained.files import checkpoint_of, google_research


def first_state(experiment):
    """What a training of the experiment begins with."""
    optimization = Optimization(experiment.settings, experiment.model, experiment.total_steps)
    checkpoints = Checkpoints(experiment.workdir / "checkpoints")
    return restore_or_init(experiment, optimization, checkpoints)


def test_a_training_starts_from_a_file_and_a_mistyped_path_leaves_no_workdir_behind(file, tmp_path):
    experiment = Experiment(tiny(**{"init.weights": file}), tmp_path / "run")
    state = first_state(experiment)
    assert int(state.step) == 0
    assert_same(state.params, THEIRS)
    assert_same(state.ema, THEIRS)
    with pytest.raises(UserError, match=r"nowhere\.pth does not exist"):
        train(tiny(**{"init.weights": "nowhere.pth"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_training_starts_from_a_release_of_nothing_but_an_average(tmp_path):
    release = checkpoint_of(tmp_path / "x.pth.tar", state_dict_ema=MODEL.to_torch(THEIRS))
    experiment = Experiment(tiny(**{"init.weights": str(release)}), tmp_path / "run")
    state = first_state(experiment)
    assert_same(state.params, THEIRS)
    config = tiny(**{"init.weights": str(release), "eval.weights": "raw"})
    with pytest.raises(UserError, match=r"no weights but .* write .*--config\.eval\.weights auto"):
        Experiment(config, tmp_path).weights(make_mesh())


def test_weights_of_a_file_lie_where_a_state_has_them(file):
    mesh = make_mesh(2, 4)
    params = initial_weights(
        configs.Settings.of(tiny(**{"init.weights": file})).init, MODEL, mesh
    ).params
    assert_same(params, THEIRS)
    places = jax.tree.map(lambda leaf: leaf.sharding, params)
    assert places == state_shardings(params, mesh)
    assert not all(place.is_fully_replicated for place in jax.tree.leaves(places))


def test_where_nothing_is_said_a_run_starts_from_its_seed():
    assert initial_weights(configs.Settings.of(tiny()).init, MODEL, make_mesh()) is None


def test_npz_files_of_google_research_are_known_by_their_pixels(tmp_path):
    named = google_research(THEIRS, num_heads=2, patch_size=16)
    np.savez(tmp_path / "augreg.npz", **named)
    config = tiny(**{"init.weights": str(tmp_path / "augreg.npz")})
    found = initial_weights(configs.Settings.of(config).init, MODEL, make_mesh()).params
    assert_same(found, for_our_pixels(THEIRS, "symmetric", MODEL.shape))
    config.init.pixels = "imagenet"
    assert_same(
        initial_weights(configs.Settings.of(config).init, MODEL, make_mesh()).params, THEIRS
    )


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_weights_that_were_changed_for_our_pixels_once_are_not_changed_again(ending, tmp_path):
    """Whatever a config or the name of a published model says of the file they come from."""
    ours = for_our_pixels(THEIRS, "symmetric", MODEL.shape)
    said, silent = (str(tmp_path / f"{name}{ending}") for name in ("said", "silent"))
    save_torch(said, MODEL.to_torch(ours), pixels="imagenet")
    save_torch(silent, MODEL.to_torch(THEIRS))
    for file in (said, silent):
        assert_same(weights_of_file(file, MODEL, make_mesh(), pixels="symmetric").params, ours)
    with pytest.raises(UserError, match="pixels is 'x': write one of"):
        save_torch(said, MODEL.to_torch(ours), pixels="x")


@pytest.mark.parametrize("source", ["workdir", "weights"])
def test_plain_weights_start_a_method_that_has_parameters_of_its_own(source, file, run, caplog):
    config, model = policies(**{f"init.{source}": str(run) if source == "workdir" else file})
    mesh = make_mesh(2, 4)
    with caplog.at_level("WARNING", logger="avit_jax"):
        found, again = (
            initial_weights(configs.Settings.of(config).init, model, mesh).params for _ in range(2)
        )
    assert caplog.messages == 2 * [
        "these weights have no policies: fresh ones are added, train them."
    ]
    assert_same(again, found)
    fresh = found.pop("policies")
    assert_same(found, AVERAGE if source == "workdir" else THEIRS)
    assert_same(fresh, model.init(jax.random.key(0))["policies"])
    places = jax.tree.map(lambda leaf: leaf.sharding, fresh)
    assert places == state_shardings(fresh, mesh)


def test_a_training_starts_with_policies_beside_the_weights_of_a_plain_run(run, tmp_path):
    config, _ = policies(**{"init.workdir": str(run), "train.ema_decay": 0.9})
    experiment = Experiment(config, tmp_path)
    state = first_state(experiment)
    assert set(state.params) == set(state.ema) == {*AVERAGE, "policies"}
    assert_same({name: state.params[name] for name in AVERAGE}, AVERAGE)


def test_a_recipe_for_fine_tuning_does_not_start_from_random_weights(tmp_path):
    with pytest.raises(UserError, match="fine-tunes trained weights and none are named"):
        train(tiny(**{"init.scratch": False}), tmp_path / "run")
