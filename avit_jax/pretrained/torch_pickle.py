"""The pickle inside a PyTorch file, read as data: nothing in it is called, imported or built.

A pickle is a program for a stack machine whose instructions may call any function of the computer
it is opened on. The machine here knows the same instructions without the calls: a name must be on a
list (`torch_objects`), calling it makes the description of a tensor or a placeholder, and state
that an object would be given is dropped. The standard library's disassembler decodes the
instructions.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable
from typing import IO, Any, NamedTuple

from avit_jax.pretrained import torch_objects
from avit_jax.pretrained.torch_objects import DAMAGED, Inert, Storage, Unreadable

# A state dict's pickle has about 200 bytes per tensor; a small opcode makes an object of 64 bytes.
MAX_PICKLE_BYTES = 64 * 2**20


class Pickle(NamedTuple):
    """The content of one pickle, with descriptions of tensors in the place of tensors.

    Attributes:
        content: dicts, lists, tuples, numbers, texts and descriptions.
        storages: all that the pickle mentions, by key, even if no tensor in `content` uses them.
    """

    content: Any
    storages: dict[str, Storage]


def read(stream: IO[bytes]) -> Pickle:
    """The next pickle in `stream`, which is read up to that pickle's end.

    Raises:
        Unreadable: a global that is not on the list, or no well-formed pickle.
    """
    machine = _Machine()
    start = stream.tell()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged text makes the decoder complain first
            for opcode, argument, _ in pickletools.genops(stream):
                if stream.tell() - start > MAX_PICKLE_BYTES:
                    raise Unreadable(
                        f"describes its tensors in more than {MAX_PICKLE_BYTES >> 20} MiB, "
                        "which no state dict needs: save model.state_dict() alone"
                    )
                machine.step(opcode.name, argument)
        return Pickle(machine.stack.pop(), machine.storages)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError):
        raise Unreadable(DAMAGED) from None


class _Machine:
    """Stack, marks and memo of a pickle. A malformed one raises an error that `read` catches."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # stacks under the marks
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def step(self, opcode: str, argument: Any) -> None:
        """Executes one instruction."""
        if opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode])
        elif opcode in _LITERALS:
            self.stack.append(argument)
        elif opcode in _ACTIONS:
            _ACTIONS[opcode](self, argument)
        elif opcode not in ("PROTO", "FRAME", "STOP"):
            raise Unreadable(
                f"uses the pickle instruction {opcode}, which weights do not need: save "
                "model.state_dict() alone"
            )

    def pop_mark(self) -> list[Any]:
        """What was pushed since the last mark, taken away."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def get(self, index: Any) -> None:
        self.stack.append(self.memo[int(index)])

    def put(self, index: Any) -> None:
        self.memo[int(index)] = self.stack[-1]

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def tuple_of_mark(self, _: Any) -> None:
        items = tuple(self.pop_mark())
        self.stack.append(items)

    def list_of_mark(self, _: Any) -> None:
        items = self.pop_mark()
        self.stack.append(items)

    def dict_of_mark(self, _: Any) -> None:
        items = self.pop_mark()
        self.stack.append({})
        self.set_items(items)

    def small_tuple(self, size: int) -> None:
        items = tuple(self.stack[-size:])
        if len(items) < size:
            raise IndexError("the stack is too short")
        self.stack[-size:] = [items]

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Inert):
            raise TypeError("no list to append to")

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        pairs = zip(items[::2], items[1::2], strict=True)
        if isinstance(target, dict):
            target.update((torch_objects.mapping_key(key), value) for key, value in pairs)
        elif not isinstance(target, Inert):
            raise TypeError("no dict to set an item of")

    def append(self, _: Any) -> None:
        self.extend([self.stack.pop()])

    def appends(self, _: Any) -> None:
        self.extend(self.pop_mark())

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def set_items_of_mark(self, _: Any) -> None:
        self.set_items(self.pop_mark())

    def global_name(self, argument: str) -> None:
        self.stack.append(torch_objects.named(argument.replace(" ", ".")))

    def stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(torch_objects.named(".".join(map(torch_objects.text_of, (module, name)))))

    def instance(self, argument: str) -> None:
        self.pop_mark()
        self.stack.append(Inert(torch_objects.named(argument.replace(" ", ".")).name))

    def object_of_mark(self, _: Any) -> None:
        items = self.pop_mark()
        self.stack.append(torch_objects.call(items[0], ()))

    def call(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(torch_objects.call(function, arguments))

    def new_with_keywords(self, _: Any) -> None:
        self.stack.pop()
        self.call(None)

    def build(self, _: Any) -> None:
        self.stack.pop()
        self.stack[-1]  # an object that takes over state must be there; it stays as it is

    def persistent(self, _: Any) -> None:
        storage = torch_objects.storage_of(self.stack.pop())
        self.storages.setdefault(storage.key, storage)
        self.stack.append(storage)


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING "
    "UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 "
    "BYTEARRAY8".split()
)
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": lambda machine, _: machine.pop_mark() and None,
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    "MEMOIZE": _Machine.memoize,
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "TUPLE1": lambda machine, _: machine.small_tuple(1),
    "TUPLE2": lambda machine, _: machine.small_tuple(2),
    "TUPLE3": lambda machine, _: machine.small_tuple(3),
    "TUPLE": _Machine.tuple_of_mark,
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "LIST": _Machine.list_of_mark,
    "EMPTY_SET": lambda machine, _: machine.stack.append([]),
    "FROZENSET": _Machine.list_of_mark,
    "APPEND": _Machine.append,
    **dict.fromkeys(("APPENDS", "ADDITEMS"), _Machine.appends),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "DICT": _Machine.dict_of_mark,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items_of_mark,
    "GLOBAL": _Machine.global_name,
    "STACK_GLOBAL": _Machine.stack_global,
    "INST": _Machine.instance,
    "OBJ": _Machine.object_of_mark,
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Machine.call),
    "NEWOBJ_EX": _Machine.new_with_keywords,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
}
