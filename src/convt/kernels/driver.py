"""What every family's kernel does around its sums: take tasks, bring input slabs in, hand results out.

A task is a batch range, a group, a range of output-channel blocks and one chunk of each axis; tasks write
disjoint outputs. Threads take tasks from a shared counter until none is left. Where a family can't read
the caller's array in place (another element type, byte order or axis is dense), the input that the task
reads is packed into a slab of the thread's workspace first; where it can't write in place, the results go
to a slab that is unpacked at the end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from convt.kernels import ir
from convt.kernels.builder import I64, PTR, Builder, Slot
from convt.kernels.copy import emit_copy
from convt.kernels.elements import number
from convt.kernels.ir import Value
from convt.kernels.keys import Channels, Dots, Element, Filtering, Rows
from convt.kernels.record import CHUNK, SEGMENT, TAP, slot
from convt.target import Target

__all__ = [
    "Fields",
    "Share",
    "Task",
    "View",
    "each_block",
    "emit_run",
    "row",
    "segment",
    "segments",
    "tap",
    "task_channels",
    "tasks",
]

_SPATIAL = ("d", "h", "w")


class Fields:
    """The record of the call, read by the names of its fields."""

    def __init__(self, b: Builder, record: Value) -> None:
        self._b, self.record = b, record

    def __getitem__(self, name: str) -> Value:
        return self._b.word(self.record, slot(name))

    def pointer(self, name: str) -> Value:
        return self._b.inttoptr(self[name], PTR)

    def place(self, name: str) -> Value:
        return self._b.at(self.record, self._b.i64(8 * slot(name)))


def row(b: Builder, table: Value, index: Value, names: tuple[str, ...]) -> dict[str, Value]:
    """Row number `index` of a table of integers, by the names of its columns."""
    place = b.at(table, b.mul(index, b.i64(8 * len(names))))
    return {name: b.word(place, column) for column, name in enumerate(names)}


class View(NamedTuple):
    """An array as a kernel sees it: the address of index 0 everywhere, and strides in bytes."""

    base: Value
    n: Value
    d: Value
    h: Value
    w: Value
    c: Value

    def at(self, b: Builder, **index: Value) -> Value:
        """The address of an element; axes left out are at 0."""
        return b.at(self.base, b.dot(*((v, getattr(self, k)) for k, v in index.items())))


class Task(NamedTuple):
    """What one task computes."""

    batch: tuple[Value, Value]
    group: Value
    blocks: tuple[Value, Value]  # of output channels, within the group
    phases: tuple[Value, Value]  # of all axes together; only minimal filtering takes some alone
    chunks: dict[str, dict[str, Value]]  # a row of the chunk table for each axis


Family: TypeAlias = Channels | Dots | Filtering | Rows


def task_channels(b: Builder, fields: Fields, kernel: Family, task: Task) -> tuple[Value, Value]:
    """First output channel of the task within its group, and how many there are."""
    width = b.i64(kernel.block_channels)
    first, end = (b.mul(block, width) for block in task.blocks)
    last = b.icmp_signed("==", task.blocks[1], fields["blocks"])  # may be wider
    return first, b.sub(b.select(last, fields["out_channels"], end), first)


Kernel = TypeVar("Kernel", bound=Family)


@dataclass
class Share(ABC, Generic[Kernel]):
    """What a task has to work with; each family's own says what it computes of it."""

    kernel: Kernel
    b: Builder
    target: Target
    fields: Fields
    task: Task
    x: View
    y: View
    scratch: Value  # the thread's workspace

    @abstractmethod
    def compute(self) -> None:
        """Emit what computes the task's outputs."""


def emit_run(target: Target, kernel: Kernel, share: type[Share[Kernel]]) -> ir.Module:
    """Define ``run(record, workspace)``: take and compute tasks until none is left."""
    module = ir.Module(kernel.name)
    run = ir.Function(module, "run", [PTR, PTR])
    b = Builder(run, fma=target.fma)
    record, scratch = run.args
    fields = Fields(b, record)
    with tasks(b, fields) as index:
        task = _decode(b, fields, index, alone=isinstance(kernel, Filtering))
        driver = _Driver(b, target, kernel, fields, task, scratch)
        x, y = driver.input(), driver.output()
        share(kernel, b, target, fields, task, x, y, scratch).compute()
        driver.finish(y)
    b.ret_void()
    return module


@contextmanager
def tasks(b: Builder, fields: Fields) -> Iterator[Value]:
    """Take the number of one task after another until none is left; threads share the counter."""
    taken = Slot(b, I64)

    def more() -> Value:
        taken.set(b.atomic_add(fields.place("next"), b.i64(1)))
        return b.icmp_signed("<", taken.get(), fields["tasks"])

    with b.repeat(more):
        yield taken.get()


def _decode(b: Builder, fields: Fields, number: Value, *, alone: bool) -> Task:
    """Task number -> its ranges; the width varies fastest, then height, depth, batch, channels, group.

    With `alone`, a task may have some of the phases: these vary before the group.
    """
    place: dict[str, Value] = {"p": b.i64(0)}
    for axis in ("w", "h", "d", "n", "c", *("p" if alone else "")):
        count = fields[f"{axis}_tasks"]
        place[axis] = b.srem(number, count)
        number = b.sdiv(number, count)

    def span(index: Value, step: str, total: str) -> tuple[Value, Value]:
        first = b.mul(index, fields[step])
        return first, b.minimum(b.add(first, fields[step]), fields[total])

    chunks = {
        axis: row(b, fields.pointer(f"chunks_{axis}"), place[axis], CHUNK) for axis in _SPATIAL
    }
    return Task(
        span(place["n"], "batch_step", "batch"),
        number,
        span(place["c"], "block_step", "blocks"),
        span(place["p"], "phase_step", "phases"),
        chunks,
    )


@dataclass
class _Driver:
    b: Builder
    target: Target
    family: Family
    fields: Fields
    task: Task
    scratch: Value

    # --- the arrays as the family sees them ---------------------------------------------------
    def input(self) -> View:
        """The task's input channels: in place, or packed into a slab."""
        channels = self.fields["in_channels"]
        first = self.b.mul(self.task.group, channels)
        if self.family.depthwise:
            first, channels = self._out_channels()
        caller = self._caller("x", first)
        if self.family.source is None:
            return caller
        if isinstance(self.family, Rows):
            parts = self.family.parts
            slab = self._slab("workspace_input", "in_first", "in_end", channels, parts)
            self._pack_rows(caller, slab, channels, parts)
            return slab
        slab = self._slab("workspace_input", "in_first", "in_end", channels)
        self._exchange(caller, slab, "in_first", "in_end", channels, self.family.source, None)
        return slab

    def output(self) -> View:
        """The task's output channels: in place, or a slab."""
        first, channels = self._out_channels()
        if self.family.destination is None:
            return self._caller("y", first)
        return self._slab("workspace_output", "out_first", "out_end", channels)

    def finish(self, y: View) -> None:
        """Unpack the slab of results."""
        if self.family.destination is None:
            return
        first, channels = self._out_channels()
        caller = self._caller("y", first)
        self._exchange(
            y, caller, "out_first", "out_end", channels, self.family.wide, self.family.destination
        )

    def _out_channels(self) -> tuple[Value, Value]:
        """First output channel of the task, counted over all groups, and how many there are."""
        b, fields = self.b, self.fields
        first, count = task_channels(b, fields, self.family, self.task)
        return b.add(b.mul(self.task.group, fields["out_channels"]), first), count

    def _caller(self, name: str, channel: Value) -> View:
        strides = [self.fields[f"{name}_{axis}"] for axis in ("n", "d", "h", "w", "c")]
        base = self.b.at(self.fields.pointer(name), self.b.mul(channel, strides[-1]))
        return View(base, *strides)

    def _slab(self, place: str, first: str, end: str, channels: Value, parts: int = 1) -> View:
        """A dense array of the task's region in the workspace, indexed like the whole one.

        Of rows, each channel has as many as there are `parts`.
        """
        b, chunks = self.b, self.task.chunks
        size = {axis: b.sub(chunks[axis][end], chunks[axis][first]) for axis in _SPATIAL}
        item = b.i64(self.family.wide.bytes)
        if self.family.rows:
            w, c = item, b.mul(size["w"], b.mul(item, b.i64(parts)))
            h = b.mul(c, channels)
        else:
            c, w = item, b.mul(channels, item)
            h = b.mul(w, size["w"])
        d = b.mul(h, size["h"])
        n = b.mul(d, size["d"])
        origin = b.dot(
            (self.task.batch[0], n),
            *((chunks[a][first], s) for a, s in zip("dhw", (d, h, w), strict=True)),
        )
        base = b.at(self.scratch, b.sub(self.fields[place], origin))
        return View(base, n, d, h, w, c)

    # --- moving slabs -------------------------------------------------------------------------
    def _exchange(
        self,
        source: View,
        target: View,
        first: str,
        end: str,
        channels: Value,
        read: Element,
        write: Element | None,
    ) -> None:
        """Copy the task's region row by row; all rows of a plane at once where both are dense."""
        b = self.b
        copy = emit_copy(b.module, self.target, read, write or self.family.wide)
        (d0, d1), (h0, h1), (w0, w1) = (
            (self.task.chunks[a][first], self.task.chunks[a][end]) for a in _SPATIAL
        )
        width = b.sub(w1, w0)
        dense = b.and_(
            b.icmp_signed("==", source.h, b.mul(source.w, width)),
            b.icmp_signed("==", target.h, b.mul(target.w, width)),
        )
        rows = b.select(dense, b.sub(h1, h0), b.i64(1))
        pixels = b.mul(rows, width)
        with b.loop(*self.task.batch) as n, b.loop(d0, d1) as d, b.loop(h0, h1, rows) as h:
            b.call(
                copy,
                [
                    source.at(b, n=n, d=d, h=h, w=w0),
                    source.w,
                    source.c,
                    target.at(b, n=n, d=d, h=h, w=w0),
                    target.w,
                    target.c,
                    pixels,
                    channels,
                ],
            )

    def _pack_rows(self, source: View, slab: View, channels: Value, parts: int) -> None:
        """Pack rows that reach beyond the input at both ends; what lies beyond is zero."""
        b = self.b
        if parts == 1:
            self._pack_part(source, slab, channels, self.fields["in_w"])
            return
        chunk = self.task.chunks["w"]
        row = b.mul(b.sub(chunk["in_end"], chunk["in_first"]), slab.w)
        with b.loop(b.i64(0), b.i64(parts)) as part:
            left = b.sub(self.fields["in_w"], part)
            columns = b.sdiv(b.add(left, b.i64(parts - 1)), b.i64(parts))
            every = source._replace(
                base=b.at(source.base, b.mul(part, source.w)), w=b.mul(source.w, b.i64(parts))
            )
            here = slab._replace(base=b.at(slab.base, b.mul(part, row)))
            self._pack_part(every, here, channels, columns)

    def _pack_part(self, source: View, slab: View, channels: Value, columns: Value) -> None:
        """Pack one part of every row, which has `columns` columns within the input."""
        b, chunks = self.b, self.task.chunks
        assert self.family.source is not None
        copy = emit_copy(b.module, self.target, self.family.source, self.family.wide)
        w0, w1 = chunks["w"]["in_first"], chunks["w"]["in_end"]
        low = b.minimum(b.maximum(w0, b.i64(0)), w1)
        high = b.maximum(b.minimum(w1, columns), low)
        bounds = [(chunks[a]["in_first"], chunks[a]["in_end"]) for a in ("d", "h")]
        with b.loop(*self.task.batch) as n, b.loop(*bounds[0]) as d, b.loop(*bounds[1]) as h:
            place = slab.at(b, n=n, d=d, h=h)
            with b.loop(b.i64(0), channels) as c:
                line = b.at(place, b.mul(c, slab.c))
                for start, stop in ((w0, low), (high, w1)):
                    with b.loop(start, stop) as w:
                        zero = ir.constant(number(self.family.wide), 0.0)
                        b.store(zero, b.at(line, b.mul(w, slab.w)))
            arguments = [source.at(b, n=n, d=d, h=h, w=low), source.c, source.w]
            arguments += [b.at(place, b.mul(low, slab.w)), slab.c, slab.w]
            b.call(copy, [*arguments, channels, b.sub(high, low)])


def each_block(
    b: Builder,
    fields: Fields,
    blocks: tuple[Value, Value],
    size: int,
    tail: int,
    emit: Callable[[Value, int], None],
) -> None:
    """Call ``emit(block, size)`` in a loop over `blocks`, and for a last one of size `tail`."""
    low, high = blocks
    last = b.sub(fields["blocks"], b.i64(1))
    with b.loop(low, b.minimum(high, last) if tail else high) as block:
        emit(block, size)
    if tail:
        with b.if_then(b.icmp_signed("==", high, fields["blocks"])):
            emit(last, tail)


def segments(b: Builder, task: Task, axis: str) -> Any:
    """Loop over the segments of the task's chunk of `axis`: yields rows of the segment table."""
    chunk = task.chunks[axis]
    return b.loop(chunk["segment_first"], chunk["segment_end"])


def segment(b: Builder, fields: Fields, axis: str, index: Value) -> dict[str, Value]:
    """A row of the segment table of `axis`."""
    return row(b, fields.pointer(f"segments_{axis}"), index, SEGMENT)


def tap(b: Builder, fields: Fields, axis: str, index: Value) -> dict[str, Value]:
    """A row of the tap table of `axis`."""
    return row(b, fields.pointer(f"taps_{axis}"), index, TAP)
