"""What LLVM IR is made of, as text: types, values, functions and modules.

A value knows its type and how lines refer to it, no more. Objects that hold instructions until they are
printed, as llvmlite's do, took ten times as long, which was a third of a first call.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import NamedTuple

__all__ = [
    "F16",
    "F32",
    "F64",
    "PTR",
    "VOID",
    "Function",
    "Module",
    "Type",
    "Value",
    "constant",
    "integer",
    "lanes",
    "undefined",
    "vector",
]


# --- types and constants ------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, eq=False)
class Type:
    """A type, of which there is one object: a number, a pointer, or a vector of numbers."""

    text: str  # "float", "<8 x float>"
    code: str  # the same in the names of intrinsics: "f32", "v8f32"
    bits: int
    count: int = 1  # lanes
    lane: Type | None = None  # of a vector

    @property
    def element(self) -> Type:
        """The type of one lane."""
        return self.lane or self

    @property
    def bytes(self) -> int:
        return self.bits // 8


VOID, PTR = Type("void", "", 0), Type("ptr", "p0", 64)
F16, F32, F64 = Type("half", "f16", 16), Type("float", "f32", 32), Type("double", "f64", 64)


@cache
def integer(bits: int) -> Type:
    """The type of integers of `bits` bits, signed or not."""
    return Type(f"i{bits}", f"i{bits}", bits)


@cache
def vector(element: Type, lanes: int) -> Type:
    """The type of vectors of `lanes` elements."""
    text, code = f"<{lanes} x {element.text}>", f"v{lanes}{element.code}"
    return Type(text, code, lanes * element.bits, lanes, element)


class Value(NamedTuple):
    """The result of an instruction, an argument or a constant."""

    type: Type
    text: str  # "%12", "8"

    @property
    def typed(self) -> str:
        """With its type, as most operands are written."""
        return f"{self.type.text} {self.text}"


def constant(kind: Type, value: float) -> Value:
    """`value`, of a vector in every lane."""
    return lanes(kind, [value] * kind.count) if kind.lane else Value(kind, _number(kind, value))


def lanes(kind: Type, values: Sequence[float]) -> Value:
    """A constant vector."""
    element = kind.element
    items = ", ".join([f"{element.text} {_number(element, value)}" for value in values])
    return Value(kind, f"<{items}>")


def undefined(kind: Type) -> Value:
    """Any value, where none is read."""
    return Value(kind, "undef")


def _number(kind: Type, value: float) -> str:
    if kind not in (F32, F64):
        return str(int(value))
    if kind is F32:  # written as the double that it equals
        (value,) = struct.unpack("f", struct.pack("f", value))
    return f"0x{struct.unpack('Q', struct.pack('d', value))[0]:016X}"


# --- functions ----------------------------------------------------------------------------------
class Function:
    """A function of `module`: declared, and defined once an instruction is written in it."""

    def __init__(
        self,
        module: Module,
        name: str,
        arguments: Sequence[Type],
        result: Type = VOID,
        *,
        attributes: str = "",
        inline: bool = False,
    ) -> None:
        self.module, self.name, self.result = module, name, result
        self.inline, self._attributes = inline, attributes
        self.args = tuple(Value(kind, f"%a{place}") for place, kind in enumerate(arguments))
        self.stack: list[str] = []  # lines that take room, at the start
        self.blocks: dict[str, list[str]] = {}  # lines, by labels in the order that these were made
        self.calls: dict[Function, None] = {}  # whom it calls, in order
        module.globals[name] = self

    @property
    def length(self) -> int:
        """Lines, with those of functions that are inlined."""
        return sum(map(len, self.blocks.values())) + sum(f.length for f in self.calls if f.inline)

    @property
    def declaration(self) -> str:
        arguments = ", ".join(value.type.text for value in self.args)
        return f"declare {self.result.text} @{self.name}({arguments})"

    def __str__(self) -> str:
        linkage = "internal" if self.inline else "dso_local"
        arguments = ", ".join(value.typed for value in self.args)
        head = f"define {linkage} {self.result.text} @{self.name}({arguments})"
        (label, *entry), *rest = self.blocks.values()
        lines = [f"{head} {self._attributes} {{", label, *self.stack, *entry]
        return "\n".join([*lines, *chain.from_iterable(rest), "}"])


class Module:
    """Functions by their names: what LLVM parses, whole or in parts."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.globals: dict[str, Function] = {}

    def __str__(self) -> str:
        return self._text(self._functions())

    def parts(self, length: int) -> list[str]:
        """Modules of about `length` lines, whose functions call each other."""
        parts: list[list[Function]] = []
        for function in sorted(self._functions(), key=lambda f: f.length, reverse=True):
            rooms = (p for p in parts if sum(f.length for f in (*p, function)) <= length)
            part = next(rooms, None)
            if part is None:
                parts.append(part := [])
            part.append(function)
        return [self._text(part) for part in parts]

    def _functions(self) -> list[Function]:
        return [f for f in self.globals.values() if f.blocks and not f.inline]

    def _text(self, functions: Sequence[Function]) -> str:
        """A module of `functions`, with what they inline and what they call."""
        defined = list(functions)
        for function in defined:
            defined += [f for f in function.calls if f.inline and f not in defined]
        called = dict.fromkeys(f for function in defined for f in function.calls)
        declared = [f.declaration for f in called if f not in defined]
        return "\n".join([f"; {self.name}", *declared, *map(str, defined), "!0 = !{i32 1}", ""])
