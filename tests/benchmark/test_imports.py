"""Measuring speed needs no data, so a machine without the data packages can do it."""

import subprocess
import sys

PROGRAM = """
import sys
for name in ("array_record", "grain", "tensorboardX", "tensorflow", "tensorflow_datasets"):
    sys.modules[name] = None
import avit_jax.main, avit_jax.benchmark.run
"""


def test_the_benchmark_is_imported_without_the_packages_that_read_data():
    finished = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
