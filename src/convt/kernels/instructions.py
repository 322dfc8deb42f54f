"""The instructions of LLVM that kernels use: each becomes a line of its function when it is asked for.

That the types of operands agree is for LLVM to find, when it parses the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache

from convt.kernels.ir import PTR, VOID, Function, Type, Value, constant, integer, lanes, vector

__all__ = ["Instructions"]

_SIGNS = {"==": "eq", "!=": "ne", "<": "{}lt", "<=": "{}le", ">": "{}gt", ">=": "{}ge"}


def _binary(name: str) -> Callable[[Instructions, Value, Value], Value]:
    def instruction(self: Instructions, a: Value, b: Value) -> Value:
        return self.result(a.type, f"{name} {a.type.text} {a.text}, {b.text}")

    return instruction


def _cast(name: str) -> Callable[[Instructions, Value, Type], Value]:
    def instruction(self: Instructions, value: Value, kind: Type) -> Value:
        if value.type is kind:
            return value
        return self.result(kind, f"{name} {value.typed} to {kind.text}")

    return instruction


class Instructions:
    """Writes the instructions of `function`, block after block."""

    def __init__(self, function: Function) -> None:
        self.function, self.module = function, function.module
        self._values = 0  # so far
        self._ended = True  # the block, by a branch or a return
        self.begin(self.label("entry"))

    def result(self, kind: Type, text: str) -> Value:
        """The result of the instruction `text`, of the type `kind`."""
        name = f"%v{self._values}"
        self._values += 1
        self._lines.append(f"{name} = {text}")
        return Value(kind, name)

    # --- numbers ------------------------------------------------------------------------------
    add, sub, mul = map(_binary, ("add", "sub", "mul"))
    sdiv, srem = map(_binary, ("sdiv", "srem"))
    and_, or_, xor = map(_binary, ("and", "or", "xor"))
    shl, lshr = map(_binary, ("shl", "lshr"))
    fadd, fsub, fmul = map(_binary, ("fadd", "fsub", "fmul"))
    trunc, zext, sext = map(_cast, ("trunc", "zext", "sext"))
    fptrunc, fpext = map(_cast, ("fptrunc", "fpext"))
    bitcast, inttoptr, ptrtoint = map(_cast, ("bitcast", "inttoptr", "ptrtoint"))

    def neg(self, value: Value) -> Value:
        return self.sub(constant(value.type, 0), value)

    def not_(self, value: Value) -> Value:
        return self.xor(value, constant(value.type, -1))

    def icmp_signed(self, sign: str, a: Value, b: Value) -> Value:
        """Compare integers: ``icmp_signed("<", a, b)``."""
        return self._compare("icmp", _SIGNS[sign].format("s"), a, b)

    def icmp_unsigned(self, sign: str, a: Value, b: Value) -> Value:
        return self._compare("icmp", _SIGNS[sign].format("u"), a, b)

    def unordered(self, a: Value, b: Value) -> Value:
        """Whether one of two numbers is NaN."""
        return self._compare("fcmp", "uno", a, b)

    def _compare(self, name: str, how: str, a: Value, b: Value) -> Value:
        kind = vector(integer(1), a.type.count) if a.type.lane else integer(1)
        return self.result(kind, f"{name} {how} {a.typed}, {b.text}")

    def select(self, chosen: Value, a: Value, b: Value) -> Value:
        return self.result(a.type, f"select {chosen.typed}, {a.typed}, {b.typed}")

    # --- vectors ------------------------------------------------------------------------------
    def insert_element(self, value: Value, element: Value, lane: int) -> Value:
        return self.result(value.type, f"insertelement {value.typed}, {element.typed}, i32 {lane}")

    def extract_element(self, value: Value, lane: int) -> Value:
        return self.result(value.type.element, f"extractelement {value.typed}, i32 {lane}")

    def shuffle(self, a: Value, b: Value, picks: Sequence[int]) -> Value:
        """Pick lanes from those of `a` followed by those of `b`."""
        kind, mask = vector(a.type.element, len(picks)), _mask(tuple(picks))
        return self.result(kind, f"shufflevector {a.typed}, {b.typed}, {mask.typed}")

    # --- memory -------------------------------------------------------------------------------
    def stack(self, kind: Type, count: int = 1) -> Value:
        """Room for `count` values, taken once, at the start of the function."""
        place = Value(PTR, f"%s{len(self.function.stack)}")
        room = kind.text if count == 1 else f"[{count} x {kind.text}]"
        self.function.stack.append(f"{place.text} = alloca {room}")
        return place

    def at(self, pointer: Value, offset: Value) -> Value:
        """`pointer` moved by `offset` bytes."""
        if offset.text == "0":
            return pointer
        return self.result(PTR, f"getelementptr i8, {pointer.typed}, {offset.typed}")

    def load(self, pointer: Value, typ: Type, align: int = 0) -> Value:
        """Load a value; without `align`, from an address that is aligned as its type asks for."""
        return self.result(typ, f"load {typ.text}, {pointer.typed}{_aligned(align)}")

    def store(self, value: Value, pointer: Value, align: int = 0, *, stream: bool = False) -> None:
        """Store a value; with `stream`, past the caches."""
        past = ", !nontemporal !0" if stream else ""
        self._lines.append(f"store {value.typed}, {pointer.typed}{_aligned(align)}{past}")

    def atomic_add(self, pointer: Value, value: Value) -> Value:
        """Add to a counter that threads share, and return what was there."""
        return self.result(value.type, f"atomicrmw add {pointer.typed}, {value.typed} monotonic")

    # --- control ------------------------------------------------------------------------------
    def call(self, function: Function, arguments: Sequence[Value]) -> Value:
        """Call a function; the result of one that has none is never read."""
        self.function.calls[function] = None
        operands = ", ".join([f"{kind.text} {text}" for kind, text in arguments])
        text = f"call {function.result.text} @{function.name}({operands})"
        if function.result is not VOID:
            return self.result(function.result, text)
        self._lines.append(text)
        return Value(VOID, "")

    def label(self, name: str) -> str:
        """A block of its own, which `begin` begins; blocks lie in the order of these calls."""
        blocks = self.function.blocks
        label = f"{name}{len(blocks)}"
        blocks[label] = [f"{label}:"]
        return label

    def begin(self, label: str) -> None:
        """End the block, if nothing else did, and begin that of `label`."""
        if not self._ended:
            self.branch(label)
        self._lines, self._ended = self.function.blocks[label], False

    def branch(self, label: str) -> None:
        self._end(f"br label %{label}")

    def cbranch(self, chosen: Value, label: str, otherwise: str) -> None:
        self._end(f"br {chosen.typed}, label %{label}, label %{otherwise}")

    def ret_void(self) -> None:
        self._end("ret void")

    def _end(self, text: str) -> None:
        self._lines.append(text)
        self._ended = True

    @contextmanager
    def if_then(self, chosen: Value) -> Iterator[None]:
        """Run the body if `chosen`."""
        then, end = self.label("then"), self.label("end")
        self.cbranch(chosen, then, end)
        self.begin(then)
        yield
        self.begin(end)

    @contextmanager
    def if_else(
        self, chosen: Value
    ) -> Iterator[tuple[AbstractContextManager[None], AbstractContextManager[None]]]:
        """Yield two bodies, to be entered in their order: one is run if `chosen`, the other if not."""
        then, otherwise, end = map(self.label, ("then", "else", "end"))
        self.cbranch(chosen, then, otherwise)
        yield self._body(then, end), self._body(otherwise, end)
        self.begin(end)

    @contextmanager
    def _body(self, label: str, end: str) -> Iterator[None]:
        self.begin(label)
        yield
        if not self._ended:
            self.branch(end)


@cache
def _mask(picks: tuple[int, ...]) -> Value:
    return lanes(vector(integer(32), len(picks)), picks)


def _aligned(align: int) -> str:
    return f", align {align}" if align else ""
