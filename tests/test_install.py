"""What is installed of a clone, by `pip install -e` and as a wheel."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = """
import os, sys, zipfile
source, site, build = sys.argv[1:]  # setuptools changes sys.argv
os.chdir(source)
from setuptools import build_meta
wheel = getattr(build_meta, build)(site)
zipfile.ZipFile(os.path.join(site, wheel)).extractall(site)
"""
FILES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE", "MANIFEST.in")
IMPORT = "import site, sys; site.addsitedir(sys.argv[1]); import avit_jax; print(avit_jax.__file__)"


def built(clone, site, build):
    """Unpacks what setuptools builds of a clone, as pip does."""
    command = [sys.executable, "-c", BUILD, clone, site, build]
    subprocess.run(command, check=True, capture_output=True)


def test_a_wheel_holds_all_modules_data_and_configs_and_nothing_else(tmp_path):
    pytest.importorskip("setuptools", minversion="77", reason="building needs setuptools 77")
    clone, site = tmp_path / "clone", tmp_path / "site"
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("avit_jax", "configs"):
        shutil.copytree(ROOT / name, clone / name, ignore=ignore)
    for name in FILES:
        shutil.copy(ROOT / name, clone)
    site.mkdir()
    built(clone, site, "build_wheel")

    def below(folder):
        return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}

    assert below(site / "avit_jax" / "configs") == below(clone / "configs")
    shutil.rmtree(site / "avit_jax" / "configs")
    assert below(site / "avit_jax") == below(clone / "avit_jax")
    (wheel,) = site.glob("*.whl")
    described = site / f"{wheel.name.split('-py3')[0]}.dist-info"
    assert {"licenses/LICENSE", "licenses/NOTICE"} <= below(described)
    assert "avit-jax = avit_jax.main:run" in (described / "entry_points.txt").read_text()
    (top,) = (path.name for path in site.iterdir() if path not in (wheel, described))
    assert top == "avit_jax"


def test_an_editable_install_is_not_shadowed_by_the_clone_in_the_current_folder(tmp_path):
    pytest.importorskip("setuptools", minversion="77", reason="building needs setuptools 77")
    clone, site = tmp_path / "avit_jax", tmp_path / "site"
    (clone / "avit_jax").mkdir(parents=True)
    site.mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, clone)
    shutil.copy(ROOT / "avit_jax" / "version.py", clone / "avit_jax")
    (clone / "avit_jax" / "__init__.py").touch()  # the whole package would take seconds to import
    built(clone, site, "build_editable")
    found = subprocess.run(
        [sys.executable, "-ES", "-c", IMPORT, site], cwd=tmp_path, capture_output=True, text=True
    )
    assert found.stdout.strip() == str(clone / "avit_jax" / "__init__.py"), found.stderr
