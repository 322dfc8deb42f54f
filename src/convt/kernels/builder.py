"""The instructions that kernels are written with: a thin layer over llvmlite's IRBuilder.

Emitters call this and make text; nothing is compiled here. Mutable values live in stack slots that LLVM's
SROA pass turns into registers. All addresses are opaque pointers moved by *bytes*, all integers 64-bit.
Loads and stores of callers' arrays promise no alignment, since a NumPy view may have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

__all__ = ["BYTE", "F32", "F64", "I1", "I16", "I32", "I64", "PTR", "Builder", "Slot", "function"]

I1, BYTE, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F32, F64, PTR = ir.FloatType(), ir.DoubleType(), ir.PointerType()

Value = Any  # llvmlite's values carry no useful static type


def function(
    module: ir.Module, name: str, arguments: Sequence[ir.Type], *, inline: bool = False
) -> ir.Function:
    """Declare an internal void function in `module`."""
    made = ir.Function(module, ir.FunctionType(ir.VoidType(), list(arguments)), name)
    made.linkage = "internal"
    made.attributes.add("nounwind")
    made.attributes.add("alwaysinline" if inline else "noinline")
    return made


class Slot:
    """A mutable value of one type."""

    def __init__(self, builder: Builder, kind: ir.Type, value: Value = None) -> None:
        self._builder, self._kind = builder, kind
        self._place = builder.stack(kind)
        if value is not None:
            self.set(value)

    def get(self) -> Value:
        return self._builder.load(self._place, typ=self._kind)

    def set(self, value: Value) -> None:
        self._builder.store(value, self._place)

    def add(self, value: Value) -> None:
        self.set(self._builder.add(self.get(), value))


class Builder(ir.IRBuilder):
    """An IRBuilder at the entry of `function`, for a processor with or without fused multiply-add."""

    def __init__(self, function: ir.Function, *, fma: bool) -> None:
        super().__init__(function.append_basic_block("entry"))
        self._fma = fma

    # --- integers -----------------------------------------------------------------------------
    @staticmethod
    def i64(value: int) -> ir.Constant:
        return ir.Constant(I64, value)

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
        head, body, end = (self.append_basic_block(n) for n in ("head", "body", "end"))
        self.branch(head)
        self.position_at_end(head)
        self.cbranch(condition(), body, end)
        self.position_at_end(body)
        yield
        self.branch(head)
        self.position_at_end(end)

    # --- memory -------------------------------------------------------------------------------
    def stack(self, kind: ir.Type, count: int = 1) -> Value:
        """Room for `count` values, taken once, in the function's entry block."""
        kind = kind if count == 1 else ir.ArrayType(kind, count)
        with self.goto_entry_block():
            place = self.alloca(kind)
        place.type = PTR  # llvmlite still types it by what it holds; every address here is opaque
        return place

    def at(self, pointer: Value, offset: Value) -> Value:
        """`pointer` moved by `offset` bytes."""
        return self.gep(pointer, [offset], source_etype=BYTE)

    def read(self, pointer: Value, kind: ir.Type = I64, align: int = 8) -> Value:
        return self.load(pointer, align=align, typ=kind)

    def word(self, pointer: Value, index: int) -> Value:
        """The 64-bit integer number `index` from `pointer` on."""
        return self.read(self.at(pointer, self.i64(8 * index)))

    # --- lanes --------------------------------------------------------------------------------
    @staticmethod
    def splat_constant(kind: ir.VectorType, value: float | int) -> ir.Constant:
        return ir.Constant(kind, [ir.Constant(kind.element, value)] * kind.count)

    def splat(self, value: Value, lanes: int) -> Value:
        """A vector with `value` in every lane."""
        kind = ir.VectorType(value.type, lanes)
        first = self.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(I32, 0))
        return self.shuffle(first, first, [0] * lanes)

    def shuffle(self, a: Value, b: Value, lanes: Sequence[int]) -> Value:
        """Pick `lanes` from the lanes of `a` followed by those of `b`."""
        mask = ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes))
        return self.shuffle_vector(a, b, mask)

    def below(self, limit: Value, lanes: int, first: int = 0, *, item: int) -> Value:
        """A mask of the lanes, of `item` bytes, whose number counted from `first` is below `limit`."""
        kind = ir.VectorType(I32 if item == 4 else I64, lanes)
        numbers = ir.Constant(kind, [ir.Constant(kind.element, first + k) for k in range(lanes)])
        if item == 4:  # as wide as what it masks, the comparison is the mask
            limit = self.trunc(self.minimum(limit, self.i64(first + lanes)), I32)
        return self.icmp_signed("<", numbers, self.splat(limit, lanes))

    def multiply_add(self, a: Value, b: Value, c: Value) -> Value:
        """``a * b + c``, rounded once where the processor can."""
        if not self._fma:
            return self.fadd(self.fmul(a, b), c)
        return self.intrinsic("llvm.fma", a.type, [a, b, c])

    def intrinsic(self, name: str, kind: ir.Type, arguments: Sequence[Value]) -> Value:
        """Call the LLVM intrinsic `name` that returns and is named after `kind`."""
        suffix = f"v{kind.count}{_code(kind.element)}" if hasattr(kind, "count") else _code(kind)
        return self.call(self._declare(f"{name}.{suffix}", kind, arguments), arguments)

    def masked_load(self, kind: ir.VectorType, pointer: Value, mask: Value) -> Value:
        """Load the lanes that `mask` names; nothing is read for the others, which are 0."""
        name = f"llvm.masked.load.v{kind.count}{_code(kind.element)}.p0"
        arguments = [pointer, ir.Constant(I32, 1), mask, ir.Constant(kind, None)]
        return self.call(self._declare(name, kind, arguments), arguments)

    def store_first(self, value: Value, pointer: Value, count: Value) -> None:
        """Store the first `count` lanes of `value`: none if it is negative, all if there are no more."""
        # By halves: a masked store takes dozens of micro-operations on some processors.
        name = f"store_first_v{value.type.count}{_code(value.type.element)}"
        if name not in self.module.globals:
            made = function(self.module, name, [value.type, PTR, I64])
            inner = Builder(made, fma=self._fma)
            inner._store_halves(*made.args)
            inner.ret_void()
        self.call(self.module.globals[name], [value, pointer, count])

    def _store_halves(self, value: Value, pointer: Value, count: Value) -> None:
        lanes, item = value.type.count, _bytes(value.type.element)
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
                first = self.shuffle(here, here, range(half)) if half > 1 else self._lane(here, 0)
                self.store(first, place.get(), align=1)
                moved = [*range(half, lanes), *[0] * half]
                rest.set(self.shuffle(here, here, moved))
                place.set(self.at(place.get(), self.i64(half * item)))
            half //= 2

    def _lane(self, value: Value, lane: int) -> Value:
        return self.extract_element(value, ir.Constant(I32, lane))

    def put(self, value: Value, pointer: Value, *, stream: bool) -> None:
        """Store a whole vector; with `stream`, past the caches, to an address that it divides."""
        if not stream:
            self.store(value, pointer, align=1)
            return
        align = _bytes(value.type.element) * value.type.count
        store = self.store(value, pointer, align=align)
        store.set_metadata("nontemporal", self.module.add_metadata([ir.Constant(I32, 1)]))

    def prefetch(self, pointer: Value) -> None:
        """Bring a cache line near; harmless at any address."""
        arguments = [pointer, *(ir.Constant(I32, value) for value in (0, 3, 1))]  # read, keep, data
        self.call(self._declare("llvm.prefetch.p0", ir.VoidType(), arguments), arguments)

    def _declare(self, name: str, kind: ir.Type, arguments: Sequence[Value]) -> ir.Function:
        if name in self.module.globals:
            return self.module.globals[name]
        return ir.Function(self.module, ir.FunctionType(kind, [a.type for a in arguments]), name)


def _bytes(kind: ir.Type) -> int:
    return int({F32: 4, F64: 8}.get(kind) or kind.width // 8)


def _code(kind: ir.Type) -> str:
    names = {F32: "f32", F64: "f64"}
    return names.get(kind) or f"i{kind.width}"
