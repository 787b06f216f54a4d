"""Which of the weights in a training checkpoint to take, wherever in it they are.

Training scripts agree on no key. So every mapping of names to tensors counts, whatever it is called
and however deep it lies, but for what belongs to optimisers and the like; and one that is called an
average, a teacher or a momentum encoder is taken for the moving average of the other.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

from avit_jax.pretrained.torch_objects import Global, Inert, Tensor, Unreadable, shown
from avit_jax.pretrained.wrappers import networks, of_network, unwrapped

_logger = logging.getLogger(__name__)

CHOICES = ("auto", "ema", "raw")
_REMEDY = "write weights='auto' (--config.eval.weights auto)"
_DEEPEST = 4
_NO_WEIGHTS = re.compile(r"optim|sched|scaler|args|config|hyper|callback|loop|rng|loss|criterion")
_AVERAGE = re.compile(r"(^|[._])(ema|avg|averaged?|swa|shadow|teacher|momentum)([._]|$)|ema$")
# Of several sets of weights that are no averages: the names under which scripts keep the network.
_USUAL = ("state_dict", "model_state_dict", "model", "module", "net", "network", "student", "base")
_LISTED, _MOST = 160, 12  # characters and names of a list in a message

Sets = dict[str, dict[str, Any]]


def chosen_weights(content: Any, weights: str) -> dict[str, Any]:
    """The mapping of names to tensors to take, without what wrappers put around names.

    Args:
        content: of a file: mappings, lists, numbers and `Tensor`s or arrays.
        weights: "auto" (the moving average, where there is one), "ema" or "raw".

    Raises:
        Unreadable: there is none, not the one asked for, or no saying which of several.
    """
    if not isinstance(content, Mapping):
        raise Unreadable(
            f"holds a {_kind(content)} and no state dict: save model.state_dict() with torch.save()"
        )
    if not content:
        raise Unreadable("holds no tensors: give a file with weights")
    found = _sets(content, "", _DEEPEST)
    if not found:
        raise Unreadable(
            f"holds no state dict, only {_listed(content)}: save model.state_dict() with "
            "torch.save()"
        )
    apart = {name: each for path, part in found.items() for name, each in _apart(path, part)}
    name = _chosen(apart, weights, content)
    if name is None:  # networks side by side, for a model to know its own
        return unwrapped(_pure(found[""]))
    return unwrapped(_pure(apart[name]))


def _sets(content: Mapping[Any, Any], path: str, deepest: int) -> Sets:
    """Mappings with tensors, by where they are: "model", "checkpoint.state_dict", "" for all."""
    inside: Sets = {}
    for key, value in content.items():
        if isinstance(key, str) and isinstance(value, Mapping) and deepest:
            if not _NO_WEIGHTS.search(key.lower()):
                inside |= _sets(value, f"{path}.{key}" if path else key, deepest - 1)
    own = sum(map(is_tensor, content.values()))
    # A few tensors beside whole networks are an accuracy or a random state.
    if own and own >= max(map(len, inside.values()), default=0):
        return {path: dict(content)}
    return inside


def _apart(path: str, named: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    """A set, or the networks within one whose names say that it holds several."""
    names = [name for name in named if isinstance(name, str)]
    roots = networks(names)
    if len(roots) < 2:
        return [(path, named)]
    joined = [".".join(filter(None, (path, root.rstrip(".")))) for root in roots]
    return [(n, of_network(named, root, roots)) for n, root in zip(joined, roots, strict=True)]


def _chosen(found: Sets, weights: str, content: Mapping[Any, Any]) -> str | None:
    """The name of a set; `None` where names alone tell several networks of one set apart."""
    averages = [name for name in found if _AVERAGE.search(name.lower())]
    others = [name for name in found if name not in averages]
    flat = all(not isinstance(value, Mapping) for value in content.values())
    only = "" if flat else f", only {_listed(content)}"
    if weights == "ema" and not averages:
        raise Unreadable(f"has no moving average of the weights{only}: {_REMEDY}")
    if weights == "raw" and not others:
        raise Unreadable(f"has no weights but their moving average{only}: {_REMEDY}")
    raw, average = _usual(others), _usual(averages)
    taken, left, what = (raw, average, "raw") if weights == "raw" else (average, raw, "ema")
    if not averages:
        taken, left = raw, None
    if taken is None or (weights == "auto" and averages and others and left is None):
        if flat:
            return None
        raise Unreadable(
            f"holds several sets of weights ({_listed(found)}): save the one that is wanted alone "
            "with torch.save()"
        )
    if weights == "auto" and "teacher" in taken and left and not _alike(found[taken], found[left]):
        raise Unreadable(
            f"holds the weights of two networks, {taken} and {left}: ask for one with "
            "weights='ema' for the teacher or weights='raw' for the other (--config.eval.weights)"
        )
    if averages and what == "raw":
        _logger.info("the weights in %s are taken, not their moving average in %s", taken, left)
    elif averages:
        beside = f"not those in {left}" if left is not None else "there are no others"
        _logger.info("the moving average of the weights in %s is taken, %s", taken, beside)
    elif len(others) > 1:
        rest = [name for name in others if name != taken]
        _logger.warning("the weights in %s are taken, not those in %s", taken, _listed(rest))
    return taken


def _usual(names: list[str]) -> str | None:
    """The only name, or the one that is usual for the network itself."""
    if len(names) == 1:
        return names[0]
    for usual in _USUAL:
        ending = [n for n in names if usual in n.lower().split(".") or n.lower() == f"{usual}_ema"]
        if len(ending) == 1:
            return ending[0]
    return None


def _alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether one can be an average of the other: the same names and shapes."""
    first, second = (
        {name: _shape(value) for name, value in unwrapped(each).items() if is_tensor(value)}
        for each in (one, other)
    )
    return first == second


def _pure(found: dict[Any, Any]) -> dict[str, Any]:
    """The set itself, if nothing but tensors is in it."""
    strays = [n for n, value in found.items() if not (isinstance(n, str) and is_tensor(value))]
    if strays:
        raise Unreadable(
            f"mixes its tensors with other things, {_listed(strays)}: save model.state_dict() alone"
        )
    return found


def is_tensor(value: Any) -> bool:
    """Whether it is a tensor's description in a file, or an array."""
    return isinstance(value, Tensor) or hasattr(value, "dtype")


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape)


def _kind(content: Any) -> str:
    if isinstance(content, Inert | Global):
        return shown(content.name)
    return type(content).__name__.lower()


def _listed(names: Iterable[Any]) -> str:
    """Names for a message, the first of them, as many as a reader takes in."""
    names = [shown(name) if isinstance(name, str) else _kind(name) for name in names]
    listed = ""
    for number, name in enumerate(names):
        if number == _MOST or (listed and len(listed) + len(name) > _LISTED):
            return f"{listed} and {len(names) - number} more"
        listed += f", {name}" if listed else name
    return listed or "nothing"
