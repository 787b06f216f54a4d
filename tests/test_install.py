"""What `pip install -e` of a clone puts on the path is found next to that clone, too."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = """
import os, sys, zipfile
source, site = sys.argv[1:]  # setuptools changes sys.argv
os.chdir(source)
from setuptools import build_meta
wheel = build_meta.build_editable(site)
zipfile.ZipFile(os.path.join(site, wheel)).extractall(site)
"""
IMPORT = "import site, sys; site.addsitedir(sys.argv[1]); import avit_jax; print(avit_jax.__file__)"


def test_an_editable_install_is_not_shadowed_by_the_clone_in_the_current_folder(tmp_path):
    pytest.importorskip("setuptools", minversion="77", reason="building needs setuptools 77")
    clone, site = tmp_path / "avit_jax", tmp_path / "site"
    (clone / "avit_jax").mkdir(parents=True)
    site.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, clone)
    shutil.copy(ROOT / "avit_jax" / "version.py", clone / "avit_jax")
    (clone / "avit_jax" / "__init__.py").touch()  # the whole package would take seconds to import
    subprocess.run([sys.executable, "-c", BUILD, clone, site], check=True, capture_output=True)
    found = subprocess.run(
        [sys.executable, "-ES", "-c", IMPORT, site], cwd=tmp_path, capture_output=True, text=True
    )
    assert found.stdout.strip() == str(clone / "avit_jax" / "__init__.py"), found.stderr
