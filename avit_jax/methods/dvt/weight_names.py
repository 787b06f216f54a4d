"""DVT's published names: each exit's network below a name of its own, reuse beside its blocks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from avit_jax.errors import UserError
from avit_jax.methods.dvt import windows
from avit_jax.methods.dvt.networks import Networks
from avit_jax.models.functional import Params
from avit_jax.pretrained import names, spelling
from avit_jax.pretrained.arrays import refuse_unusable

# Ours to upstream's, spelt as there; `{}` is the number of the block.
_FEATURES = "blocks.{}.feature_resuse_mlp"
_RELATIONS = "relation_reuse_conv"
REUSE = {
    "feature_reuse.norm": f"{_FEATURES}.0",
    "feature_reuse.fc1": f"{_FEATURES}.1.fc1",
    "feature_reuse.fc2": f"{_FEATURES}.1.fc2",
    "relation_reuse.conv1": f"{_RELATIONS}.0",
    "relation_reuse.conv2": f"{_RELATIONS}.2",
}
_EXIT = re.compile(r"(^|\.)((less_)+|normal_)token\.")
_MODULES = ("feature_reuse", "relation_reuse")

Arrays = dict[str, np.ndarray]


def exit_names(exits: int) -> list[str]:
    """What upstream calls the networks of a cascade, the coarsest first."""
    if exits == 2:
        return ["less_less_token", "normal_token"]
    return ["less_" * (exits - 1 - index) + "token" for index in range(exits - 1)] + [
        "normal_token"
    ]


def is_cascade(state_dict: Mapping[str, Any]) -> bool:
    """Whether names are those of a cascade and not of one network."""
    return any(_EXIT.search(str(name)) for name in state_dict)


def timm_named(model: Any, state_dict: Mapping[str, Any]) -> Arrays:
    """See `Model.timm_named`."""
    wanted: dict[str, Any] = {}
    for ours, theirs, one in _exits(model):
        expected, own = model.abstract_params()[ours], {**one.upstream_names, **REUSE}
        for name in names.wanted(expected, one.shape, own):
            wanted[f"{theirs}.{name}"] = None
    return spelling.timm_named(state_dict, num_heads=model.shape.num_heads, wanted=wanted)


def to_timm(model: Any, params: Params) -> Arrays:
    """All parameters under upstream's names."""
    found: Arrays = {}
    for ours, theirs, one in _exits(model):
        network, reuse = _apart(params[ours])
        part = one.to_timm(network)
        for name, array in names.to_torch(reuse, one.shape, REUSE).items():
            kernel = name.startswith(_RELATIONS) and name.endswith(".weight")
            part[name] = array[:, :, None, None] if kernel else array
        found |= {f"{theirs}.{name}": array for name, array in part.items()}
    return found


def from_timm(model: Any, state_dict: Mapping[str, np.ndarray]) -> Params:
    """The inverse of `to_timm`.

    Raises:
        UserError: names of exits that this cascade does not have, or weights that do not fit.
    """
    exits = _exits(model)
    known = tuple(f"{theirs}." for _, theirs, _ in exits)
    others = sorted(name for name in state_dict if not name.startswith(known))
    if others:
        raise UserError(
            f"{len(others)} of these weights belong to none of the exits "
            f"{', '.join(theirs for _, theirs, _ in exits)} (such as {others[0][:60]}): write as "
            "many config.method.grids as the weights have exits."
        )
    params: Params = {}
    for ours, theirs, one in exits:
        part = {n.partition(".")[2]: a for n, a in state_dict.items() if n.startswith(f"{theirs}.")}
        reuse = {n: a for n, a in part.items() if _FEATURES[10:] in n or n.startswith(_RELATIONS)}
        network = {name: array for name, array in part.items() if name not in reuse}
        network = windows.fitted(network, one)
        try:
            params[ours] = one.from_timm(network) | _reuse(model, ours, one, reuse)
        except UserError as error:
            raise UserError(f"{theirs}: {error}") from None
    return params


def _reuse(model: Any, ours: str, one: Any, state_dict: Arrays) -> Params:
    """The modules of one exit that make ready what it takes over."""
    flat = {
        name: array[:, :, 0, 0] if np.ndim(array) == 4 and array.shape[2:] == (1, 1) else array
        for name, array in state_dict.items()
    }
    expected = _apart(model.abstract_params()[ours])[1]
    refuse_unusable(flat, names.wanted(expected, one.shape, REUSE))
    return names.from_torch(flat, one.shape, expected, REUSE)


def _apart(params: Params) -> tuple[Params, Params]:
    """The network of an exit, and what makes reuse ready."""
    return (
        {name: part for name, part in params.items() if name not in _MODULES},
        {name: part for name, part in params.items() if name in _MODULES},
    )


def _exits(model: Any) -> list[tuple[str, str, Any]]:
    """Our name, upstream's name and the model of each exit."""
    exits = model.exits
    return list(zip(Networks.names(exits), exit_names(len(exits)), exits, strict=True))
