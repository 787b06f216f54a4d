"""Every script in `benchmarks/` starts, and says what it takes."""

from pathlib import Path

import pytest

from tests import commands

FILES = sorted((Path(__file__).parents[2] / "benchmarks").glob("*.py"))
# The others are parts of scripts.
SCRIPTS = [file for file in FILES if 'if __name__ == "__main__":' in file.read_text()]


def test_the_scripts_are_found():
    assert len(SCRIPTS) >= 5


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_starts_and_says_what_it_takes(script):
    status, out, err = commands.run_script(script, "--help")
    if "No module named" in err:
        missing = err.strip().splitlines()[-1]
        assert any(name in missing for name in ("onnx", "torch", "transformers")), missing
        pytest.skip(f"{missing}: an extra is not installed")
    assert status == 0, err
    assert out.startswith("usage:")
