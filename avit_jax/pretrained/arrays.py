"""Arrays of other libraries as NumPy's, and what cannot be weights at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from avit_jax.errors import UserError

_EXAMPLES = 3


def as_arrays(state_dict: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A state dict as NumPy arrays: those of NumPy, JAX or torch, whatever device they are on.

    Raises:
        UserError: it is no mapping of names to numbers.
    """
    if not isinstance(state_dict, Mapping):
        raise UserError(
            f"weights are a mapping of names to arrays, but this is a {type(state_dict).__name__}: "
            "pass what load_torch() or module.state_dict() returns."
        )
    return {name: _array(name, value) for name, value in state_dict.items()}


def _array(name: Any, value: Any) -> np.ndarray:
    if not isinstance(name, str):
        raise UserError(
            f"the names of weights are texts, but one is {name!r:.60}: pass what load_torch() or "
            "module.state_dict() returns."
        )
    if isinstance(value, np.ndarray):
        return value
    try:
        if hasattr(value, "detach"):  # a tensor of torch, which is not imported for it
            value = value.detach().cpu()
            # NumPy has no bfloat16 of torch's; every one is a float32 as well.
            narrow = value.is_floating_point() and value.element_size() < 4
            value = (value.float() if narrow else value).numpy()
        return np.asarray(value)
    # Sparse, quantised and empty ("meta") tensors each have an error of their own.
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        raise UserError(
            f"{name} is a {type(value).__name__} that NumPy cannot hold "
            f"({' '.join(str(error).split())[:100]}): pass dense float32 tensors."
        ) from None


def refuse_unusable(arrays: Mapping[str, np.ndarray], wanted: Iterable[str]) -> None:
    """Raises UserError unless what a model wants of these arrays are finite floating-point numbers.

    They are what float32 makes of them, in which all models keep their parameters.
    """
    given = {name: arrays[name] for name in wanted if name in arrays}
    kinds = [
        f"{name} is {array.dtype}"
        for name, array in given.items()
        if not jnp.issubdtype(array.dtype, jnp.floating)
    ]
    if kinds:
        raise UserError(
            f"{len(kinds)} of these {len(given)} weights are no floating-point numbers "
            f"({_first(kinds)}): take the float32, bfloat16 or float16 weights that they were "
            "made from."
        )
    broken = [
        f"{name} in {count:,} of {array.size:,} numbers"
        for name, array in given.items()
        if (count := not_finite(array))
    ]
    if broken:
        raise UserError(
            f"{len(broken)} of these {len(given)} weights are NaN or infinite ({_first(broken)}), "
            "as where a training diverged or a float16 copy overflowed: take weights from before, "
            "or save them as float32 or bfloat16."
        )


def not_finite(array: np.ndarray) -> int:
    """How many numbers of an array are NaN or infinite as float32."""
    with np.errstate(over="ignore"):
        return int(array.size - np.isfinite(np.asarray(array, np.float32)).sum())


def _first(examples: list[str]) -> str:
    return ", ".join(examples[:_EXAMPLES]) + (", ..." if len(examples) > _EXAMPLES else "")
