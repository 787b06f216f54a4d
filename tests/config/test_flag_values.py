"""Values on the command line: switches, None, tuples, paths; and Ctrl-C."""

from pathlib import Path

import pytest

from avit_jax import command_line, main
from avit_jax.config.defaults import Settings
from tests.parsing import DIGITS, parser, refusal

# ml_collections loads config files by a method that Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.fixture
def parse(monkeypatch):
    with parser(monkeypatch) as parsed:
        yield parsed


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ([], True),
        (["true"], True),
        (["false"], False),
        (["No"], False),
        (["off"], False),
        (["0"], False),
        (["yes"], True),
    ],
)
@pytest.mark.parametrize("separate", [True, False], ids=["separate", "joined"])
def test_a_switch_takes_a_word_with_or_without_an_equals_sign(words, value, separate, parse):
    flag = "--config.log.tensorboard"
    given = [flag, *words] if separate else ["=".join([flag, *words])]
    config = parse(f"--config={DIGITS}", *given, "--config.seed", "5", "--workdir", "x")
    assert (config.log.tensorboard, config.seed) == (value, 5)


@pytest.mark.parametrize(
    ("key", "before"),
    [
        ("train.steps", "7"),
        ("data.dir", "photos"),
        ("method.prior", "laplace"),
        ("method.prior_compat", "nvlabs"),
    ],
)
@pytest.mark.parametrize("last", ["None", "none", None])
def test_a_setting_is_unset_by_none(key, before, last, parse):
    arguments = [f"--config.{key}={before}", f"--config.{key}", last]
    config = parse(f"--config={DIGITS}", *arguments[: 3 if last else 1])
    section, name = key.split(".")
    assert (config[section][name] is None) == bool(last)


@pytest.mark.parametrize(
    ("words", "value"),
    [(["(17, 4, 2)"], (17, 4, 2)), (["17", "4"], (17, 4)), (["(17, 4)", "None"], None)],
)
def test_a_tuple_is_given_whole_or_in_parts_and_unset_by_none(words, value, parse):
    arguments = [part for word in words for part in ("--config.inference.capacities", word)]
    assert parse(f"--config={DIGITS}", *arguments).inference.capacities == value


def test_none_may_be_a_name_in_a_tuple(parse):
    config = parse(f"--config={DIGITS}", "--config.benchmark.profiles", "none")
    assert config.benchmark.profiles == ("none",)


def test_negative_numbers_are_values(parse):
    assert parse(f"--config={DIGITS}", "--config.mesh.data", "-1").mesh.data == -1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config.log.tensorboard", "maybe"], "tensorboard=maybe: write true or false."),
        (["--config.log.tensorboard=None"], "tensorboard=None: write true or false."),
    ],
)
def test_a_switch_that_is_no_word_says_which_there_are(arguments, sentence, parse, capsys):
    assert refusal(parse, capsys, f"--config={DIGITS}", *arguments) == (
        f"avit_jax: flag --config.log.{sentence}\n"
    )


def test_a_path_may_begin_at_home(monkeypatch, tmp_path, parse):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert command_line.given_path("--workdir", "~/runs/x") == tmp_path / "runs" / "x"
    assert command_line.given_path("--workdir", "~nobody-here/x") == Path("~nobody-here/x")
    keys = ("data.dir", "init.weights", "teacher.workdir", "dense_twin")
    settings_of_paths = [f"--config.{key}=~/x" for key in keys]
    config = parse(f"--config={DIGITS}", *settings_of_paths, "--input=~/x", "--output=~/x")
    assert (main._input(), main._output()) == (str(tmp_path / "x"), tmp_path / "x")
    settings = Settings.of(config)
    found = (settings.data.dir, settings.init.weights, settings.teacher.workdir)
    assert {*found, settings.dense_twin} == {str(tmp_path / "x")}


def test_an_interrupt_is_one_line(monkeypatch, parse, capsys, tmp_path):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    for name in ("initialise_processes", "use_compilation_cache"):
        monkeypatch.setattr(main, name, lambda *arguments: None)
    monkeypatch.setitem(main.modes.MODES, "train", interrupted)
    parse(f"--config={DIGITS}", "--workdir", str(tmp_path))
    with pytest.raises(SystemExit) as end:
        main.main(["main"])
    assert end.value.code == main.errors.EXIT_INTERRUPTED
    assert capsys.readouterr().err == "avit_jax: interrupted; what was saved is safe.\n"
