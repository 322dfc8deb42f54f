"""Lanes over the width: for few channels out, and where the width is what is dense.

A tile is a stretch of one output row: vectors of consecutive columns, for every phase of the width and a
few output channels, kept in registers. Each vector of input is loaded once a tap row and input channel and
meets the broadcast filters of every phase that it reaches; on store the phases are interleaved by
shuffles. Input rows are packed first, ``[depth][height][channel][width]``, with zeros where a row's lanes
reach beyond the input; since 0 * Inf is no 0, this family asks for finite filters. The filters are packed
as ``[block][depth tap][height tap][input channel][width tap][lane]``, a lane here being one output channel
of the block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from convt.kernels.builder import I64, PTR, Builder, Slot, function
from convt.kernels.driver import Fields, Task, View, emit_run, segment, segments, tap
from convt.kernels.elements import Element
from convt.kernels.sums import Runs, accumulate, write_runs
from convt.target import Target

__all__ = ["Rows", "WidthTap"]

Value = Any


@dataclass(frozen=True, slots=True)
class WidthTap:
    """A kernel column as a tile sees it: which phase it adds to, and from which input column."""

    index: int
    phase: int  # of the outputs stride * j + phase
    shift: int  # it reads the input at j + shift


@dataclass(frozen=True, slots=True)
class Rows:
    """A kernel of this family; `name` spells everything that its code depends on."""

    wide: Element  # element type of the sums
    lanes: int  # columns in a vector
    vectors: int  # vectors of columns of one phase in a tile
    channels: int  # output channels in a tile
    tail: int  # output channels in the last block; 0: it is like the others
    kernel: int  # taps of the width
    stride: int
    dilation: int
    pad: int  # the width's padding before, modulo the stride
    source: Element  # element type of the caller's input
    destination: Element | None = None  # element type of an unpacked output; None: written in place
    stream: bool = False  # store past the caches

    family = "rows"
    rows = True

    @property
    def block_channels(self) -> int:
        return self.channels

    @property
    def columns(self) -> int:
        """Columns of one phase in a tile."""
        return self.lanes * self.vectors

    @property
    def taps(self) -> tuple[WidthTap, ...]:
        """The taps of the width, by shift."""
        found = []
        for index in range(self.kernel):
            phase = (self.dilation * index - self.pad) % self.stride
            shift = (phase + self.pad - self.dilation * index) // self.stride
            found.append(WidthTap(index, phase, shift))
        return tuple(sorted(found, key=lambda tap: (tap.shift, tap.phase)))

    @property
    def reach(self) -> tuple[int, int]:
        """The least and the greatest shift."""
        shifts = [tap.shift for tap in self.taps]
        return min(shifts), max(shifts)

    @property
    def name(self) -> str:
        tail = f"t{self.tail}" if self.tail else ""
        tile = f"{self.channels}{tail}x{self.columns}_l{self.lanes}"
        width = f"k{self.kernel}s{self.stride}d{self.dilation}p{self.pad}"
        write = f"_to_{self.destination.name}" if self.destination else ""
        stream = "_stream" if self.stream else ""
        return f"{self.wide.name}_rows_{tile}_{width}_from_{self.source.name}{write}{stream}"

    def emit(self, target: Target) -> str:
        module = ir.Module(self.name)
        emit_run(module, target, self)
        return str(module)

    def compute(
        self,
        b: Builder,
        target: Target,
        fields: Fields,
        task: Task,
        x: View,
        y: View,
        scratch: Value,
    ) -> None:
        """Row by row: the output rows that the same taps reach on depth and height."""
        with b.loop(*task.batch) as n, segments(b, task, "d") as d, segments(b, task, "h") as h:
            box = {
                axis: segment(b, fields, axis, index)
                for axis, index in zip("dh", (d, h), strict=True)
            }
            runs = self._runs(b, fields, x, scratch, box)
            with b.loop(b.int(0), box["d"]["count"]) as i, b.loop(b.int(0), box["h"]["count"]) as j:
                place = {"n": n}
                inputs = {a: b.add(box[a]["in_first"], k) for a, k in zip("dh", (i, j), strict=True)}
                inputs["w"] = task.chunks["w"]["in_first"]
                outputs = {
                    a: b.add(box[a]["out_first"], b.mul(k, fields[f"stride_{a}"]))
                    for a, k in zip("dh", (i, j), strict=True)
                }
                outputs["w"] = task.chunks["w"]["out_first"]
                self._row(
                    b, target, fields, task, runs,
                    x.at(b, **place, **inputs), x.c, y.at(b, **place, **outputs), y.c,
                )  # fmt: skip

    def _runs(
        self,
        b: Builder,
        fields: Fields,
        x: View,
        scratch: Value,
        box: dict[str, dict[str, Value]],
    ) -> Runs:
        """List the pairs of depth and height taps that reach the box, in order."""
        place = b.at(scratch, fields["workspace_runs"])
        with write_runs(b, fields, place) as (add, count):
            with b.loop(box["d"]["tap_first"], box["d"]["tap_end"]) as d:
                with b.loop(box["h"]["tap_first"], box["h"]["tap_end"]) as h:
                    deep, high = tap(b, fields, "d", d), tap(b, fields, "h", h)
                    index = b.add(b.mul(deep["index"], fields["kernel_h"]), high["index"])
                    offset = b.neg(b.dot((deep["shift"], x.d), (high["shift"], x.h)))
                    add(offset, index, x.c)
        return Runs(place, count.get(), fields["flush_runs"])

    def _row(
        self,
        b: Builder,
        target: Target,
        fields: Fields,
        task: Task,
        runs: Runs,
        x: Value,
        x_channel: Value,
        y: Value,
        y_channel: Value,
    ) -> None:
        """Every block of output channels of one row."""
        size = self.wide.bytes
        rows = b.mul(fields["in_channels"], b.mul(fields["kernel_d"], fields["kernel_h"]))
        row_bytes = self.kernel * size
        low, high = task.blocks
        group_filters = b.mul(b.mul(task.group, fields["out_channels"]), b.mul(rows, b.int(row_bytes)))
        filters = b.at(fields.pointer("filters"), group_filters)
        bias = b.at(
            fields.pointer("bias"), b.mul(b.mul(task.group, fields["out_channels"]), b.int(size))
        )
        columns = b.sub(task.chunks["w"]["out_end"], task.chunks["w"]["out_first"])
        last = b.sub(fields["blocks"], b.int(1))
        main_end = b.minimum(high, last) if self.tail else high

        def call(block: Value, channels: int) -> None:
            channel = b.mul(block, b.int(self.channels))
            local = b.mul(b.sub(block, low), b.int(self.channels))
            b.call(
                _emit_row(b.module, target, self, channels),
                [
                    b.at(filters, b.mul(channel, b.mul(rows, b.int(row_bytes)))),
                    b.at(bias, b.mul(channel, b.int(size))),
                    x,
                    x_channel,
                    b.at(y, b.mul(local, y_channel)),
                    y_channel,
                    columns,
                    *runs,
                ],
            )

        with b.loop(low, main_end) as block:
            call(block, self.channels)
        if self.tail:
            with b.if_then(b.icmp_signed("==", high, fields["blocks"])):
                call(last, self.tail)


_ARGUMENTS = [PTR, PTR, PTR, I64, PTR, I64, I64, PTR, I64, I64]


def _emit_row(module: ir.Module, target: Target, kernel: Rows, channels: int) -> ir.Function:
    """``row(filters, bias, x, x_channel, y, y_channel, columns, runs, run_count, group)``: all its tiles."""
    name = f"row_{channels}"
    if name in module.globals:
        return module.globals[name]
    made = function(module, name, _ARGUMENTS)
    b = Builder(made, fma=target.fma)
    columns = made.args[6]
    step = kernel.columns * kernel.stride
    with b.loop(b.int(0), columns, step) as first:
        for phases in phase_groups(kernel, channels, target.registers):
            _Tile(b, kernel, channels, phases, made.args, first).emit()
    b.ret_void()
    return made


def phase_groups(kernel: Rows, channels: int, registers: int) -> list[range]:
    """The phases, in groups whose sums fit the registers together."""
    room = max((registers - 1 - kernel.vectors) // (channels * kernel.vectors), 1)
    return [
        range(first, min(first + room, kernel.stride)) for first in range(0, kernel.stride, room)
    ]


class _Tile:
    """One register tile: some phases of a stretch of columns, for the block's output channels."""

    def __init__(
        self,
        b: Builder,
        kernel: Rows,
        channels: int,
        phases: range,
        arguments: Sequence[Value],
        first: Value,
    ) -> None:
        self.b, self.kernel, self.channels, self.phases = b, kernel, channels, phases
        self.filters, self.bias, x, self.x_channel, y, self.y_channel, columns, *runs = arguments
        self.runs = Runs(*runs)
        size = kernel.wide.bytes
        self.kind = ir.VectorType(kernel.wide.wide, kernel.lanes)
        self.x = b.at(x, b.mul(b.sdiv(first, b.int(kernel.stride)), b.int(size)))
        self.y = b.at(y, b.mul(first, b.int(size)))
        self.left = b.sub(columns, first)  # outputs from this tile's first on
        self.sums = {
            (phase, channel, v): Slot(b, self.kind)
            for phase in phases
            for channel in range(channels)
            for v in range(kernel.vectors)
        }

    def emit(self) -> None:
        zero = self.b.splat_constant(self.kind, 0.0)
        accumulate(self.b, self.runs, list(self.sums.values()), self._run, zero)
        self._add_bias()
        for channel in range(self.channels):
            self._store(channel)

    def _run(self, entry: dict[str, Value]) -> None:
        b, size = self.b, self.kernel.wide.bytes
        width = self.kernel.kernel * self.channels * size
        x = Slot(b, PTR, b.at(self.x, entry["input"]))
        filters = Slot(b, PTR, b.at(self.filters, b.mul(entry["row"], b.int(width))))
        with b.loop(b.int(0), entry["count"]):
            self._products(x.get(), filters.get())
            x.set(b.at(x.get(), self.x_channel))
            filters.set(b.at(filters.get(), b.int(width)))

    def _products(self, x: Value, filters: Value) -> None:
        """One input channel of one row: every tap of the width that reaches these phases."""
        b, kernel, size = self.b, self.kernel, self.kernel.wide.bytes
        taps = [tap for tap in kernel.taps if tap.phase in self.phases]
        least = kernel.reach[0]
        for shift in sorted({tap.shift for tap in taps}):
            place = [(shift - least + v * kernel.lanes) * size for v in range(kernel.vectors)]
            values = [b.load(b.at(x, b.int(p)), align=size, typ=self.kind) for p in place]
            for tap in (tap for tap in taps if tap.shift == shift):
                for channel in range(self.channels):
                    offset = (tap.index * self.channels + channel) * size
                    weight = b.load(b.at(filters, b.int(offset)), align=size, typ=kernel.wide.wide)
                    weight = b.splat(weight, kernel.lanes)
                    for v, value in enumerate(values):
                        total = self.sums[tap.phase, channel, v]
                        total.set(b.multiply_add(value, weight, total.get()))

    def _add_bias(self) -> None:
        b, size = self.b, self.kernel.wide.bytes
        for channel in range(self.channels):
            place = b.at(self.bias, b.int(channel * size))
            value = b.load(place, align=size, typ=self.kernel.wide.wide)
            value = b.splat(value, self.kernel.lanes)
            for (_, of, _), total in self.sums.items():
                if of == channel:
                    total.set(b.fadd(total.get(), value))

    def _store(self, channel: int) -> None:
        """Interleave the phases and store; of the row's last tile only what lies in the row."""
        b, kernel = self.b, self.kernel
        y = b.at(self.y, b.mul(b.int(channel), self.y_channel))
        if len(self.phases) < kernel.stride:
            self._scatter(y, channel)
            return
        vectors = []
        for v in range(kernel.vectors):
            phases = [self.sums[phase, channel, v].get() for phase in self.phases]
            vectors += interleave(b, phases)
        whole = b.icmp_signed(">=", self.left, b.int(kernel.columns * kernel.stride))
        places = [
            b.at(y, b.int(i * kernel.lanes * kernel.wide.bytes)) for i in range(len(vectors))
        ]
        with b.if_else(whole) as (full, part):
            with full:
                for value, place in zip(vectors, places, strict=True):
                    b.put(value, place, stream=kernel.stream)
            with part:
                for i, (value, place) in enumerate(zip(vectors, places, strict=True)):
                    mask = b.below(self.left, kernel.lanes, i * kernel.lanes)
                    b.masked_store(value, place, mask, 1)

    def _scatter(self, y: Value, channel: int) -> None:
        """Store some of many phases, one element at a time."""
        b, kernel, size = self.b, self.kernel, self.kernel.wide.bytes
        buffer = b.stack(self.kind, 1)
        for phase in self.phases:
            for v in range(kernel.vectors):
                b.store(self.sums[phase, channel, v].get(), buffer)
                with b.loop(b.int(0), b.int(kernel.lanes)) as lane:
                    column = b.mul(b.add(lane, b.int(v * kernel.lanes)), b.int(kernel.stride))
                    column = b.add(column, b.int(phase))
                    with b.if_then(b.icmp_signed("<", column, self.left)):
                        value = b.load(
                            b.at(buffer, b.mul(lane, b.int(size))), align=size, typ=kernel.wide.wide
                        )
                        b.store(value, b.at(y, b.mul(column, b.int(size))), align=1)


def interleave(b: Builder, vectors: list[Value]) -> list[Value]:
    """n vectors -> n vectors in which the elements of all alternate, by two-input shuffles."""
    count = len(vectors)
    if count == 1:
        return vectors
    lanes = vectors[0].type.count
    result = []
    for part in range(count):
        wanted = [divmod(part * lanes + lane, count) for lane in range(lanes)]  # (lane, vector)
        value = b.shuffle(
            vectors[0], vectors[1], [lane + lanes * (of == 1) for lane, of in wanted]
        )
        for extra in range(2, count):
            picks = [lanes + lane if of == extra else i for i, (lane, of) in enumerate(wanted)]
            value = b.shuffle(value, vectors[extra], picks)
        result.append(value)
    return result
