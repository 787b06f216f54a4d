"""Every script in `benchmarks/` starts, and says what it takes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parents[2] / "benchmarks").glob("*.py"))
# The others are parts of scripts.
SCRIPTS = [file for file in FILES if 'if __name__ == "__main__":' in file.read_text()]


def test_the_scripts_are_found():
    assert len(SCRIPTS) >= 5


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_starts_and_says_what_it_takes(script):
    done = subprocess.run(
        [sys.executable, str(script), "--help"],
        cwd=script.parents[1],
        env=os.environ | {"PYTHONPATH": str(script.parents[1]), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if "No module named" in done.stderr:
        missing = done.stderr.strip().splitlines()[-1]
        assert any(name in missing for name in ("onnx", "torch", "transformers")), missing
        pytest.skip(f"{missing}: an extra is not installed")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage:")
