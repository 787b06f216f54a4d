"""What a command line says, and one sentence for whatever is wrong with it."""

from __future__ import annotations

import json
import os
import re
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from avit_jax.config import by_name, to_json, unknown_key
from avit_jax.config.settings import flat
from avit_jax.errors import UserError
from avit_jax.runtime import stores
from avit_jax.runtime.files import is_local

# What parsing flags and config files raises over a user's mistake; anything else is our own bug.
PROBLEMS = (
    *(flags.Error, AttributeError, ImportError, KeyError, OSError),
    *(SyntaxError, TypeError, ValueError),
)
OF_A_MACHINE = {"data.dir", "data.workers", "data.threads", "data.eval_cache"}
_SHIMS = Path(__file__).parent / "config"  # config files that are no experiment


def with_config(argv: Sequence[str]) -> list[str]:
    """The command line with a `--config` that can be loaded, as far as it says what that is.

    A name stands for a config of this package; `--model` for all defaults of a named model; and
    where nothing trains, a run for its own config. Behind a `--config` come all other flags.

    Raises:
        UserError: both `--config` and `--model`.
    """
    given, model = _value(argv, "config"), _value(argv, "model")
    if given and model:
        raise UserError(
            f"--config {given} and --model {model} both say what model it is: leave one out."
        )
    if given:
        chosen = by_name.path_of(given)
        rest = list(argv[1:])
        while "config" in map(_name, rest):
            begins = list(map(_name, rest)).index("config")
            del rest[begins : begins + (1 if "=" in rest[begins] else 2)]
    else:
        chosen = f"{_SHIMS / 'file_of_model.py'}:{model}" if model else _of_run(argv)
        rest = list(argv[1:])
    return [*argv[:1], *([f"--config={chosen}"] if chosen else []), *rest]


def _of_run(argv: Sequence[str]) -> str | None:
    """The config of the run that is used; `None` where there is none, or it is to train."""
    mode = _value(argv, "mode") or "train"
    source, workdir = _value(argv, "input"), _value(argv, "workdir")
    place = os.path.expanduser(source if mode == "convert" and source else workdir)
    return f"{_SHIMS / 'file_of_run.py'}:{place}" if mode != "train" and place else None


def _value(argv: Sequence[str], name: str) -> str:
    """What was given last for a flag, `--name value` or `--name=value`; else an empty text."""
    found = ""
    for flag, following in zip(argv, (*argv[1:], ""), strict=True):
        if _name(flag) == name:
            found = flag.partition("=")[2] if "=" in flag else following
    return found


def _name(flag: str) -> str:
    return flag.partition("=")[0].lstrip("-") if flag.startswith("-") else ""


def said(mode: str, config: ConfigDict) -> dict[str, Any]:
    """What a process was told to do, which has to be the same in all processes of a run.

    Machines may keep their data in places of their own and have other numbers of cores.
    """
    settings = dict(flat(json.loads(to_json(config))))
    return {"--mode": mode} | {key: settings[key] for key in settings.keys() - OF_A_MACHINE}


def one_sentence(error: BaseException, argv: Sequence[str]) -> str:
    """What to tell a user about an error that was raised while flags were parsed.

    Args:
        error: one of `PROBLEMS`, often wrapped by a library in its own error and traceback text.
        argv: the command line.
    """
    chain = list(_chain(error))
    file = _value(argv, "config").partition(":")[0]
    for cause in reversed(chain):
        if isinstance(cause, UserError):
            return str(cause)
    if isinstance(error, OSError) and not os.path.isfile(file):
        return (
            f"there is no config file {file!r}: write --config avit_digits, or another name of "
            f"{by_name.folder()}, or the path of a file."
        )
    for cause in reversed(chain):
        line = _line_of(file, cause)
        if line is not None:
            return f"{file}, line {line}: {_text(cause)}"
    if isinstance(error, AttributeError) and "'get_config'" in str(error):
        return by_name.without_function(file)
    if isinstance(error, AttributeError | KeyError):
        return _unknown_key(chain, argv)
    return _text(error)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those that it was raised from, or while handling; the first cause last."""
    while error is not None:
        yield error
        hidden = None if error.__suppress_context__ else error.__context__
        error = error.__cause__ or hidden


def _line_of(file: str, error: BaseException) -> int | None:
    """The line of a config file in which an exception arose, if it did."""
    if isinstance(error, SyntaxError):
        return error.lineno if error.filename == file else None
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno for frame in reversed(frames) if frame.filename == file), None)


def _text(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return error.msg
    return " ".join(str(error.args[0] if isinstance(error, KeyError) else error).split())


def _unknown_key(chain: Sequence[BaseException], argv: Sequence[str]) -> str:
    key = _text(chain[-1])
    if " " in key:  # a library's own sentence instead of a key
        return key
    keys = (_name(flag).partition("config.")[2] for flag in argv)  # the error has one part of it
    return unknown_key(next((whole for whole in keys if key in whole.split(".")), key))


def checked_config(argv: Sequence[str], found: object) -> None:
    """Raises what is wrong with the config file of a command line.

    Args:
        argv: the command line, with the file.
        found: what the flag made of it; a file that could not be loaded says so only when used.
    """
    if _value(argv, "config"):
        if type(found).__module__.startswith("ml_collections.config_flags"):
            found.seed  # noqa: B018
        by_name.refuse_no_experiment(found, _value(argv, "config").partition(":")[0])


def refuse_other_model(parsed: flags.FlagValues) -> None:
    """Raises UserError for `--config.model.name`: a name alone changes no size and no weight."""
    if "config.model.name" not in parsed:
        return
    name = parsed["config.model.name"]
    if name.value != name.default:
        raise UserError(
            f"--config.model.name {name.value} would only rename the model, whose sizes are those "
            f"of {name.default}: write the --config of another model, or a config file with "
            f"base(model={name.value!r})."
        )


def refuse_misplaced(
    mode: str, *, budget: Sequence[str] | None, operating_point: str | None, stream: bool
) -> None:
    """Raises UserError for a flag in a mode that has no use for it."""
    if stream and mode != "predict":
        raise UserError(f"--stream belongs to --mode predict, not to {mode}: leave it out.")
    if budget and mode != "calibrate":
        raise UserError(
            "--budget belongs to --mode calibrate, which finds an operating point for it: "
            f"use that point with --operating_point {budget[0]}."
        )
    if operating_point and mode in ("train", "calibrate"):
        raise UserError(
            f"--operating_point sets a trained model, which --mode {mode} does not take: "
            "leave it out."
        )


def given_path(flag: str, path: str) -> Path:
    """The value of a flag as a path; `~` is the home of the user, which not every shell says.

    Raises:
        UserError: it is an address of another kind than `gs://` and `s3://`.
    """
    scheme = path.partition("://")[0]
    if not is_local(path) and scheme not in stores.SCHEMES:
        raise UserError(
            f"{flag} is an address that begins with {scheme}://: write a local path, or one of "
            "gs://BUCKET/PATH."
        )
    return stores.as_path(os.path.expanduser(path))


def refuse_unwritable(flag: str, folder: Path) -> None:
    """Raises UserError unless `folder` can be written to, or created where it does not exist."""
    if not is_local(folder):
        stores.refuse_unwritable(flag, folder)
        return
    nearest = next(place for place in (folder, *folder.parents, Path()) if place.exists())
    if not nearest.is_dir():
        raise UserError(
            f"{flag} needs a folder, but {str(nearest)!r} is a file: write another path."
        )
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".avit_jax", dir=nearest))
    except OSError as error:
        raise UserError(
            f"{flag} {folder} cannot be written to ({error.strerror}): write another path."
        ) from error


def missing_config(mode: str) -> str:
    """What to write where neither a config nor a run was named."""
    if mode == "train":
        return "there is no --config: write --config avit_digits, or the path of another file."
    return (
        f"there is no --workdir: --mode {mode} uses a trained run, which knows its config, "
        "such as --workdir runs/avit_digits; write --config FILE or --model NAME for anything else."
    )


def default_workdir(config: str, model: str | None) -> str:
    """`runs/<name>`: the model if it is named, or the config file with its variant (`:debug`)."""
    file, _, variant = config.partition(":")
    name = Path(file).stem + (f"_{re.sub('[,:]/*', '_', variant)}" if variant else "")
    return os.path.join("runs", model or name)


def workdir_path(path: str) -> Path:
    """The value of `--workdir`.

    Raises:
        UserError: it lies in a store that no checkpoints are written to, or is a file.
    """
    if not path.strip():
        raise UserError(
            "--workdir is empty: write a folder, such as runs/avit_digits, or leave it out."
        )
    stores.refuse_without_checkpoints("--workdir", path)
    workdir = given_path("--workdir", path)
    if workdir.is_file():
        raise UserError(
            f"--workdir {path} is a file: make a workdir of its weights with --mode convert "
            f"--input {path} --output FOLDER, or use them with --config.init.weights {path}."
        )
    return workdir
