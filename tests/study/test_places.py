"""Which devices each of several cells gets."""

import pytest

from avit_jax.errors import UserError
from avit_jax.study.places import Machine, look, places


def test_each_accelerator_has_its_cell():
    assert places(Machine("gpu", 3), None, {}) == [
        {"CUDA_VISIBLE_DEVICES": name} for name in ("0", "1", "2")
    ]
    seen = {"CUDA_VISIBLE_DEVICES": "5,2"}
    assert places(Machine("gpu", 2), None, seen) == [
        {"CUDA_VISIBLE_DEVICES": "5"}, {"CUDA_VISIBLE_DEVICES": "2"}
    ]  # fmt: skip
    first, second = places(Machine("tpu", 2), None, {})
    assert (first["TPU_VISIBLE_CHIPS"], second["TPU_VISIBLE_CHIPS"]) == ("0", "1")


def test_fewer_cells_share_the_accelerators_and_one_has_all():
    assert places(Machine("gpu", 4), 2, {}) == [
        {"CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "2,3"}
    ]  # fmt: skip
    assert places(Machine("gpu", 4), 1, {}) == places(Machine("tpu", 4), 1, {}) == [{}]


def test_cells_on_a_cpu_share_its_threads():
    assert places(Machine("cpu", 8), None, {}) == [{}]
    assert places(Machine("cpu", 8), 3, {}) == [{"NPROC": "2"}] * 3


def test_more_cells_than_devices_are_refused():
    with pytest.raises(UserError, match="there are 2 cores"):
        places(Machine("cpu", 2), 3, {})
    with pytest.raises(UserError, match="there are 2 accelerators"):
        places(Machine("gpu", 2), 3, {})
    with pytest.raises(UserError, match="write 1, whose cells use them all, or 4"):
        places(Machine("tpu", 4), 2, {})


def test_a_cpu_is_known_without_starting_jax():
    assert look({"JAX_PLATFORMS": "cpu", "NPROC": "1"}) == Machine("cpu", 1)
