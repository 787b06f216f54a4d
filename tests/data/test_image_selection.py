"""Which images of many a report shows, under which name."""

import itertools

import pytest

from avit_jax.data import image_selection

NAMES = ("ant", "bee")


@pytest.fixture
def folder(tmp_path):
    for path in ("b.png", "bee/x.png", "wasp/x.png"):
        (tmp_path / path).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / path).write_bytes(path.encode())
    return tmp_path


def test_a_selection_knows_which_labels_are_known_and_is_called_as_its_folder(folder):
    selection = image_selection.given_files(str(folder), 10, class_names=NAMES)
    assert [selection.describe(index) for index in range(3)] == ["b.png", "bee/x.png", "wasp/x.png"]
    assert selection.labelled == (False, True, False)
    assert selection.title == folder.name


@pytest.mark.parametrize(("total", "limit"), [(10, 4), (3, 7), (1000, 48), (5, 5), (1, 1)])
def test_the_chosen_are_spread_over_all(total, limit):
    chosen = image_selection.evenly_spaced(total, limit)
    assert len(chosen) == min(total, limit) == len(set(chosen))
    assert chosen[0] == 0
    gaps = {after - before for before, after in itertools.pairwise(chosen)}
    assert len(gaps) <= 2
    assert total - chosen[-1] <= max(gaps, default=1)
