"""Names without what wrappers put around them: training frameworks, compilers and profilers.

A wrapper is known by what it does to names, not by its own: whatever stands in front of every
block's number (`model.`, `backbone.`, `student.module.`) is where the network hung in something
larger. What lies beside it there (a loss's weights, a projection head) belongs to that.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

_logger = logging.getLogger(__name__)
Value = TypeVar("Value")

# Put somewhere into a name by torch.compile, FSDP and activation checkpointing.
_INSERTED = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# Counted by profilers (thop), in every module, and by what averages weights (AveragedModel).
_COUNTS = re.compile(r"(.*\.)?(total_ops|total_params|n_averaged)")
# Put in front of all names, also where there is no block to know a network by.
_IN_FRONT = ("module", "model")
_BLOCK = re.compile(r"((?:[^.]+\.)*?)(?:blocks|layers|encoder\.layer)\.\d+\.")
# Classifiers may hang beside the network that they read.
_CLASSIFIER = re.compile(
    r"(head|head_dist|classifier|cls_classifier|distillation_classifier)\.(weight|bias)"
)
_SHOWN = 3


def unwrapped(named: Mapping[str, Value], wanted: Collection[str] = ()) -> dict[str, Value]:
    """The same values under the names that the network itself gives them.

    Names of several networks stay as they are (see `networks`). What is left out, a warning names.

    Args:
        named: values by name.
        wanted: names of a model; where all are there, none is changed.
    """
    counts = [name for name in named if _COUNTS.fullmatch(name)]
    kept = {name: value for name, value in named.items() if name not in set(counts)}
    if not wanted or not kept.keys() >= set(wanted):
        kept = _without_front(_without_inserted(kept))
        roots = networks(kept)
        if len(roots) == 1 and roots[0]:
            kept = _network(kept, roots[0])
    warn_left_out("counts of a wrapper", counts)
    return kept


def networks(names: Collection[str]) -> list[str]:
    """What stands in front of the blocks of each network; empty, or a name with a dot behind."""
    roots = {match[1] for match in map(_BLOCK.match, names) if match}
    return sorted(roots)


def of_network(named: Mapping[str, Value], root: str, others: Collection[str]) -> dict[str, Value]:
    """The part of several networks' values that stands under `root`, and under none of `others`."""
    longer = tuple(other for other in others if other != root and other.startswith(root))
    return {
        name: value
        for name, value in named.items()
        if name.startswith(root) and not (longer and name.startswith(longer))
    }


def _network(named: dict[str, Value], root: str) -> dict[str, Value]:
    """What stands under `root`, without it, and the classifiers beside it."""
    inside = {n.removeprefix(root): value for n, value in named.items() if n.startswith(root)}
    beside = {name: value for name, value in named.items() if not name.startswith(root)}
    heads = {n: v for n, v in beside.items() if _CLASSIFIER.fullmatch(n) and n not in inside}
    warn_left_out(f"lying beside {root.rstrip('.')}", [n for n in beside if n not in heads])
    return inside | heads


def _without_inserted(named: dict[str, Value]) -> dict[str, Value]:
    renamed = {
        ".".join(part for part in name.split(".") if part not in _INSERTED): value
        for name, value in named.items()
    }
    # Two values under one name would lose one: such names mean something else.
    return renamed if len(renamed) == len(named) else named


def _without_front(named: dict[str, Value]) -> dict[str, Value]:
    """Removes what a wrapper has put before the names, if all of them have it."""
    while named:
        front = {name.partition(".")[0] for name in named}
        if len(front) > 1 or front.isdisjoint(_IN_FRONT) or not all("." in n for n in named):
            break
        named = {name.partition(".")[2]: value for name, value in named.items()}
    return named


def warn_left_out(what: str, names: Sequence[str]) -> None:
    """Says which names are not used of these weights, if any, and as what they were known."""
    if names:
        shown = ", ".join(name[:60] for name in names[:_SHOWN])
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        _logger.warning("left out of the weights, as %s: %s%s.", what, shown, more)
