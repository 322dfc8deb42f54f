"""Lanes over input channels: for few channels out of many, where channels are dense.

A tile is a stretch of one output row and one output channel: a vector of sums for each of a few columns of
every phase of the width. Each vector of input is loaded once and meets every tap of the width that it
serves in the tile; at the end the lanes of each sum are added, of as many sums at once as there are lanes.
The input is read in place, in any element type. A column beyond the input is read from zeros, which is why
this family asks for finite filters. The filters are packed as ``[output channel][tap][input channel]``.
"""

from __future__ import annotations

from collections.abc import Sequence

from convt.kernels import ir
from convt.kernels.builder import I64, PTR, Builder, Slot, function
from convt.kernels.copy import add_lanes
from convt.kernels.driver import emit_run
from convt.kernels.elements import load, narrow, number
from convt.kernels.ir import Value
from convt.kernels.keys import Dots
from convt.kernels.lines import Lines
from convt.kernels.sums import RUNS, Runs, accumulate
from convt.target import Target

__all__ = ["emit"]

_HELD = 4  # taps whose filters are kept in registers while a tile's columns meet them


def emit(kernel: Dots, target: Target) -> ir.Module:
    """The kernel: row by row, the output rows that the same taps reach on depth and height."""
    return emit_run(target, kernel, _Dots)


class _Dots(Lines[Dots]):
    def compute(self) -> None:
        b, fields = self.b, self.fields
        room = b.mul(fields["run_channels"], b.i64(self.kernel.input.bytes))
        with b.loop(b.i64(0), room, 8) as i:
            b.store(b.i64(0), b.at(self._zeros(), i))
        super().compute()

    def _zeros(self) -> Value:
        return self.b.at(self.scratch, self.fields["workspace_zeros"])

    def first_column(self) -> Value:
        return self.b.mul(self.task.chunks["w"]["in_first"], self.b.i64(self.kernel.parts))

    def tap_rows(self, index: Value) -> Value:
        return self.b.mul(index, self.b.i64(self.kernel.kernel))

    def row(self, runs: Runs, x: Value, y: Value, height: Value) -> None:
        b, fields, kernel = self.b, self.fields, self.kernel
        size = kernel.wide.bytes
        taps = b.mul(b.mul(fields["kernel_d"], fields["kernel_h"]), b.i64(kernel.kernel))
        channel_bytes = b.mul(b.mul(taps, fields["in_channels"]), b.i64(size))
        first = b.mul(self.task.group, fields["out_channels"])
        low, high = self.task.blocks
        width = self.task.chunks["w"]
        columns = b.sub(width["out_end"], width["out_first"])
        row = _emit_row(b.module, self.target, kernel)
        with b.loop(low, high) as channel:
            place = b.add(first, channel)
            arguments = [
                b.at(fields.pointer("filters"), b.mul(place, channel_bytes)),
                b.mul(fields["in_channels"], b.i64(size)),
                b.at(fields.pointer("bias"), b.mul(place, b.i64(size))),
                x,
                self.x.w,
                self.first_column(),
                fields["in_w"],
                self._zeros(),
                b.at(y, b.mul(b.sub(channel, low), self.y.c)),
                columns,
                *runs,
            ]
            b.call(row, arguments)


_ARGUMENTS = [PTR, I64, PTR, PTR, I64, I64, I64, PTR, PTR, I64, *RUNS]


def _emit_row(module: ir.Module, target: Target, kernel: Dots) -> ir.Function:
    """``row(filters, tap, bias, x, x_w, first, width, zeros, y, columns, runs...)``: its tiles."""
    if "row" in module.globals:
        return module.globals["row"]
    made = function(module, "row", _ARGUMENTS)
    b = Builder(made, fma=target.fma)
    with b.loop(b.i64(0), made.args[9], kernel.columns * kernel.phases) as first:
        _Tile(b, kernel, target.half, made.args, first).emit()
    b.ret_void()
    return made


class _Tile:
    """One register tile: some columns of every phase."""

    def __init__(
        self, b: Builder, kernel: Dots, half: bool, arguments: Sequence[Value], first: Value
    ) -> None:
        self.b, self.kernel, self.half = b, kernel, half
        self.filters, self.tap, self.bias, x, x_w, start, width, zeros, y, columns, *runs = (
            arguments
        )
        self.runs = Runs(*runs)
        self.kind = ir.vector(number(kernel.wide), kernel.lanes)
        self.y = b.at(y, b.mul(first, b.i64(kernel.result.bytes)))
        self.left = b.sub(columns, first)  # outputs from this tile's first on
        place = b.mul(b.sdiv(first, b.i64(kernel.phases)), b.i64(kernel.parts))
        within, self.columns = b.add(start, place), {}
        for column in kernel.meetings:
            inside = b.icmp_unsigned("<", b.add(within, b.i64(column)), width)
            here = b.at(x, b.mul(b.add(place, b.i64(column)), x_w))
            self.columns[column] = (inside, here)
        self.zeros = zeros
        self.sums = {
            (phase, place): Slot(b, self.kind)
            for place in range(kernel.columns)
            for phase in range(kernel.phases)
        }

    def emit(self) -> None:
        b, kernel = self.b, self.kernel
        accumulate(b, self.runs, list(self.sums.values()), self._run, ir.constant(self.kind, 0.0))
        size = kernel.wide.bytes
        bias = b.load(self.bias, number(kernel.wide), align=size)
        sums = [total.get() for total in self.sums.values()]
        for first in range(0, len(sums), kernel.lanes):
            some = sums[first : first + kernel.lanes]
            value = b.fadd(add_lanes(b, some), b.splat(bias, kernel.lanes))
            value = narrow(b, kernel.result, value, kernel.lanes, half=self.half)
            place = b.at(self.y, b.i64(first * kernel.result.bytes))
            most = b.minimum(b.sub(self.left, b.i64(first)), b.i64(len(some)))
            b.store_first(value, place, most)

    def _run(self, entry: dict[str, Value]) -> None:
        b, size = self.b, self.kernel.wide.bytes
        filters = b.at(self.filters, b.mul(entry["row"], b.i64(size)))
        taps = [b.at(filters, b.mul(self.tap, b.i64(t))) for t in range(self.kernel.kernel)]
        columns = {
            column: b.select(inside, b.at(here, entry["input"]), self.zeros)
            for column, (inside, here) in self.columns.items()
        }
        with b.loop(b.i64(0), entry["count"], self.kernel.lanes) as channel:
            self._products(columns, taps, channel)

    def _products(self, columns: dict[int, Value], taps: list[Value], channel: Value) -> None:
        """A vector of input channels of every column, times the taps that it meets."""
        b, kernel, size = self.b, self.kernel, self.kernel.wide.bytes
        parts = {key: total.get() for key, total in self.sums.items()}
        offset, inside = (b.mul(channel, b.i64(e.bytes)) for e in (kernel.wide, kernel.input))

        def weight(index: int) -> Value:
            return b.load(b.at(taps[index], offset), self.kind, align=size)

        held = [weight(index) for index in range(kernel.kernel)] if kernel.kernel <= _HELD else None
        for column, meetings in kernel.meetings.items():
            place = b.at(columns[column], inside)
            value = load(b, kernel.input, place, kernel.lanes, half=self.half)
            for met, number_of_column in meetings:
                key = (met.phase, number_of_column)
                against = held[met.index] if held else weight(met.index)
                parts[key] = b.multiply_add(value, against, parts[key])
        for key, total in self.sums.items():
            total.set(parts[key])
