"""Lanes over the width: for few channels out, and where the width is what is dense.

A tile is a stretch of one output row: vectors of consecutive columns, for every phase of the width and a
few output channels, kept in registers. Each vector of input is loaded once a tap row and input channel and
meets the broadcast filters of every phase that it reaches; on store the phases are interleaved by
shuffles. Input rows are packed first, ``[depth][height][channel][width]``, with zeros where a row's lanes
reach beyond the input; since 0 * Inf is no 0, this family asks for finite filters. For a convolution, which
strides over its input, packing takes each row apart by the remainder of the column: a part lies after the
other, and outputs read all of them. With one output channel, a tile has a row of every phase of the height
where all read the same inputs; those beyond the task's rows are not stored. The filters are packed
as ``[block][depth tap][height tap][input channel][width tap][lane]``, a lane here being one output channel
of the block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import reduce

from convt.kernels import ir
from convt.kernels.builder import I64, PTR, Builder, Slot, function
from convt.kernels.copy import interleave
from convt.kernels.driver import each_block, emit_run
from convt.kernels.elements import bits_of, narrow, narrow_pairs, number, store
from convt.kernels.ir import Value
from convt.kernels.keys import Rows
from convt.kernels.lines import Lines
from convt.kernels.sums import RUNS, Runs, accumulate
from convt.target import Target

__all__ = ["emit"]


def emit(kernel: Rows, target: Target) -> ir.Module:
    """The kernel: row by row, the output rows that the same taps reach on depth and height."""
    return emit_run(target, kernel, _Rows)


class _Rows(Lines[Rows]):
    def first_column(self) -> Value:
        return self.task.chunks["w"]["in_first"]

    def tap_rows(self, index: Value) -> Value:
        return index

    def row(self, runs: Runs, x: Value, y: Value, height: Value) -> None:
        """Every block of output channels of one row."""
        b, fields, kernel = self.b, self.fields, self.kernel
        size = kernel.wide.bytes
        rows = b.mul(fields["in_channels"], b.mul(fields["kernel_d"], fields["kernel_h"]))
        channel_bytes = b.mul(rows, b.i64(kernel.kernel * size))
        low, high = self.task.blocks
        first = b.mul(self.task.group, fields["out_channels"])
        filters = b.at(fields.pointer("filters"), b.mul(first, channel_bytes))
        bias = b.at(fields.pointer("bias"), b.mul(first, b.i64(size)))
        width = self.task.chunks["w"]
        columns = b.sub(width["out_end"], width["out_first"])
        lines, step = self.task.chunks["h"], self.y.h if kernel.lines > 1 else self.y.c
        tap_bytes = b.mul(fields["in_channels"], b.i64(kernel.kernel * size))

        def call(block: Value, channels: int) -> None:
            channel = b.mul(block, b.i64(kernel.channels))
            local = b.mul(b.sub(block, low), b.i64(kernel.channels))
            arguments = [
                b.at(filters, b.mul(channel, channel_bytes)),
                b.at(bias, b.mul(channel, b.i64(size))),
                x,
                self.x.c,
                b.at(y, b.mul(local, self.y.c)),
                step,
                columns,
                tap_bytes,
                b.sub(lines["out_first"], height),
                b.sub(lines["out_end"], height),
                *runs,
            ]
            b.call(_emit_row(b.module, self.target, kernel, channels), arguments)

        each_block(b, fields, (low, high), kernel.channels, kernel.tail, call)


_ARGUMENTS = [PTR, PTR, PTR, I64, PTR, *[I64] * 5, *RUNS]


def _emit_row(module: ir.Module, target: Target, kernel: Rows, channels: int) -> ir.Function:
    """``row(filters, bias, x, x_channel, y, y_step, columns, tap_bytes, low, high, runs...)``: its tiles.

    Of several rows, those from `low` to `high` are stored.
    """
    name = f"row_{channels}"
    if name in module.globals:
        return module.globals[name]
    made = function(module, name, _ARGUMENTS)
    b = Builder(made, fma=target.fma)
    columns = made.args[6]
    step = kernel.columns * kernel.phases
    with b.loop(b.i64(0), columns, step) as first:
        for phases in phase_groups(kernel, channels * kernel.lines, target.registers):
            _Tile(b, kernel, target.half, channels, phases, made.args, first).emit()
    b.ret_void()
    return made


def phase_groups(kernel: Rows, several: int, registers: int) -> list[range]:
    """The phases, in groups whose sums, for `several` channels or rows, fit the registers together."""
    room = max((registers - 1 - kernel.vectors) // (several * kernel.vectors), 1)
    return [
        range(first, min(first + room, kernel.phases)) for first in range(0, kernel.phases, room)
    ]


class _Tile:
    """One register tile: some phases of a stretch of columns, for the block's output channels or rows."""

    def __init__(
        self,
        b: Builder,
        kernel: Rows,
        half: bool,
        channels: int,
        phases: range,
        arguments: Sequence[Value],
        first: Value,
    ) -> None:
        self.b, self.kernel, self.half = b, kernel, half
        self.channels, self.phases = channels, phases
        self.several = range(channels * kernel.lines)
        self.filters, self.bias, x, self.x_channel, y, self.y_step, columns, *rest = arguments
        self.tap_bytes, self.low, self.high, *runs = rest
        self.runs = Runs(*runs)
        size = kernel.wide.bytes
        self.kind = ir.vector(number(kernel.wide), kernel.lanes)
        self.x = b.at(x, b.mul(b.sdiv(first, b.i64(kernel.phases)), b.i64(size)))
        self.x_part = b.sdiv(self.x_channel, b.i64(kernel.parts))
        self.y = b.at(y, b.mul(first, b.i64(kernel.result.bytes)))
        self.left = b.sub(columns, first)  # outputs from this tile's first on
        self.sums = {
            (phase, one, v): Slot(b, self.kind)
            for phase in phases
            for one in self.several
            for v in range(kernel.vectors)
        }

    def emit(self) -> None:
        zero = ir.constant(self.kind, 0.0)
        accumulate(self.b, self.runs, list(self.sums.values()), self._run, zero)
        self._add_bias()
        if len(self.phases) < self.kernel.phases:
            for one in self.several:
                with self._within(one):
                    self._scatter(self._row(one), one)
            return
        with self.b.if_else(self._whole()) as (full, part):
            with full:
                for one in self.several:
                    self._put(self._vectors(one), self._row(one), stream=self.kernel.stream)
            with part:
                for one in self.several:
                    with self._within(one):
                        self._store_rest(one)

    def _row(self, one: int) -> Value:
        """Where one of several channels or rows has its first output of this tile."""
        return self.b.at(self.y, self.b.mul(self.b.i64(one), self.y_step))

    def _whole(self) -> Value:
        """Whether all that the tile holds is stored."""
        b, kernel = self.b, self.kernel
        whole = b.icmp_signed(">=", self.left, b.i64(kernel.columns * kernel.phases))
        if kernel.lines == 1:
            return whole
        above = b.icmp_signed("<=", self.low, b.i64(0))
        below = b.icmp_signed(">=", self.high, b.i64(kernel.lines))
        return b.and_(whole, b.and_(above, below))

    @contextmanager
    def _within(self, one: int) -> Iterator[None]:
        """Run the body if one of several rows is the task's; channels always are."""
        if self.kernel.lines == 1:
            yield
            return
        b, here = self.b, self.b.i64(one)
        above = b.icmp_signed("<=", self.low, here)
        with b.if_then(b.and_(above, b.icmp_signed("<", here, self.high))):
            yield

    def _run(self, entry: dict[str, Value]) -> None:
        b, size = self.b, self.kernel.wide.bytes
        width = self.kernel.kernel * self.channels * size
        x = Slot(b, PTR, b.at(self.x, entry["input"]))
        filters = Slot(b, PTR, b.at(self.filters, b.mul(entry["row"], b.i64(width))))
        if self.kernel.single:
            self._products(x.get(), filters.get())
            return
        with b.loop(b.i64(0), entry["count"]):
            self._products(x.get(), filters.get())
            x.set(b.at(x.get(), self.x_channel))
            filters.set(b.at(filters.get(), b.i64(width)))

    def _products(self, x: Value, filters: Value) -> None:
        """One input channel of one row: every tap of the width that reaches these phases."""
        b, kernel, size = self.b, self.kernel, self.kernel.wide.bytes
        taps = [t for t in kernel.taps if t.phase in self.phases]
        parts = {key: total.get() for key, total in self.sums.items()}
        for part, shift in sorted({(t.part, t.shift) for t in taps}):
            place = [
                (kernel.margin + shift + v * kernel.lanes) * size for v in range(kernel.vectors)
            ]
            row = b.at(x, b.mul(b.i64(part), self.x_part)) if part else x
            values = [b.load(b.at(row, b.i64(p)), align=size, typ=self.kind) for p in place]
            for column in (t for t in taps if (t.part, t.shift) == (part, shift)):
                for one in self.several:
                    at = self._filter(filters, column.index, one)
                    weight = b.load(at, align=size, typ=number(kernel.wide))
                    weight = b.splat(weight, kernel.lanes)
                    for v, value in enumerate(values):
                        key = (column.phase, one, v)
                        parts[key] = b.multiply_add(value, weight, parts[key])
        for key, total in self.sums.items():
            total.set(parts[key])

    def _filter(self, filters: Value, column: int, one: int) -> Value:
        """Where the filter of a kernel column is, for one of several channels or rows."""
        b, size = self.b, self.kernel.wide.bytes
        if self.kernel.lines == 1:
            return b.at(filters, b.i64((column * self.channels + one) * size))
        return b.at(b.at(filters, b.mul(self.tap_bytes, b.i64(one))), b.i64(column * size))

    def _add_bias(self) -> None:
        """Add the bias of every channel; where there is none it is -0.0, which changes no sum."""
        b, kind = self.b, number(self.kernel.wide)
        places = [b.at(self.bias, b.i64(c * kind.bytes)) for c in range(self.channels)]
        none, bits = ir.constant(kind, -0.0), bits_of(self.kernel.wide)
        words = (b.load(place, bits, align=kind.bytes) for place in places)
        given = reduce(b.or_, (b.icmp_signed("!=", word, b.bitcast(none, bits)) for word in words))
        with b.if_then(given):
            for channel, place in enumerate(places):
                value = b.splat(b.load(place, kind, align=kind.bytes), self.kernel.lanes)
                for (_, one, _), total in self.sums.items():
                    if one == channel or self.kernel.lines > 1:
                        total.set(b.fadd(total.get(), value))

    def _vectors(self, one: int) -> list[Value]:
        """The row's outputs, the phases interleaved."""
        return [
            vector
            for v in range(self.kernel.vectors)
            for vector in self._joined([self.sums[p, one, v].get() for p in self.phases])
        ]

    def _joined(self, phases: list[Value]) -> list[Value]:
        """Vectors of one stretch of each phase, rounded and interleaved."""
        b, kernel = self.b, self.kernel
        if kernel.result.code == "bf16" and len(phases) == 2:
            return [narrow_pairs(b, *phases)]
        rounded = [narrow(b, kernel.result, v, kernel.lanes, half=self.half) for v in phases]
        return interleave(b, rounded)

    def _put(self, vectors: list[Value], place: Value, *, stream: bool) -> None:
        size = self.kernel.columns * self.kernel.phases * self.kernel.result.bytes // len(vectors)
        for i, vector in enumerate(vectors):
            self.b.put(vector, self.b.at(place, self.b.i64(i * size)), stream=stream)

    def _store_rest(self, one: int) -> None:
        """Store what lies in the row, from where the whole tile waits in memory."""
        b, kernel = self.b, self.kernel
        vectors = self._vectors(one)
        tile, y = b.stack(vectors[0].type, len(vectors)), self._row(one)
        self._put(vectors, tile, stream=False)
        kind = ir.vector(bits_of(kernel.result), kernel.lanes)
        count = b.minimum(self.left, b.i64(kernel.columns * kernel.phases))
        with b.loop(b.i64(0), count, kernel.lanes) as first:
            offset = b.mul(first, b.i64(kernel.result.bytes))
            value = b.load(b.at(tile, offset), kind, align=kernel.result.bytes)
            b.store_first(value, b.at(y, offset), b.sub(count, first))

    def _scatter(self, y: Value, one: int) -> None:
        """Store some of many phases, one element at a time."""
        b, kernel, size = self.b, self.kernel, self.kernel.wide.bytes
        buffer = b.stack(self.kind, 1)
        for phase in self.phases:
            for v in range(kernel.vectors):
                b.store(self.sums[phase, one, v].get(), buffer)
                with b.loop(b.i64(0), b.i64(kernel.lanes)) as lane:
                    column = b.mul(b.add(lane, b.i64(v * kernel.lanes)), b.i64(kernel.phases))
                    column = b.add(column, b.i64(phase))
                    with b.if_then(b.icmp_signed("<", column, self.left)):
                        value = b.load(
                            b.at(buffer, b.mul(lane, b.i64(size))),
                            align=size,
                            typ=number(kernel.wide),
                        )
                        place = b.at(y, b.mul(column, b.i64(kernel.result.bytes)))
                        store(b, kernel.result, value, place, 1, half=self.half)
