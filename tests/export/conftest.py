"""A trained run, or what looks like one: a tiny model on the digits that halts some tokens."""

import pytest

from avit_jax.execution.plan import Plan
from tests import tiny_runs

PLAN = Plan(images=2, row_sizes=(34,), attention_images=2, lengths=(17,), dense_images=2)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Config, workdir, model and weights."""
    config = tiny_runs.config_of()
    config.data.dir = "/somewhere/secret"
    config.inference.batch_size = 4
    return tiny_runs.trained(tmp_path_factory.mktemp("run"), config)
