"""A run, programs that its tests share, and the file of predictions that it gives undisturbed."""

import pytest

from avit_jax.methods.base import Model
from avit_jax.prediction.run import predict_run
from tests import tiny_runs


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Config, workdir, model and weights."""
    config = tiny_runs.config_of()
    config.inference.batch_size = 64
    return tiny_runs.trained(tmp_path_factory.mktemp("run"), config)


@pytest.fixture(scope="session")
def programs():
    """Compiled programs of the run."""
    return {}


@pytest.fixture(scope="module")
def compiled_once(programs):
    """The same program serves many tests; compiling it takes longer than all they do with it."""
    compile_anew = Model.compile

    def compile_once(self, params, **arguments):
        key = arguments["batch_size"], arguments["execution"]
        if key not in programs:
            programs[key] = compile_anew(self, params, **arguments)
        return programs[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Model, "compile", compile_once)
        yield


@pytest.fixture(scope="module")
def whole(run, compiled_once):
    """The file of an undisturbed run over the evaluation split."""
    config, workdir, *_ = run
    path = predict_run(config, workdir)
    assert path == workdir / "predictions.jsonl"
    return path
