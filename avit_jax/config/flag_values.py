"""Values of flags `--config.key value`: switches, None, numbers, lists, and how they are joined."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections.config_flags import config_path


class YesOrNo(flags.BooleanParser):
    """For switches: also yes, no, on and off."""

    def parse(self, argument: Any) -> bool:
        """The truth value that `argument` stands for."""
        word = {"yes": "true", "on": "true", "no": "false", "off": "false"}
        try:
            return super().parse(word.get(str(argument).lower(), argument))
        except (TypeError, ValueError):
            raise ValueError("write true or false.") from None


class _OrNone(flags.ArgumentParser):
    """A parser that also takes None, which leaves a setting unset."""

    def parse(self, argument: Any) -> Any:
        """The value that `argument` stands for."""
        return None if _is_none(argument) else super().parse(argument)


class WholeNumberOrNone(_OrNone, flags.IntegerParser):
    """For whole numbers."""


class NumberOrNone(_OrNone, flags.FloatParser):
    """For numbers."""


class TextOrNone(_OrNone, flags.ArgumentParser):
    """For names and paths."""


class LiteralOrText(_OrNone):
    """For settings that are a name or a list: text that looks like a Python list becomes one.

    ml_collections' own parser would make a boolean flag of them, and `--flag value` would not work.
    """

    def parse(self, argument: Any) -> Any:
        """The value that `argument` stands for."""
        argument = super().parse(argument)
        if not isinstance(argument, str) or not argument.lstrip().startswith(("[", "(")):
            return argument
        try:
            return ast.literal_eval(argument)
        except (SyntaxError, ValueError):
            raise ValueError(
                "that is no list: write such as \"[{'name': 'gaussian'}, {'name': 'uniform'}]\"."
            ) from None

    def flag_type(self) -> str:
        """What `--help` says about the values."""
        return "text or a Python list"


PARSERS = {
    bool: YesOrNo(),
    int: WholeNumberOrNone(),
    float: NumberOrNone(),
    str: TextOrNone(),
    object: LiteralOrText(),
}


def _is_none(argument: Any) -> bool:
    return argument is None or (isinstance(argument, str) and argument.lower() in ("none", "null"))


def joined(argv: Sequence[str]) -> list[str]:
    """A command line with `--config.key value` as `--config.key=value`.

    The two are the same but for switches, which absl would take for true in front of any value.
    """
    arguments: list[str] = []
    for argument in argv:
        key = arguments[-1] if arguments else ""
        if re.fullmatch(r"--?config\.[\w.]+", key) and not re.match(r"-+[A-Za-z]", argument):
            arguments[-1] = f"{key}={argument}"
        else:
            arguments.append(argument)
    return arguments


def unset_tuples(flag: Any) -> None:
    """Unsets the settings that are tuples and were given as None at last.

    Args:
        flag: that of `--config`. Of a tuple it holds all that was given, and "none" may be a name.
    """
    for key, value in list(flag.override_values.items()):
        if isinstance(value, tuple) and value[-1:] == (None,):
            config_path.set_value(key, flag.value, None)
