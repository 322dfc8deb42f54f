"""Long sums in short runs, shared by the families.

One float32 chain over thousands of products loses accuracy that shorter chains keep. So products are
summed in runs of at most a few hundred channels of one tap; a few runs make a group, and only groups are
added to the total. The order depends on the problem alone: not on threads, tiles or chunks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from convt.kernels import ir
from convt.kernels.builder import I1, I64, PTR, Builder, Slot
from convt.kernels.driver import Fields, row
from convt.kernels.ir import Value
from convt.kernels.record import RUN

__all__ = ["RUNS", "RunList", "Runs", "accumulate"]


class Runs(NamedTuple):
    """The list of runs of a box of outputs, and where their totals wait."""

    list: Value
    length: Value
    group: Value  # runs in a group
    totals: Value  # room for the sums of one tile


RUNS = (PTR, I64, I64, PTR)  # the types of Runs


class RunList:
    """Lists runs, tap by tap, in a part of the workspace at `scratch`.

    `stride` is from one input channel to the next, in bytes.
    """

    def __init__(
        self, b: Builder, fields: Fields, scratch: Value, stride: Value, part: str = "runs"
    ) -> None:
        self._b, self._fields, self._scratch, self._stride = b, fields, scratch, stride
        self._place = b.at(scratch, fields[f"workspace_{part}"])
        self._count = Slot(b, I64, b.i64(0))
        # Where the run would go on that was listed last, in the input and in the filters.
        self._next = [Slot(b, I64, b.i64(-1)) for _ in range(2)]

    def add(self, offset: Value, tap: Value) -> None:
        """The runs of one `tap`, which reads `offset` bytes from the place of the output.

        A run that goes on where the last one ends, in the input and in the filters, lengthens it: those of
        neighbouring taps of a convolution, where channels and columns are dense.
        """
        b = self._b
        channels, length = self._fields["in_channels"], self._fields["run_channels"]
        with b.loop(b.i64(0), channels, length) as first:
            start = b.add(offset, b.mul(first, self._stride))
            row = b.add(b.mul(tap, channels), first)
            count = b.minimum(length, b.sub(channels, first))
            last = b.at(self._place, b.mul(self._count.get(), b.i64(8 * len(RUN))))
            last = b.at(last, b.i64(-8))  # the count of the run before
            joins = b.and_(*(b.icmp_signed("==", *v) for v in self._seams(start, row)))
            longer = b.add(b.select(joins, b.read(last), b.i64(0)), count)
            joins = b.and_(joins, b.icmp_signed("<=", longer, self._fields["joined_channels"]))
            with b.if_else(joins) as (joined, new):
                with joined:
                    b.store(longer, last, align=8)
                with new:
                    for position, value in enumerate((start, row, count), 1):
                        b.store(value, b.at(last, b.i64(8 * position)), align=8)
                    self._count.add(b.i64(1))
            self._next[0].set(b.add(start, b.mul(count, self._stride)))
            self._next[1].set(b.add(row, count))

    def _seams(self, start: Value, row: Value) -> list[tuple[Value, Value]]:
        return [(here.get(), value) for here, value in zip(self._next, (start, row), strict=True)]

    def runs(self) -> Runs:
        """The list so far."""
        totals = self._b.at(self._scratch, self._fields["workspace_totals"])
        return Runs(self._place, self._count.get(), self._fields["flush_runs"], totals)


def accumulate(
    b: Builder,
    runs: Runs,
    sums: list[Slot],
    body: Callable[[dict[str, Value]], None],
    zero: Value,
) -> None:
    """Leave the total of all runs in `sums`; `body` adds one run's products to them."""
    # Totals are kept only where there is more than one group: a single one costs nothing extra. They
    # wait in the workspace, since LLVM would spill sums inside the loop to keep totals in registers.
    size = zero.type.bytes
    totals = [b.at(runs.totals, b.i64(i * size)) for i in range(len(sums))]
    index = Slot(b, I64, b.i64(0))
    first = Slot(b, I1, ir.constant(I1, 1))
    again, done = b.label("group"), b.label("summed")
    b.begin(again)
    for part in sums:
        part.set(zero)
    end = b.minimum(runs.length, b.add(index.get(), runs.group))
    with b.repeat(lambda: b.icmp_signed("<", index.get(), end)):
        body(row(b, runs.list, index.get(), RUN))
        index.add(b.i64(1))
    more = b.icmp_signed("<", index.get(), runs.length)
    with b.if_then(b.or_(more, b.not_(first.get()))):
        with b.if_else(first.get()) as (starts, continues):
            with starts:
                for total, part in zip(totals, sums, strict=True):
                    b.store(part.get(), total, align=size)
            with continues:
                for total, part in zip(totals, sums, strict=True):
                    part.set(b.fadd(b.load(total, typ=zero.type, align=size), part.get()))
                    b.store(part.get(), total, align=size)
        first.set(ir.constant(I1, 0))
    b.cbranch(more, again, done)
    b.begin(done)
