"""Parts of the work are contiguous and complete, and nobody waits for who could not begin."""

import jax
import numpy as np
import pytest

from avit_jax import process_group
from avit_jax.errors import UserError


@pytest.mark.parametrize(("total", "count"), [(10, 3), (3, 8), (1, 1), (0, 4)])
def test_the_parts_in_order_are_the_whole_and_about_equal(monkeypatch, total, count):
    monkeypatch.setattr(jax, "process_count", lambda: count)
    parts = []
    for index in range(count):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        parts.append(process_group.share(total))
    assert [item for part in parts for item in part] == list(range(total))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_one_process_alone_gathers_its_own():
    np.testing.assert_array_equal(process_group.gather(np.asarray([1, 2])), [[1, 2]])
    assert process_group.in_all_or_none(lambda: "begun") == "begun"


def test_who_could_begin_hears_of_the_other_and_who_could_not_says_why(monkeypatch):
    def unable():
        raise UserError("no such folder")

    monkeypatch.setattr(process_group, "gather", lambda failed: np.asarray([False, True]))
    with pytest.raises(UserError, match="process 1 could not begin: read its message"):
        process_group.in_all_or_none(lambda: "begun")
    with pytest.raises(UserError, match="no such folder"):
        process_group.in_all_or_none(unable)
