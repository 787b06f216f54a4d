"""Measuring speed and answering for files need no dataset: they do without its packages."""

import subprocess
import sys

PROGRAM = """
import sys
for name in ("array_record", "grain", "tensorboardX", "tensorflow", "tensorflow_datasets"):
    sys.modules[name] = None
import avit_jax.main, avit_jax.benchmark.run, avit_jax.prediction.run
"""


def test_benchmark_and_prediction_are_imported_without_the_packages_that_read_data():
    finished = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
