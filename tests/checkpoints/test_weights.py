"""Which weights a run starts from, and which ones the other modes take."""

import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from avit_jax import config as configs
from avit_jax import save_torch
from avit_jax.checkpoints.store import Checkpoints
from avit_jax.checkpoints.weights import Weights, initial_weights
from avit_jax.errors import UserError
from avit_jax.evaluation.run import evaluate_run
from avit_jax.experiment import Experiment
from avit_jax.pretrained.pixels import for_our_pixels
from avit_jax.runtime.device_mesh import make_mesh, state_shardings
from avit_jax.training.loop import train
from avit_jax.training.optimization import Optimization
from avit_jax.training.start import restore_or_init
from tests.pretrained.files import checkpoint_of, google_research

ROOT = Path(__file__).parents[2]
SIZES = {"depth": 2, "embed_dim": 64, "num_heads": 2, "patch_size": 16}
# Two processes, each with a path of its own: what process 1 cannot read, nobody uses.
PROGRAM = """
import sys
import jax, numpy as np
from avit_jax import config as configs
from avit_jax.errors import UserError
from avit_jax.main import initialise_processes
from avit_jax.checkpoints.weights import initial_weights
from avit_jax.runtime.device_mesh import make_mesh
initialise_processes()
config = configs.from_json(open(sys.argv[1]).read())
model, mesh = configs.make_model(config), make_mesh(1, 2)
for path in sys.argv[2:]:
    config.init.weights = path.format(jax.process_index())
    try:
        params = initial_weights(configs.Settings.of(config).init, model, mesh).params
        whole = jax.jit(lambda x: x, out_shardings=jax.NamedSharding(mesh, jax.P()))(params)
        split = sum(not leaf.is_fully_replicated for leaf in jax.tree.leaves(params))
        print(split, *[np.asarray(leaf).sum(dtype=float) for leaf in jax.tree.leaves(whole)])
    except UserError as error:
        print(error)
"""


def tiny(**changes):
    config = configs.debug(configs.base(model="avit_micro_patch4_32").unlock())
    config.model.update(SIZES)
    config.train.ema_decay = 0.9
    config.eval.batch_size = 256
    config.update_from_flattened_dict(changes)
    return config


def drawn(model, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), model.abstract_params()
    )


def first_state(experiment):
    """What a training of the experiment begins with."""
    optimization = Optimization(experiment.settings, experiment.model, experiment.total_steps)
    checkpoints = Checkpoints(experiment.workdir / "checkpoints")
    return restore_or_init(experiment, optimization, checkpoints)


def assert_same(found, wanted):
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


MODEL = configs.make_model(tiny())
THEIRS, OURS, AVERAGE = (drawn(MODEL, seed) for seed in range(3))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "theirs.pth"
    save_torch(path, MODEL.to_torch(THEIRS))
    return str(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The workdir of a run with a moving average."""
    workdir = tmp_path_factory.mktemp("run")
    (workdir / "config.json").write_text(configs.to_json(tiny()))
    checkpoints = Checkpoints(workdir / "checkpoints")
    checkpoints.save(7, jax.device_put({"params": OURS, "ema": AVERAGE}))
    checkpoints.close()
    return workdir


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


@pytest.mark.parametrize(
    ("weights", "wanted"), [("auto", AVERAGE), ("ema", AVERAGE), ("raw", THEIRS)]
)
def test_a_checkpoint_of_others_is_chosen_from_like_a_run(tmp_path, weights, wanted):
    both = {"model": MODEL.to_torch(THEIRS), "model_ema": MODEL.to_torch(AVERAGE)}
    path = checkpoint_of(tmp_path / "x.pth", **both)
    config = tiny(**{"init.weights": str(path), "eval.weights": weights})
    assert_same(Experiment(config, tmp_path).weights(make_mesh()).params, wanted)


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


def test_several_processes_read_the_file_or_none_goes_on(file, tmp_path):
    (tmp_path / "config.json").write_text(configs.to_json(tiny()))
    missing = f"{tmp_path}/{{}}.pth"
    Path(missing.format(0)).write_bytes(Path(file).read_bytes())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "config.json"), missing, file]
    common = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2"}
    common |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    processes = [
        subprocess.Popen(
            command,
            env=common | {"JAX_PROCESS_ID": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    lines = [out.splitlines()[-2:] for out, _ in outputs]  # behind what the transport says
    assert lines[0][0] == "process 1 could not begin: read its message."
    assert lines[1][0].endswith("1.pth does not exist: give the path of a weight file.")
    sums = [leaf.sum(dtype=float) for leaf in jax.tree.leaves(THEIRS)]
    for _, line in lines:
        split, *found = map(float, line.split())
        assert split > 0
        assert found == pytest.approx(sums, abs=1e-9)


def policies(**changes):
    """The config and model of an AdaViT on the backbone of the runs and files here."""
    config = configs.debug(configs.base(model="adavit_deit_micro_patch4_32").unlock())
    config.model.update(SIZES)
    config.update_from_flattened_dict(changes)
    return config, configs.make_model(config)


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


def test_a_run_is_not_evaluated_as_a_method_that_it_has_no_parameters_for(run):
    config, _ = policies()
    with pytest.raises(UserError, match=r"have other sizes than this model \(in policies\)"):
        Experiment(config, run).weights(make_mesh())


def test_a_recipe_for_fine_tuning_does_not_start_from_random_weights(tmp_path):
    with pytest.raises(UserError, match="fine-tunes trained weights and none are named"):
        train(tiny(**{"init.scratch": False}), tmp_path / "run")


def test_weights_used_otherwise_than_trained_are_said_to_be(tmp_path, caplog, monkeypatch):
    model, mesh = configs.make_model(tiny()), make_mesh()
    monkeypatch.setattr(
        "avit_jax.experiment.weights_of_run",
        lambda *_, **__: Weights(model.abstract_params(), "run", 1),
    )
    (tmp_path / "config.json").write_text(configs.to_json(tiny()))
    with caplog.at_level("WARNING", logger="avit_jax"):
        Experiment(tiny(), tmp_path).weights(mesh)
        assert not caplog.records
        Experiment(tiny(**{"method.gate_center": 0.0}), tmp_path).weights(mesh)
    (record,) = caplog.records
    assert "method.gate_center: 10.0 -> 0.0" in record.getMessage()
