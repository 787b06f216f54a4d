"""Study files, those of the project and others, and the command that reads them."""

from pathlib import Path

import pytest

from avit_jax.errors import EXIT_PREEMPTED, EXIT_USAGE, Preempted, UserError
from avit_jax.study import Study, __main__
from avit_jax.study.file import default_workdir, folder, load

NAMES = sorted(file.stem for file in folder().glob("*.py"))
SMALL = """
from avit_jax.study import Study


def get_study(arg=None):
    return Study(config="avit_digits:debug", axes={"method.prior": ("gaussian", "laplace")})
"""


def test_the_promised_studies_are_there():
    assert {"priors", "laplace_against_gaussian", "norms", "spread", "halting_rules"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_of_every_study_and_of_its_debug_variant_makes_a_model(name):
    study, short = load(name), load(f"{name}:debug")
    assert len(study.cells()) >= 3 and len(study.budgets_in_gmacs()) == 3
    assert len(short.cells()) == 2 and len(short.budgets_in_gmacs()) == 1
    assert study.baselines and short.baselines


def test_the_claim_is_twenty_pairs_that_evaluate_every_image_alike():
    cells = load("laplace_against_gaussian").cells()
    assert len(cells) == 40
    for gaussian, laplace in zip(cells[::2], cells[1::2], strict=True):
        assert (gaussian.seed, gaussian.fold) == (laplace.seed, laplace.fold)
        assert gaussian.config.data == laplace.config.data
    assert [cell.fold for cell in cells[::2]] == list(range(5)) * 4


def test_studies_have_names_and_paths(tmp_path):
    own = tmp_path / "own.py"
    own.write_text(SMALL)
    assert load(str(own)).axes == {"method.prior": ("gaussian", "laplace")}
    assert isinstance(load(str(folder() / "norms.py:debug")), Study)
    assert default_workdir("configs/study/norms.py:debug") == Path("runs/study/norms_debug")
    assert default_workdir("norms") == Path("runs/study/norms")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def get_config(arg): ...", "describes no study: write a function get_study"),
        ("def get_study(arg): return 1", "describes no study"),
        ("def get_study(arg): return misspelt", "cannot be read: name 'misspelt'"),
        ("def get_study(arg) return", "cannot be read: "),
        ("from avit_jax.study import Study\nget_study = lambda arg: Study(axis={})", "'axis'"),
    ],
)
def test_what_is_no_study_is_said(tmp_path, text, sentence):
    file = tmp_path / "own.py"
    file.write_text(text)
    with pytest.raises(UserError, match=sentence):
        load(str(file))


def status_of(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as end:
        __main__.main(arguments)
    return end.value.code


@pytest.fixture
def own(tmp_path, monkeypatch) -> list[str]:
    # Signals of this process are those of the tests.
    monkeypatch.setattr(__main__, "preemption_notice", lambda: lambda step: False)
    (tmp_path / "own.py").write_text(SMALL)
    return ["--config", str(tmp_path / "own.py"), "--workdir", str(tmp_path / "out")]


def test_a_dry_run_lists_cells_and_writes_nothing(own, tmp_path, capsys):
    __main__.main([*own, "--dry_run"])
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in printed[:2]] == [
        "prior=gaussian,seed=0", "prior=laplace,seed=0"
    ]  # fmt: skip
    assert all(line.startswith("missing ") for line in printed[:2])
    assert printed[2].startswith("2 to come") and not (tmp_path / "out").exists()


def test_what_is_wrong_is_one_sentence_and_status_2(own, capsys):
    assert status_of(["--config", "nothing"]) == EXIT_USAGE
    assert "there is no study file 'nothing': write 'priors'" in capsys.readouterr().err
    assert status_of([*own, "--jobs", "4096"]) == EXIT_USAGE
    assert "--jobs is 4096, but there are" in capsys.readouterr().err
    assert status_of([*own, "--jobs", "0"]) == EXIT_USAGE


@pytest.mark.parametrize(
    ("ends", "status", "sentence"),
    [
        ({"a": "no memory", "b": "x"}, 1, "failed: a, b; read the log.txt of each"),
        (Preempted("stopped"), EXIT_PREEMPTED, "stopped; start the same command again"),
    ],
)
def test_the_end_is_told_by_the_exit_status(own, monkeypatch, capsys, ends, status, sentence):
    def run(*arguments) -> dict[str, str]:
        if isinstance(ends, Exception):
            raise ends
        return ends

    monkeypatch.setattr(__main__, "run", run)
    assert status_of(own) == status
    assert sentence in capsys.readouterr().err
