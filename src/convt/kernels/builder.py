"""The instructions that kernels are written with: a thin layer over LLVM's own.

Emitters call this and make text; nothing is compiled here. Mutable values live in stack slots that LLVM's
SROA pass turns into registers. All addresses are opaque pointers moved by *bytes*, all integers 64-bit.
Loads and stores of callers' arrays promise no alignment, since a NumPy view may have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from convt.kernels import ir
from convt.kernels.instructions import Instructions
from convt.kernels.ir import F32, F64, PTR, Type, Value

__all__ = [
    "F32",
    "F64",
    "I1",
    "I16",
    "I32",
    "I64",
    "PTR",
    "Builder",
    "Slot",
    "function",
]

I1, I16, I32, I64 = map(ir.integer, (1, 16, 32, 64))


def function(
    module: ir.Module, name: str, arguments: Sequence[Type], *, inline: bool = False
) -> ir.Function:
    """Add an internal void function to `module`."""
    attributes = f"nounwind {'alwaysinline' if inline else 'noinline'}"
    return ir.Function(module, name, arguments, attributes=attributes, inline=inline)


class Slot:
    """A mutable value of one type."""

    def __init__(self, builder: Builder, kind: Type, value: Value | None = None) -> None:
        self._builder, self._kind = builder, kind
        self._place = builder.stack(kind)
        if value is not None:
            self.set(value)

    def get(self) -> Value:
        return self._builder.load(self._place, self._kind)

    def set(self, value: Value) -> None:
        self._builder.store(value, self._place)

    def add(self, value: Value) -> None:
        self.set(self._builder.add(self.get(), value))


class Builder(Instructions):
    """Writes the body of `function`, for a processor with or without fused multiply-add."""

    def __init__(self, function: ir.Function, *, fma: bool) -> None:
        super().__init__(function)
        self._fma = fma

    # --- integers -----------------------------------------------------------------------------
    @staticmethod
    def i64(value: int) -> Value:
        return Value(I64, str(value))

    def minimum(self, a: Value, b: Value) -> Value:
        return self.select(self.icmp_signed("<", a, b), a, b)

    def maximum(self, a: Value, b: Value) -> Value:
        return self.select(self.icmp_signed(">", a, b), a, b)

    def total(self, *values: Value) -> Value:
        """The sum of `values`."""
        result = values[0]
        for value in values[1:]:
            result = self.add(result, value)
        return result

    def dot(self, *pairs: tuple[Value, Value]) -> Value:
        """The sum of products of integers."""
        return self.total(*(self.mul(a, b) for a, b in pairs))

    # --- control ------------------------------------------------------------------------------
    @contextmanager
    def loop(self, start: Value, stop: Value, step: int | Value = 1) -> Iterator[Value]:
        """Run the body for start, start + step, ... while below `stop`; it may run no time at all."""
        step = self.i64(step) if isinstance(step, int) else step
        index = Slot(self, I64, start)
        with self.repeat(lambda: self.icmp_signed("<", index.get(), stop)):
            value = index.get()
            yield value
            index.set(self.add(value, step))

    @contextmanager
    def repeat(self, condition: Callable[[], Value]) -> Iterator[None]:
        """Run the body while `condition()` holds."""
        head, body, end = map(self.label, ("head", "body", "end"))
        self.begin(head)
        self.cbranch(condition(), body, end)
        self.begin(body)
        yield
        self.branch(head)
        self.begin(end)

    # --- memory -------------------------------------------------------------------------------
    def read(self, pointer: Value, kind: Type = I64, align: int = 8) -> Value:
        return self.load(pointer, kind, align)

    def word(self, pointer: Value, index: int) -> Value:
        """The 64-bit integer number `index` from `pointer` on."""
        return self.read(self.at(pointer, self.i64(8 * index)))

    # --- lanes --------------------------------------------------------------------------------
    def splat(self, value: Value, lanes: int) -> Value:
        """A vector with `value` in every lane."""
        empty = ir.undefined(ir.vector(value.type, lanes))
        first = self.insert_element(empty, value, 0)
        return self.shuffle(first, first, [0] * lanes)

    def below(self, limit: Value, lanes: int, first: int = 0, *, item: int) -> Value:
        """A mask of the lanes, of `item` bytes, whose number counted from `first` is below `limit`."""
        kind = ir.vector(I32 if item == 4 else I64, lanes)
        numbers = ir.lanes(kind, range(first, first + lanes))
        if item == 4:  # as wide as what it masks, the comparison is the mask
            limit = self.trunc(self.minimum(limit, self.i64(first + lanes)), I32)
        return self.icmp_signed("<", numbers, self.splat(limit, lanes))

    def multiply_add(self, a: Value, b: Value, c: Value) -> Value:
        """``a * b + c``, rounded once where the processor can."""
        if not self._fma:
            return self.fadd(self.fmul(a, b), c)
        return self.intrinsic("llvm.fma", a.type, [a, b, c])

    def intrinsic(self, name: str, kind: Type, arguments: Sequence[Value]) -> Value:
        """Call the LLVM intrinsic `name` that returns and is named after `kind`."""
        return self._call(f"{name}.{kind.code}", kind, arguments)

    def masked_load(self, kind: Type, pointer: Value, mask: Value) -> Value:
        """Load the lanes that `mask` names; nothing is read for the others, which are 0."""
        arguments = [pointer, ir.constant(I32, 1), mask, ir.constant(kind, 0)]
        return self._call(f"llvm.masked.load.{kind.code}.p0", kind, arguments)

    def store_first(self, value: Value, pointer: Value, count: Value) -> None:
        """Store the first `count` lanes of `value`: none if it is negative, all if there are no more."""
        # By halves: a masked store takes dozens of micro-operations on some processors.
        name = f"store_first_{value.type.code}"
        if name not in self.module.globals:
            made = function(self.module, name, [value.type, PTR, I64])
            inner = Builder(made, fma=self._fma)
            inner._store_halves(*made.args)
            inner.ret_void()
        self.call(self.module.globals[name], [value, pointer, count])

    def _store_halves(self, value: Value, pointer: Value, count: Value) -> None:
        lanes, item = value.type.count, value.type.element.bytes
        with self.if_then(self.icmp_signed(">=", count, self.i64(lanes))):
            self.store(value, pointer, align=1)
            self.ret_void()
        with self.if_then(self.icmp_signed("<=", count, self.i64(0))):
            self.ret_void()
        rest, place = Slot(self, value.type, value), Slot(self, PTR, pointer)
        half = lanes // 2
        while half:
            with self.if_then(
                self.icmp_signed("!=", self.and_(count, self.i64(half)), self.i64(0))
            ):
                here = rest.get()
                first = (
                    self.shuffle(here, here, range(half))
                    if half > 1
                    else self.extract_element(here, 0)
                )
                self.store(first, place.get(), align=1)
                moved = [*range(half, lanes), *[0] * half]
                rest.set(self.shuffle(here, here, moved))
                place.set(self.at(place.get(), self.i64(half * item)))
            half //= 2

    def put(self, value: Value, pointer: Value, *, stream: bool) -> None:
        """Store a whole vector; with `stream`, past the caches, to an address that it divides."""
        self.store(value, pointer, value.type.bytes if stream else 1, stream=stream)

    def prefetch(self, pointer: Value, *, write: bool = False) -> None:
        """Bring a cache line near, to read or to write it; harmless at any address."""
        arguments = [
            pointer,
            *(ir.constant(I32, value) for value in (int(write), 3, 1)),
        ]  # keep, data
        self._call("llvm.prefetch.p0", ir.VOID, arguments)

    def _call(self, name: str, kind: Type, arguments: Sequence[Value]) -> Value:
        """Call a function that LLVM knows."""
        known = self.module.globals.get(name)
        known = known or ir.Function(self.module, name, [a.type for a in arguments], kind)
        return self.call(known, arguments)
