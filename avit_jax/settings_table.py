"""The page of all settings: `python -m avit_jax.settings_table > docs/configuration.md`.

Names, defaults and what may change are those of the dataclasses whose fields are the settings; what
a setting means is what is written beside it there (`settings_texts.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from avit_jax.config.defaults import Settings
from avit_jax.methods.base import Model
from avit_jax.models.shape import Shape
from avit_jax.settings_texts import of_fields, summary
from avit_jax.zoo import families

_HEAD = """\
# Configuration

Printed by `python -m avit_jax.settings_table` from the code itself. A config is a Python file that
calls `avit_jax.config.base(model=NAME)`, changes what its experiment changes, and returns the
result, as those in `configs/` do. Every setting is also a flag, called as it is below:

```
python -m avit_jax.main --config avit_digits --config.optim.learning_rate 1e-3 --config.seed 1
```

Types are checked, a key that does not exist is refused, and so is what contradicts itself, before
anything runs. `None` leaves a setting unset; switches also take `yes`, `no`, `on` and `off`; a list
is written as in Python: `--config.benchmark.batch_sizes "(1,16)"`.

**May change** says when a setting may differ from what a run began with. *On the way*: at any time,
also in the middle of a training, for it changes nothing that is learnt. *In use*: once the run is
trained, in every other mode, for it determines no parameter. Where nothing is written it made the
parameters, and another value is another run. Before the first checkpoint all may change.
"""
_MODEL = """\
## config.model

What a backbone is made of. Defaults are those of the classes; a named model has sizes of its own
([the models](models.md)), and `config.model.name` says which it is.
"""
_METHOD = """\
## config.method

The options of the method that the model's name begins with; dense models have none. Named models
have some values of their own:
`python -c "import avit_jax; print(avit_jax.create_model('avit_tiny_patch16_224').settings)"`.
"""


def page() -> str:
    """The whole page."""
    models = [model for family in families() for model in family.members.values()]
    parts = [_HEAD, *_section("config", Settings), _MODEL, *_backbones(models)]
    return "\n".join([*parts, _METHOD, *_methods(models)])


def _backbones(models: Iterable[Model]) -> Iterator[str]:
    """What all have in common, then what each has besides."""
    yield "### All backbones\n"
    yield _table("config.model", Shape, dataclasses.fields(Shape), "")
    for shape in {type(model.shape): None for model in models}:
        own = [field for field in dataclasses.fields(shape) if field.name in vars(shape)]
        yield f"### {summary(shape).partition(';')[0]}\n"
        yield _table("config.model", shape, own, "")


def _methods(models: Iterable[Model]) -> Iterator[str]:
    named = {type(model.settings): type(model).name for model in models}
    for settings, name in named.items():
        if dataclasses.fields(settings):
            heading = f"config.method of `{name}`"
            yield from _section("config.method", settings, heading=heading, level="###")


def _section(
    key: str, section: type, *, heading: str = "", level: str = "##", changes: str = ""
) -> Iterator[str]:
    """A section and those inside of it, each with its heading, docstring and table.

    Args:
        key: of the section, `config.train`.
        section: the dataclass.
        heading: the key where unset.
        level: of headings.
        changes: when all of its settings may change, if the section says so.
    """
    plain = []
    inner: dict[type, list[dataclasses.Field]] = {}
    for field in dataclasses.fields(section):
        value = _default(field)
        if dataclasses.is_dataclass(value):
            inner.setdefault(type(value), []).append(field)
        else:
            plain.append(field)
    yield f"{level} {heading or key}\n\n{summary(section)}\n"
    yield _table(key, section, plain, changes)
    for kind, fields in inner.items():
        heading = f"{key}.{', '.join(field.name for field in fields)}"
        below, when = f"{key}.{fields[0].name}", _changes(fields[0], changes)
        yield from _section(below, kind, heading=heading, level=level, changes=when)


def _table(key: str, section: type, fields: Iterable[dataclasses.Field], changes: str) -> str:
    texts = of_fields(section)
    rows = [("setting", "default", "may change", "what it is"), ("---",) * 4]
    for field in fields:
        if field.metadata.get("config", True):
            shown, when = _shown(_default(field)), _changes(field, changes)
            rows.append((f"`{key}.{field.name}`", shown, when, texts.get(field.name, "")))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _changes(field: dataclasses.Field, inherited: str) -> str:
    if field.metadata.get("changeable") or inherited == "on the way":
        return "on the way"
    return "in use" if field.metadata.get("use") else inherited


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"`{value:.6g}`"
    if isinstance(value, tuple):
        parts = (repr(part) if isinstance(part, str) else f"{part:.6g}" for part in value)
        return "`(" + ", ".join(parts) + ")`"
    return f"`{value!r}`"


if __name__ == "__main__":
    print(page(), end="")
