"""What is wrong on the command line is said in one sentence, whatever raised it underneath."""

import logging
import sys
from pathlib import Path

import pytest

from avit_jax import command_line, main, modes
from avit_jax import config as configs
from avit_jax.config import by_name
from avit_jax.errors import UserError
from avit_jax.runtime import plain_lines
from tests import tiny_runs
from tests.parsing import DIGITS, parser, refusal

# ml_collections loads config files by a method that Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.fixture
def parse(monkeypatch):
    with parser(monkeypatch) as parsed:
        yield parsed


NO_FILE = (
    "there is no config file 'configs/nope.py': write --config avit_digits, or another name of "
    f"{by_name.folder()}, or the path of a file."
)
REFUSED = {
    "no such config file": (
        ["--config=configs/nope.py"],
        NO_FILE,
    ),
    "no such config file, and a setting": (
        ["--config", "configs/nope.py:debug", "--config.seed=1"],
        NO_FILE,
    ),
    "an unknown variant": (
        [f"--config={DIGITS}:foo"],
        "the config has no variant 'foo': write one of ci, debug, live behind the colon, or "
        "nothing.",
    ),
    "a mistyped key": (
        [f"--config={DIGITS}", "--config.optim.learning_rat=1"],
        "the config has no key 'optim.learning_rat': did you mean 'optim.learning_rate'? "
        "(python -m avit_jax.settings_table prints all there are, which is docs/configuration.md).",
    ),
    "an unknown section": (
        [f"--config={DIGITS}", "--config.nowhere.x=1"],
        "the config has no key 'nowhere.x': python -m avit_jax.settings_table prints all there "
        "are, which is docs/configuration.md.",
    ),
    "a key in another section": (
        [f"--config={DIGITS}", "--config.learning_rate=1"],
        "the config has no key 'learning_rate': did you mean 'optim.learning_rate'? "
        "(python -m avit_jax.settings_table prints all there are, which is docs/configuration.md).",
    ),
    "a value of another type": (
        [f"--config={DIGITS}", "--config.train.batch_size=many"],
        "flag --config.train.batch_size=many: invalid literal for int() with base 10: 'many'",
    ),
    "half a list": (
        [f"--config={DIGITS}", "--config.method.prior=["],
        "flag --config.method.prior=[: that is no list: write such as "
        "\"[{'name': 'gaussian'}, {'name': 'uniform'}]\".",
    ),
    "another model's name": (
        [f"--config={DIGITS}", "--config.model.name=avit_small_patch16_224"],
        "--config.model.name avit_small_patch16_224 would only rename the model, whose sizes are "
        "those of avit_micro_patch4_32: write the --config of another model, or a config file "
        "with base(model='avit_small_patch16_224').",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_said_in_one_sentence(case, parse, capsys):
    arguments, sentence = REFUSED[case]
    assert refusal(parse, capsys, *arguments) == f"avit_jax: {sentence}\n"


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("config.train.batch_size = 'many'", "line 4: "),
        ("config.train.bach_size = 3", "line 4: "),
        ("raise ValueError('too\\nbad')", "line 4: too bad"),
        ("return config.", "line 4: invalid syntax"),
    ],
)
def test_a_mistake_in_a_config_file_is_found_by_its_line(code, sentence, tmp_path, parse, capsys):
    file = tmp_path / "mine.py"
    head = "from avit_jax.config import base\ndef get_config():\n"
    file.write_text(f"{head}    config = base(model='avit_micro_patch4_32')\n    {code}\n")
    message = refusal(parse, capsys, f"--config={file}")
    assert message.startswith(f"avit_jax: {file}, {sentence}")
    assert message.count("\n") == 1


SHIMS = Path(command_line.__file__).parent / "config"


@pytest.mark.parametrize(
    ("arguments", "config"),
    [
        (["--config", "avit_digits"], DIGITS),
        (["--config=avit_digits.py:debug"], f"{DIGITS}:debug"),
        (["--config", "configs/avit_digits.py"], "configs/avit_digits.py"),
        (["--model", "deit_tiny_patch16_224"], f"{SHIMS}/file_of_model.py:deit_tiny_patch16_224"),
        (["--mode=eval", "--workdir", "runs/x"], f"{SHIMS}/file_of_run.py:runs/x"),
        (["--mode=convert", "--input=a", "--workdir=b"], f"{SHIMS}/file_of_run.py:a"),
        (["--mode", "eval", "--workdir=runs/x", "--config", "avit_digits"], DIGITS),
        (["--workdir", "runs/x"], None),
        (["--mode", "eval"], None),
    ],
)
def test_a_config_is_a_file_a_name_a_model_or_what_a_run_keeps(arguments, config):
    others = ["--config.seed", "1"]
    found = command_line.with_config(["main", *arguments, *others])
    first = [] if config is None else [f"--config={config}"]
    assert found[: 1 + len(first)] == ["main", *first]
    assert found[-2:] == others
    assert sum(flag.startswith("--config=") for flag in found) == len(first)
    assert "avit_digits" not in found[1 + len(first) :]


def test_a_config_and_a_model_are_not_both_believed():
    with pytest.raises(UserError, match="--config x and --model y both say what model it is"):
        command_line.with_config(["main", "--config", "x", "--model=y"])


def test_a_run_gives_its_config_and_flags_change_it(tmp_path, parse, capsys):
    saved = tiny_runs.config_of()
    saved.seed = 7
    (tmp_path / "config.json").write_text(configs.to_json(saved))
    use = ["--mode=eval", f"--workdir={tmp_path}"]
    config = parse(*use, "--config.data.dir", "photos", "--config.inference.batch_size=8")
    assert (config.seed, config.data.dir, config.inference.batch_size) == (7, "photos", 8)
    assert configs.differences(config, configs.to_json(saved)).keys() == {
        "data.dir",
        "inference.batch_size",
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--mode=eval", "--workdir=nowhere"], "nowhere does not exist: write --config FILE, or"),
        (["--mode=convert", f"--input={DIGITS}"], "does not say what model it is of: write --conf"),
        (["--mode=eval", "--model=nothing"], "model 'nothing' is unknown"),
    ],
)
def test_what_does_not_say_its_model_is_refused(arguments, sentence, parse, capsys):
    assert sentence in refusal(parse, capsys, *arguments)


@pytest.mark.parametrize(
    ("mode", "sentence"),
    [("train", "there is no --config: write --config avit_digits"), ("eval", "no --workdir:")],
)
def test_what_is_missing_is_asked_for(mode, sentence):
    assert sentence in command_line.missing_config(mode)


def test_the_models_own_name_may_be_repeated(parse):
    config = parse(f"--config={DIGITS}", "--config.model.name=avit_micro_patch4_32")
    assert config.model.name == "avit_micro_patch4_32"


def test_settings_that_are_unset_take_a_value_of_their_type(parse):
    config = parse(f"--config={DIGITS}", "--config.method.prior_compat", "nvlabs")
    assert config.method.prior_compat == "nvlabs"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("laplace", "laplace"),
        (
            "[{'name': 'gaussian', 'target_depth': 2.0}, {'name': 'uniform'}]",
            [{"name": "gaussian", "target_depth": 2.0}, {"name": "uniform"}],
        ),
    ],
)
def test_a_prior_is_a_family_or_a_literal_mixture(text, value, parse):
    assert parse(f"--config={DIGITS}", "--config.method.prior", text).method.prior == value


@pytest.mark.parametrize(
    ("level", "line"), [("INFO", "going on from 4"), ("WARNING", "warning: going on from 4")]
)
def test_log_lines_say_what_happened_and_nothing_else(level, line):
    record = logging.LogRecord(
        "avit_jax.x", getattr(logging, level), "x.py", 3, "going on from %d", (4,), None
    )
    assert plain_lines.PlainLines().format(record) == line


@pytest.mark.parametrize("flag", ["--workdir", "--output", "--input"])
def test_an_address_that_nothing_here_reads_is_refused(flag):
    with pytest.raises(UserError, match=f"^{flag} is an address that begins with http://: write"):
        command_line.given_path(flag, "http://host/x")
    assert command_line.given_path(flag, "runs/x") == Path("runs/x")


@pytest.mark.parametrize("below", ["", "/deeper/still"])
def test_a_workdir_that_is_a_file_or_below_one_is_refused(below, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"^--workdir needs a folder, but .*file' is a file: write"):
        command_line.refuse_unwritable("--workdir", Path(f"{tmp_path}/file{below}"))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that nobody can write to")
def test_a_folder_that_cannot_be_made_is_refused():
    with pytest.raises(UserError, match=r"^--workdir /proc/x cannot be written to .*: write"):
        command_line.refuse_unwritable("--workdir", Path("/proc/x"))


def test_a_folder_that_can_be_made_passes_and_is_not_made(tmp_path):
    command_line.refuse_unwritable("--workdir", tmp_path / "runs" / "x")
    assert not list(tmp_path.iterdir())


def test_weights_are_not_written_where_nobody_said(parse):
    config = parse("--mode=convert", "--model=avit_micro_patch4_32", "--input=x.pth")
    with pytest.raises(UserError, match="there is no --output: write a weight file"):
        modes.run_convert(config, Path("runs/avit_micro_patch4_32"), main.options())


def test_a_file_is_no_workdir(parse, tmp_path):
    (tmp_path / "x.safetensors").touch()
    model = "--model=avit_micro_patch4_32"
    parse("--mode=predict", model, f"--workdir={tmp_path / 'x.safetensors'}", "--output=y.jsonl")
    with pytest.raises(UserError, match="is a file: make a workdir of its weights with --mode"):
        main.checked_workdir()


def test_a_folder_of_the_name_of_a_config_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "avit_digits").mkdir()
    found = command_line.with_config(["main", "--config", "avit_digits"])
    assert found == ["main", f"--config={DIGITS}"]


@pytest.mark.parametrize(
    ("mode", "flag", "sentence"),
    [
        ("eval", {"stream": True}, "--stream belongs to --mode predict, not to eval"),
        ("eval", {"budget": ["0.8"]}, "use that point with --operating_point 0.8"),
        ("train", {"operating_point": "0.8"}, "which --mode train does not take"),
    ],
)
def test_a_flag_in_a_mode_without_a_use_for_it_is_refused(mode, flag, sentence):
    nothing = {"budget": None, "operating_point": None, "stream": False}
    with pytest.raises(UserError, match=sentence):
        command_line.refuse_misplaced(mode, **nothing | flag)
    command_line.refuse_misplaced(mode, **nothing)
