"""The table of an accelerator: its commands, its rows, and the page that it is put into."""

from types import SimpleNamespace

import pytest

from tests.benchmark import scripts

accelerator = scripts.load("accelerator")
FIGURES = {
    "milliseconds": 8.0,
    "images_per_second": 32000.0,
    "speedup": 1.2,
    "speedup_quartiles": [1.1, 1.3],
    "share_of_ideal": 0.9,
}
CASE = {
    "profile": "paper",
    "batch_size": 256,
    "dtype": "bfloat16",
    "out_of_memory": ["torch eager"],
    "executions": {"dense": FIGURES | {"share_of_peak": 0.31}, "static": FIGURES},
    "training": {"out_of_memory": [], "executions": {"dense step": FIGURES}},
}


def arguments(**changed):
    given = {"batch_sizes": None, "dtype": None, "peers": None, "turns": 9, "smoke": False}
    return SimpleNamespace(**given | {"output": "out"} | changed)


def command(part, platform="gpu", **changed):
    found = {"platform": platform, "peers": ["eager", "graphs"]}
    return " ".join(accelerator.command_of(part, found, arguments(**changed)))


def test_a_part_is_the_benchmark_of_its_config_on_this_machine():
    small = command("small")
    assert "--config configs/avit_small.py --" in small and "benchmark.training=False" in small
    assert 'dtypes=("bfloat16",)' in small and 'peers=("eager", "graphs")' in small
    assert "batch_sizes" not in small  # what suits the machine
    assert 'dtypes=("float32",)' in command("tiny", "cpu")
    assert "--config configs/avit_small.py:live --" in command("training")
    assert "batch_sizes=(128, 256)" in command("small", batch_sizes="128,256")
    assert "peers=()" in command("small", peers="") and "model.depth=2" in command(
        "small", smoke=True
    )


def test_the_table_has_a_row_for_each_program_and_says_what_found_no_room():
    parts = {
        "small": {"command": "one", "environment": {"device": "H200"}, "cases": [CASE]},
        "training": {"command": "two", "environment": {}, "cases": [CASE]},
        "tiny": {"command": "three", "failed": 1},
    }
    text = accelerator.markdown({"parts": parts})
    assert text.startswith("device H200\n")
    assert "| small | paper | 256 | dense | 8.00 | 32,000 | 1.20 (1.10-1.30) |  | 31% |" in text
    assert "| static | 8.00 | 32,000 | 1.20 (1.10-1.30) | 0.90 |" in text
    assert "| small | paper | 256 | torch eager | out of memory |" in text
    assert "| training | paper | 256 | dense step |" in text
    assert "Part tiny failed with status 1." in text
    assert "    two\n" in text


def test_a_table_goes_between_the_two_markers_of_a_page():
    page = f"before\n{accelerator.BEGIN}\nold\n{accelerator.END}\nafter\n"
    found = accelerator.replace_measured(page, "new")
    assert "new" in found and "old" not in found
    assert found.startswith("before\n") and found.endswith("after\n")
    with pytest.raises(ValueError, match="one line"):
        accelerator.replace_measured("no markers", "new")
