"""The guards of .ci/ refuse what they are there to refuse."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHECKS = ROOT / ".ci"
FOLDERS = ("avit_jax", "benchmarks", "configs", "launch", "notebooks", "tests", ".ci")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)


def finished_run(workdir: Path, top1: float) -> Path:
    for name in ("config.json", "metrics.jsonl", "timings.jsonl", "checkpoints", "depth_maps.png"):
        (workdir / name).touch()
    (workdir / "summary.json").write_text(json.dumps({"top1": top1}))
    return workdir


@pytest.mark.parametrize(("top1", "accepted"), [(0.9, True), (0.8999, False), (97.5, False)])
def test_a_run_is_held_to_its_bar_as_a_share_of_images(
    tmp_path: Path, top1: float, accepted: bool
) -> None:
    workdir = finished_run(tmp_path, top1)
    checked = run(sys.executable, CHECKS / "check_run.py", workdir, "--top1", "0.9")
    assert (checked.returncode == 0) is accepted, checked.stderr


@pytest.mark.parametrize("name", ["summary.json", "depth_maps.png", "metrics.jsonl"])
def test_a_run_that_left_a_file_out_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    (finished_run(tmp_path, 0.95) / name).unlink()
    checked = run(sys.executable, CHECKS / "check_run.py", tmp_path, "--top1", "0.9")
    assert checked.returncode == 1
    assert name in checked.stderr


def test_a_readme_without_a_command_is_refused(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("pip install -e '.[test]' && pytest\n")
    checked = run(sys.executable, CHECKS / "check_readme.py", readme)
    assert checked.returncode == 1
    assert "configs/avit_digits.py" in checked.stderr


def test_the_interpreter_that_is_found_has_the_version_asked_for() -> None:
    version = "{}.{}".format(*sys.version_info[:2])
    found = subprocess.run(
        [CHECKS / "find_python", version],
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run(found.stdout.strip(), "--version").stdout.startswith(f"Python {version}.")


def test_a_version_that_no_machine_has_gets_a_reason_and_a_bad_one_a_remedy() -> None:
    missing = run(CHECKS / "find_python", "3.999")
    assert missing.returncode == 1
    assert missing.stderr.startswith("no usable Python 3.999 on this machine")
    assert run(CHECKS / "find_python", "three").returncode == 2


def test_every_script_of_ci_and_launch_may_be_executed() -> None:
    sourced = ROOT / "launch" / "common.sh"
    launch = [path for path in (ROOT / "launch").glob("*.s[hb]*") if path != sourced]
    scripts = [CHECKS / "run", CHECKS / "find_python", *launch]
    assert [script.name for script in scripts if not os.access(script, os.X_OK)] == []


def test_the_version_can_be_read_without_importing_anything() -> None:
    version_file = (ROOT / "avit_jax" / "version.py").read_text()
    assert re.search(r'^__version__ = "\d+\.\d+\.\d+"$', version_file, flags=re.MULTILINE)
    assert re.search(r"^(from|import) ", version_file, flags=re.MULTILINE) is None


def test_every_path_that_ci_names_exists() -> None:
    script = (CHECKS / "run").read_text()
    lists = re.findall(r"^readonly [A-Z_]+=\(([^)]*)\)", script, flags=re.MULTILINE)
    paths = [path for one in lists for path in one.split()]
    assert len(lists) == 2 and [path for path in paths if not (ROOT / path).exists()] == []


def test_no_import_is_excepted_from_the_layers() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert settings["exclude_type_checking_imports"] is False
    assert [one["name"] for one in settings["contracts"] if "ignore_imports" in one] == []
    layers = settings["contracts"][0]
    assert layers["type"] == "layers" and layers["exhaustive"]


def test_documents_and_docstrings_name_only_files_that_exist() -> None:
    texts = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "launch").glob("*")]
    texts += [*(ROOT / "avit_jax").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    path = re.compile(
        r"\b((?:avit_jax|benchmarks|configs|docs|launch|notebooks|tests)/[a-z0-9_/]+\.(?:py|md))"
    )
    named = {name for text in texts for name in path.findall(text.read_text(encoding="utf-8"))}
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_file_names_without_a_folder_are_those_of_files() -> None:
    texts = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "launch").glob("*")]
    texts += [*(ROOT / "avit_jax").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    known = {path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    known |= {path.name for path in ROOT.glob("*.py")}
    # Not names of ours: the one that is forbidden, and the one that stands for any config file.
    known |= {"utils.py", "file.py"}
    bare = re.compile(r"(?<![\w./])\w+\.py\b")
    named = {name for text in texts for name in bare.findall(text.read_text(encoding="utf-8"))}
    assert "settings.py" in named
    assert sorted(named - known) == []
