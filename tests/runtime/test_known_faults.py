"""The installed JAX sums as it should, whatever its version."""

import jax
import jax.numpy as jnp
import pytest
from jax._src import xla_bridge

from avit_jax.runtime import known_faults


def test_a_compiled_sum_after_products_of_many_rows_is_right():
    """The program of jax #39103, which 0.10.2 answers with 1071645696 on CPUs."""
    rows = 32_769
    points = jnp.zeros((rows, 3)).at[:, 0].set(jnp.arange(rows))

    def norms(points):
        return jax.vmap(lambda point: jnp.sum((jnp.eye(3) @ point) ** 2))(points)

    assert jax.jit(norms)(points)[-1] == norms(points)[-1] == float((rows - 1) ** 2)


@pytest.mark.parametrize(
    "given, jaxlib, wanted",
    [
        (None, "0.10.2", "--xla_cpu_experimental_ynn_fusion_type="),
        ("--xla_a=1", "0.10.2", "--xla_a=1 --xla_cpu_experimental_ynn_fusion_type="),
        ("--xla_cpu_experimental_ynn_fusion_type=dot", "0.10.2", None),
        ("--xla_a=1", "0.10.1", None),  # which may not know the flag, and ends where it does not
        (None, "0.12.0", None),
    ],
)
def test_the_flag_is_set_for_the_wrong_version_alone_and_never_twice(given, jaxlib, wanted):
    environment = {} if given is None else {"XLA_FLAGS": given}
    known_faults.avoid(environment, jaxlib)
    assert environment.get("XLA_FLAGS") == (wanted or given)


@pytest.mark.parametrize("started", [True, False])
def test_where_jax_has_started_a_warning_says_that_it_is_too_late(started, monkeypatch, caplog):
    monkeypatch.setattr(xla_bridge, "backends_are_initialized", lambda: started)
    known_faults.avoid({}, "0.10.2")
    assert ["import avit_jax first" in line for line in caplog.messages] == [True] * started
