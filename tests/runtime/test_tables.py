"""Tables fit the terminal, and whatever is to be copied stays whole."""

import pytest

from avit_jax.runtime.tables import columns, table

PATH = f"/home/somebody/{'a-long-name/' * 9}eval.json"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_table_is_no_wider_than_the_terminal_and_loses_no_word(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    value = "correlation -0.20; upper half 2.81, lower half 2.91 layers deep " * 3
    lines = table([("depth and brightness", value), ("images", "510")], "Result").splitlines()
    assert {len(line) for line in lines} <= set(range(width + 1))
    assert len({len(line) for line in lines}) == 1
    words = [line.strip("│ ").removeprefix("depth and brightness") for line in lines[3:-2]]
    assert " ".join(" ".join(words).split()) == value.strip()


def test_a_path_stays_whole(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert PATH in table([("summary", PATH)], "Result")


@pytest.mark.parametrize("width", [30, 80, 300])
def test_columns_without_room_follow_below_beside_the_names_again(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    header = ["execution", *(f"figure {number}" for number in range(12))]
    cells = [[name, *(f"{name[0]}{number}" for number in range(12))] for name in ("dense", "live")]
    text = columns(header, cells)
    assert max(map(len, text.splitlines())) <= width
    blocks = text.split("\n\n")
    assert all(block.startswith("execution  figure ") for block in blocks)
    assert all("\ndense  " in block and "\nlive  " in block for block in blocks)
    assert [cell for cell in text.split() if cell[0] == "d" and cell != "dense"] == cells[0][1:]
    assert (len(blocks) == 1) == (width == 300)


def test_columns_need_a_cell_for_each():
    with pytest.raises(ValueError, match="2 columns was given 1 cells"):
        columns(["a", "b"], [["1"]])
