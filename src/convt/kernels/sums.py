"""Long sums in short runs, shared by the families.

One float32 chain over thousands of products loses accuracy that shorter chains keep. So products are
summed in runs of at most a few hundred channels of one tap; a few runs make a group, and only groups are
added to the total. The order depends on the problem alone: not on threads, tiles or chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from llvmlite import ir

from convt.kernels.builder import I64, Builder, Slot
from convt.kernels.driver import Fields, row
from convt.kernels.record import RUN

__all__ = ["Runs", "accumulate", "write_runs"]

Value = Any


class Runs(NamedTuple):
    """The list of runs of a box of outputs: address, length, and runs in a group."""

    list: Value
    count: Value
    group: Value


@contextmanager
def write_runs(b: Builder, fields: Fields, place: Value) -> Iterator[tuple[Callable[..., None], Slot]]:
    """Yields ``add(input_offset, tap)``, which lists one tap's runs at `place`, and their count."""
    count = Slot(b, I64, b.int(0))
    channels, length = fields["in_channels"], fields["run_channels"]
    channel_bytes = fields["x_c"]

    def add(offset: Value, tap: Value, stride: Value | None = None) -> None:
        with b.loop(b.int(0), channels, length) as first:
            entry = b.at(place, b.mul(count.get(), b.int(8 * len(RUN))))
            values = (
                b.add(offset, b.mul(first, channel_bytes if stride is None else stride)),
                b.add(b.mul(tap, channels), first),
                b.minimum(length, b.sub(channels, first)),
            )
            for position, value in enumerate(values):
                b.store(value, b.at(entry, b.int(8 * position)), align=8)
            count.add(b.int(1))

    yield add, count


def accumulate(
    b: Builder,
    runs: Runs,
    sums: list[Slot],
    body: Callable[[dict[str, Value]], None],
    zero: ir.Constant,
) -> None:
    """Leave the total of all runs in `sums`; `body` adds one run's products to them."""
    totals = [Slot(b, zero.type, zero) for _ in sums]
    index = Slot(b, I64, b.int(0))
    for total in sums:
        total.set(zero)
    with b.repeat(lambda: b.icmp_signed("<", index.get(), runs.count)):
        end = b.minimum(runs.count, b.add(index.get(), runs.group))
        for part in sums:
            part.set(zero)
        with b.repeat(lambda: b.icmp_signed("<", index.get(), end)):
            body(row(b, runs.list, index.get(), RUN))
            index.add(b.int(1))
        for total, part in zip(totals, sums, strict=True):
            total.set(b.fadd(total.get(), part.get()))
    for total, part in zip(totals, sums, strict=True):
        part.set(total.get())
