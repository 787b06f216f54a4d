"""Every mode that writes a run's own files refuses a workdir that another run is writing."""

import pytest

from avit_jax.calibration.fastest_plan import calibrate_run
from avit_jax.calibration.meet_budgets import dial_run
from avit_jax.errors import UserError
from avit_jax.runtime.locks import LOCK, only_writer
from avit_jax.training.loop import train
from tests import tiny_runs


@pytest.mark.parametrize(
    "mode",
    [train, calibrate_run, lambda *run: dial_run(*run, ["0.8"])],
    ids=["train", "fast", "dial"],
)
def test_a_second_run_in_one_workdir_is_refused_before_it_touches_anything(tmp_path, mode):
    with only_writer(tmp_path, "train"):
        with pytest.raises(UserError, match="is being written by another run"):
            mode(tiny_runs.config_of(), tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
