"""The classes and functions that the pickle of a PyTorch file may name, replaced by descriptions.

A pickle names functions to be called. Here a name that is listed stands for a function of this file
that describes a tensor, or for a placeholder; any other name is refused. So no name in a file can
reach code outside of this one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

_MAX_AXES = 32
STORAGES = {
    "torch.DoubleStorage": np.dtype(np.float64),
    "torch.FloatStorage": np.dtype(np.float32),
    "torch.HalfStorage": np.dtype(np.float16),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.LongStorage": np.dtype(np.int64),
    "torch.IntStorage": np.dtype(np.int32),
    "torch.ShortStorage": np.dtype(np.int16),
    "torch.CharStorage": np.dtype(np.int8),
    "torch.ByteStorage": np.dtype(np.uint8),
    "torch.BoolStorage": np.dtype(np.bool_),
}
_DTYPES = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool"
_BUILTINS = (
    "object set frozenset list dict tuple int long float bool str "
    "unicode bytes bytearray complex slice range xrange"
)
# Of what training scripts save beside the weights (options, paths, accuracies, dates): ignored.
_INERT = {
    "_codecs.encode",
    "argparse.Namespace",
    "collections.Counter",
    "collections.defaultdict",
    "copy_reg._reconstructor",
    "copyreg._reconstructor",
    "datetime.date",
    "datetime.datetime",
    "datetime.timedelta",
    "numpy.dtype",
    "numpy.ndarray",
    "torch.Size",
    "torch.Tensor",
    "torch.device",
    "torch.nn.parameter.Parameter",
    "torch.serialization._get_layout",
    "torch.torch_version.TorchVersion",
    *(f"torch.{name}" for name in _DTYPES.split()),
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _BUILTINS.split()),
    *(
        f"numpy.{core}.{name}"
        for core in ("core", "_core")
        for name in ("multiarray.scalar", "multiarray._reconstruct", "numeric._frombuffer")
    ),
    *(
        f"{module}.{name}"
        for module in ("pathlib", "pathlib._local")
        for name in ("Path", "PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
    ),
}


class Unreadable(Exception):
    """Why a file is not read, as the predicate of a sentence that begins with its name."""


DAMAGED = "is damaged or incomplete: download or copy it again"


@dataclasses.dataclass(frozen=True, eq=False)
class Global:
    """The name of a class or function in a pickle, which was not looked up."""

    name: str


@dataclasses.dataclass(frozen=True, eq=False)
class Inert:
    """A placeholder for an object of a known class that was not built, for weights need none."""

    name: str


@dataclasses.dataclass(frozen=True, eq=False)
class Storage:
    """A run of `numel` elements from element `start` of the file's record `key`."""

    dtype: np.dtype
    key: str
    numel: int
    start: int
    record_numel: int


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A view of a storage, in elements; as the file claims it, not yet checked."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def shown(name: str) -> str:
    """A name from a file made fit for a message: short, and without control characters."""
    name = name if len(name) <= 100 else name[:97] + "..."
    return name if name.isprintable() else ascii(name)


def _tensor_from(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Tensor:
    """A tensor from the arguments of torch's `_rebuild_tensor` or `_rebuild_tensor_v2`.

    Version 2 has three more: whether gradients are wanted, hooks, and metadata.
    """
    if len(rest) > 2 and rest[2]:
        raise Unreadable("holds a tensor that is a lazily negated or conjugated view: clone it")
    if not isinstance(storage, Storage) or type(shape) is not tuple or type(strides) is not tuple:
        raise TypeError("a storage, a shape and strides were expected")
    counts = (_count(offset), *map(_count, shape), *map(_count, strides))
    if len(shape) != len(strides) or len(shape) > _MAX_AXES:
        raise ValueError("as many strides as axes were expected, and few")
    return Tensor(storage, counts[0], shape, strides)


def _mapping_from() -> dict:
    """An empty mapping: its items follow as instructions of their own."""
    return {}


def _first(first: Any, *_: Any) -> Any:
    return first


def _typed_from(function: Any, _: Any, arguments: Any, *__: Any) -> Any:
    """A tensor of a subclass, from the arguments of torch's `_rebuild_from_type_v2`.

    These are a function that makes a tensor, the subclass, which is ignored, and its arguments.
    """
    if not isinstance(function, Global) or function.name == _FROM_TYPE:
        raise TypeError("a function that makes a tensor was expected")
    return call(function, arguments)


_FROM_TYPE = "torch._tensor._rebuild_from_type_v2"
# Names that are called, and what is called in their place.
_MEANINGS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _mapping_from,
    "torch._utils._rebuild_tensor": _tensor_from,
    "torch._utils._rebuild_tensor_v2": _tensor_from,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    _FROM_TYPE: _typed_from,
}
# Beginnings of names that say what a file holds instead of plain tensors, and what to do.
_OTHERS = {
    "torch._utils._rebuild_qtensor": "quantised tensors: save the weights that they were made from",
    "torch._utils._rebuild_sparse": "sparse tensors: save them as tensor.to_dense()",
    "torch.nn.modules.": "a whole model, of which nothing was run: save model.state_dict() alone",
}
_KNOWN = _MEANINGS.keys() | _INERT | STORAGES.keys()


def named(name: str) -> Global:
    """A class or function that a pickle names, as a name that is known to be harmless.

    Raises:
        Unreadable: it is not listed.
    """
    if kind := next((kind for begin, kind in _OTHERS.items() if name.startswith(begin)), None):
        raise Unreadable(f"holds {kind}")
    if name not in _KNOWN:
        raise Unreadable(
            f"refers to {shown(name)}, which is not among the few names that weights need, so "
            "nothing of it was run: save model.state_dict() alone, or take weights from elsewhere"
        )
    return Global(name)


def call(function: Any, arguments: Any) -> Any:
    """What is put in the place of a call: the description of a tensor, or a placeholder."""
    if not isinstance(function, Global) or type(arguments) is not tuple:
        raise TypeError("a global and its arguments were expected")
    meaning = _MEANINGS.get(function.name)
    return Inert(function.name) if meaning is None else meaning(*arguments)


def storage_of(identifier: Any) -> Storage:
    """The meaning of torch's ("storage", type, key, device, elements[, view of it])."""
    kind, storage_type, key, _, numel, *view = identifier
    if kind != "storage" or storage_type.name not in STORAGES:
        raise TypeError("a storage was expected")
    dtype, key, record = STORAGES[storage_type.name], text_of(key), _count(numel)
    if not view or view[0] is None:
        return Storage(dtype, key, record, 0, record)
    _, start, numel = view[0]
    return Storage(dtype, key, _count(numel), _count(start), record)


def mapping_key(key: Any) -> Any:
    """A key of a mapping; of any kind that cannot name weights, a placeholder."""
    # Deeply nested tuples would take very long to hash.
    return key if isinstance(key, str | int | float | bytes | None) else Inert(type(key).__name__)


def text_of(value: Any) -> str:
    """The value itself, which must be a text; raises TypeError for anything else."""
    if not isinstance(value, str):
        raise TypeError("a text was expected")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("a count was expected")
    return value
