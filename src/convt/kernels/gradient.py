"""The gradient in the filters: for every tap, products of inputs and output gradients, over all positions.

A task is a block of the gradient: a group, some taps, some channels of both sides; or, where the gradient
is small, a part of the positions for such a block, whose sums a second stage adds in the order of the
parts. Position by position would be a matrix product for every tap; its operands are packed a box of
positions at a time, which all taps and channels of the task then read: the inputs of the box, and the
outputs that the taps reach from there, those of equal remainder modulo the stride beside each other, so
that positions follow each other in both slabs. What lies outside the arrays is neither packed nor read: a
tap's list of runs has only the positions that have an output.

A tile keeps its sums in registers over the positions of a box, then adds them to those in memory: a chain
of a few hundred products, as elsewhere. Its lanes are channels of one side, multiplied with elements of the
other side's; or the channels of both, where every group has one in and one out; or, where both sides have
very few channels, positions, which are summed up at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from convt.kernels import ir
from convt.kernels.builder import I1, I64, PTR, Builder, Slot, function
from convt.kernels.copy import emit_copy
from convt.kernels.driver import Fields, View, row, tasks
from convt.kernels.elements import number
from convt.kernels.gradient_record import POSITION, REACH, slot
from convt.kernels.gradient_tile import emit_panel
from convt.kernels.ir import Value
from convt.kernels.keys import Element, FilterGradient
from convt.target import Target

__all__ = ["emit"]

_AXES = ("d", "h", "w")
_STRIDES = ("n", *_AXES, "c")
_ADDED = 4  # vectors that are added at a time


def emit(kernel: FilterGradient, target: Target) -> ir.Module:
    """The kernel: both stages, of which the record names one."""
    module = ir.Module(kernel.name)
    run = ir.Function(module, "run", [PTR, PTR])
    b = Builder(run, fma=target.fma)
    record, scratch = run.args
    stages = [_emit_stage(module, kernel, target, stage) for stage in ("sum", "add")]
    fields = _Fields(b, record)
    with tasks(b, fields) as index:
        summing = b.icmp_signed("==", fields["stage"], b.i64(0))
        with b.if_else(summing) as branches:
            for branch, stage in zip(branches, stages, strict=True):
                with branch:
                    b.call(stage, [record, scratch, index])
    b.ret_void()
    return module


class _Fields(Fields):
    """The record of this kernel."""

    def __getitem__(self, name: str) -> Value:
        return self._b.word(self.record, slot(name))

    def place(self, name: str) -> Value:
        return self._b.at(self.record, self._b.i64(8 * slot(name)))


def _emit_stage(
    module: ir.Module, kernel: FilterGradient, target: Target, stage: str
) -> ir.Function:
    """``stage(record, scratch, index)``: task number `index` of one stage."""
    made = function(module, stage, [PTR, PTR, I64])
    b = Builder(made, fma=target.fma)
    record, scratch, index = made.args
    fields = _Fields(b, record)
    if stage == "sum":
        _emit_sum(b, kernel, target, fields, scratch, index)
    else:
        _emit_add(b, kernel, target, fields, index)
    b.ret_void()
    return made


# --- the two stages -----------------------------------------------------------------------------
def _emit_sum(
    b: Builder, kernel: FilterGradient, target: Target, fields: Fields, scratch: Value, index: Value
) -> None:
    """Sum the positions of one part for one block."""
    parts = fields["parts"]
    part, block = b.srem(index, parts), _block(b, fields, b.sdiv(index, parts))
    alone = b.icmp_signed("==", parts, b.i64(1))
    here = b.at(scratch, fields["workspace_sums"])
    there = b.at(fields.pointer("partial"), b.mul(index, fields["block_bytes"]))
    sums = b.select(alone, here, there)
    kind = ir.vector(number(kernel.wide), kernel.lanes)
    with b.loop(b.i64(0), fields["block_bytes"], kernel.lanes * kernel.wide.bytes) as place:
        b.store(ir.constant(kind, 0.0), b.at(sums, place), align=4)
    boxes = b.i64(1)
    for axis in ("n", *_AXES):
        boxes = b.mul(boxes, fields[f"{axis}_boxes"])
    first = b.mul(part, fields["part_boxes"])
    with b.loop(first, b.minimum(b.add(first, fields["part_boxes"]), boxes)) as number_of_box:
        box = _box(b, fields, number_of_box)
        slabs = _Slabs(b, kernel, target, fields, block, box, scratch)
        slabs.pack()
        panels = _Panels(b, kernel, target, fields, block)
        with _taps(b, kernel, fields, block) as (tap, place):
            panels.add(slabs, tap, b.at(sums, place))
    with b.if_then(alone), _taps(b, kernel, fields, block) as (tap, place):
        _Panels(b, kernel, target, fields, block).unpack(tap, b.at(sums, place))


def _emit_add(
    b: Builder, kernel: FilterGradient, target: Target, fields: Fields, index: Value
) -> None:
    """Add the parts' sums of one tap of one block."""
    size = kernel.lanes * kernel.wide.bytes
    kind = ir.vector(number(kernel.wide), kernel.lanes)
    tap: dict[str, Value] = {}
    rest, step, offset = index, b.i64(1), b.i64(0)
    for axis in reversed(_AXES):
        count = _tap_step(b, kernel, fields, axis)
        tap[axis] = b.srem(rest, count)
        offset = b.add(offset, b.mul(tap[axis], step))
        rest, step = b.sdiv(rest, count), b.mul(step, count)
    block = _block(b, fields, rest)
    inside = ir.constant(I1, 1)
    for axis in _AXES:
        tap[axis] = b.add(block.taps[axis][0], tap[axis])
        inside = b.and_(inside, b.icmp_signed("<", tap[axis], block.taps[axis][1]))
    with b.if_then(inside):
        parts, far = fields["parts"], fields["block_bytes"]
        sums = b.at(fields.pointer("partial"), b.mul(b.mul(rest, parts), far))
        sums = b.at(sums, b.mul(offset, fields["tap_bytes"]))
        with b.loop(b.i64(0), fields["tap_bytes"], _ADDED * size) as first:
            places = [b.at(sums, b.add(first, b.i64(size * i))) for i in range(_ADDED)]
            totals = [Slot(b, kind, b.load(p, align=4, typ=kind)) for p in places]
            with b.loop(b.i64(1), parts) as part:
                for total, place in zip(totals, places, strict=True):
                    more = b.load(b.at(place, b.mul(part, far)), align=4, typ=kind)
                    total.set(b.fadd(total.get(), more))
            for total, place in zip(totals, places, strict=True):
                b.store(total.get(), place, align=4)
        _Panels(b, kernel, target, fields, block).unpack(tap, sums)


# --- what a task covers -------------------------------------------------------------------------
class _Block(NamedTuple):
    """A part of the gradient."""

    group: Value
    rows: tuple[Value, Value]  # the first channel within the group, and how many
    lanes: tuple[Value, Value]
    taps: dict[str, tuple[Value, Value]]  # the first and one past the last


def _block(b: Builder, fields: Fields, index: Value) -> _Block:
    """Block number `index`; the taps of the width vary fastest."""
    taps, channels = {}, {}
    for axis in reversed(_AXES):
        count, step = fields[f"{axis}_blocks"], fields[f"tap_step_{axis}"]
        first = b.mul(b.srem(index, count), step)
        taps[axis] = (first, b.minimum(b.add(first, step), fields[f"kernel_{axis}"]))
        index = b.sdiv(index, count)
    for side in ("row", "lane"):
        count, step = fields[f"{side}_blocks"], fields[f"{side}_step"]
        first = b.mul(b.srem(index, count), step)
        channels[side] = (first, b.minimum(step, b.sub(fields[f"{side}_channels"], first)))
        index = b.sdiv(index, count)
    return _Block(index, channels["row"], channels["lane"], taps)


def _box(b: Builder, fields: Fields, index: Value) -> dict[str, tuple[Value, Value]]:
    """The inputs of box number `index`, from first to one past the last of each axis."""
    box = {}
    for axis in reversed(("n", *_AXES)):
        count, step = fields[f"{axis}_boxes"], fields[f"box_{axis}"]
        first = b.mul(b.srem(index, count), step)
        most = fields["batch"] if axis == "n" else fields[f"in_{axis}"]
        box[axis] = (first, b.minimum(b.add(first, step), most))
        index = b.sdiv(index, count)
    return box


def _tap_step(b: Builder, kernel: FilterGradient, fields: Fields, axis: str) -> Value:
    """Taps of an axis whose sums are apart from each other."""
    return b.i64(1) if kernel.folded and axis == "w" else fields[f"tap_step_{axis}"]


@contextmanager
def _taps(
    b: Builder, kernel: FilterGradient, fields: Fields, block: _Block
) -> Iterator[tuple[dict[str, Value], Value]]:
    """Loop over the taps of a block, of folded ones the first: yields indices and the sums' place."""
    width = block.taps["w"]
    if kernel.folded:
        width = (width[0], b.add(width[0], b.i64(1)))
    with b.loop(*block.taps["d"]) as d, b.loop(*block.taps["h"]) as h, b.loop(*width) as w:
        tap, number_of_tap = {"d": d, "h": h, "w": w}, b.i64(0)
        for axis in _AXES:
            inner = b.sub(tap[axis], block.taps[axis][0])
            step = _tap_step(b, kernel, fields, axis)
            number_of_tap = b.add(b.mul(number_of_tap, step), inner)
        yield tap, b.mul(number_of_tap, fields["tap_bytes"])


# --- slabs --------------------------------------------------------------------------------------
@dataclass
class _Slabs:
    """The inputs of a box and the outputs that a block's taps reach from there."""

    b: Builder
    kernel: FilterGradient
    target: Target
    fields: Fields
    block: _Block
    box: dict[str, tuple[Value, Value]]
    scratch: Value

    def pack(self) -> None:
        """Copy both to the workspace."""
        rows, lanes = self.block.rows, self.block.lanes
        if self.kernel.along == "groups":
            rows = lanes
        into, out = (rows, lanes) if self.kernel.swapped else (lanes, rows)
        self._pack_inputs(*into)
        self._pack_outputs(*out)

    def _caller(self, name: str, channels: str, first: Value) -> View:
        """One of the caller's arrays, from channel `first` of the group on."""
        b, fields = self.b, self.fields
        strides = [fields[f"{name}_{axis}"] for axis in _STRIDES]
        channel = b.add(b.mul(self.block.group, fields[channels]), first)
        return View(b.at(fields.pointer(name), b.mul(channel, strides[-1])), *strides)

    def _slab(self, name: str) -> View:
        fields = self.fields
        base = self.b.at(self.scratch, fields[f"workspace_{name}"])
        return View(base, *(fields[f"{name}s_{axis}"] for axis in _STRIDES))

    def _copy(
        self,
        element: Element,
        source: tuple[Value, Value, Value],
        slab: tuple[Value, Value, Value],
        columns: Value,
        channels: Value,
    ) -> None:
        """Copy a row; both sides have its place, and strides along columns and channels."""
        b, wide = self.b, self.kernel.wide
        copy = emit_copy(b.module, self.target, element, wide)
        # Dense on both sides, all is one line.
        dense = ir.constant(I1, 1)
        for side, size in ((source, element.bytes), (slab, wide.bytes)):
            line = b.mul(channels, b.i64(size))
            dense = b.and_(dense, b.icmp_signed("==", side[1], line))
            dense = b.and_(dense, b.icmp_signed("==", side[2], b.i64(size)))
        one, whole = b.select(dense, b.i64(1), columns), b.mul(columns, channels)
        b.call(copy, [*source, *slab, one, b.select(dense, whole, channels)])

    def _pack_inputs(self, first: Value, channels: Value) -> None:
        b = self.b
        source, slab = self._caller("x", "in_channels", first), self._slab("x")
        (n0, n1), (d0, d1), (h0, h1), (w0, w1) = (self.box[axis] for axis in ("n", *_AXES))
        with b.loop(n0, n1) as n, b.loop(d0, d1) as d, b.loop(h0, h1) as h:
            place = slab.at(b, n=b.sub(n, n0), d=b.sub(d, d0), h=b.sub(h, h0))
            line = source.at(b, n=n, d=d, h=h, w=w0)
            self._copy(
                self.kernel.source,
                (line, source.w, source.c),
                (place, slab.w, slab.c),
                b.sub(w1, w0),
                channels,
            )

    def _pack_outputs(self, first: Value, channels: Value) -> None:
        b = self.b
        source, slab = self._caller("g", "out_channels", first), self._slab("g")
        n0, n1 = self.box["n"]
        with b.loop(n0, n1) as n, self._lines("d") as d, self._lines("h") as h:
            place = b.at(slab.at(b, n=b.sub(n, n0)), b.add(d[1], h[1]))
            line = source._replace(base=source.at(b, n=n, d=d[0], h=h[0]))
            if self.kernel.along == "positions":
                self._part_row(line, slab._replace(base=place), channels)
            else:
                self._pack_row(line, slab._replace(base=place), channels)

    def _pack_row(self, line: View, slab: View, channels: Value) -> None:
        """Copy a row of outputs, remainder by remainder."""
        b, step = self.b, self.fields["modulus_w"]
        with self._phases("w") as (phase, start, low, high):
            index = b.add(start, b.mul(step, low))
            offset = b.dot((phase, self.fields["phase_w"]), (low, slab.w))
            self._copy(
                self.kernel.gradient,
                (line.at(b, w=index), b.mul(step, line.w), line.c),
                (b.at(slab.base, offset), slab.w, slab.c),
                b.sub(high, low),
                channels,
            )
            if self.kernel.folded:  # all positions of a row are in the slab's one phase
                self._clear(slab.base, low, high, slab.w)

    def _clear(self, line: Value, low: Value, high: Value, step: Value) -> None:
        """Make zero what lies beyond the outputs, before place `low` and from `high` on."""
        b = self.b
        places = b.sdiv(self.fields["phase_w"], self.fields["gs_w"])
        for first, end in ((b.i64(0), low), (high, b.mul(places, self.fields["modulus_w"]))):
            size = b.mul(b.sub(end, first), step)
            with b.loop(b.i64(0), size, self.kernel.wide.bytes) as place:
                zero = ir.constant(number(self.kernel.wide), 0.0)
                b.store(zero, b.at(line, b.add(b.mul(first, step), place)))

    def _part_row(self, line: View, slab: View, channels: Value) -> None:
        """Copy a row of outputs as it is, then part its channels by remainders, vector by vector."""
        b, fields, wide = self.b, self.fields, self.kernel.wide
        size, step = b.i64(wide.bytes), fields["modulus_w"]
        base, span, extent = self._extent("w")
        low = b.maximum(b.sub(b.i64(0), base), b.i64(0))
        extent = b.maximum(extent, low)
        place, pitch = b.at(self.scratch, fields["workspace_line"]), fields["line_bytes"]
        self._copy(
            self.kernel.gradient,
            (line.at(b, w=b.add(base, low)), line.w, line.c),
            (b.at(place, b.mul(low, size)), size, pitch),
            b.sub(extent, low),
            channels,
        )
        if self.kernel.folded:
            with b.loop(b.i64(0), channels) as c:
                self._clear(b.at(place, b.mul(c, pitch)), low, extent, size)
        copy = emit_copy(b.module, self.target, wide, wide)
        count = [b.minimum(step, span), b.sdiv(fields["phase_w"], size)]
        with b.loop(b.i64(0), channels) as c:
            there = b.at(slab.base, b.mul(c, slab.c))
            here = b.at(place, b.mul(c, pitch))
            b.call(copy, [here, size, b.mul(step, size), there, fields["phase_w"], size, *count])

    def _extent(self, axis: str) -> tuple[Value, Value, Value]:
        """The output of a row's place 0, how many a position reaches, and how many there are."""
        b, fields = self.b, self.fields
        (t0, t1), (i0, i1) = self.block.taps[axis], self.box[axis]
        stride, dilation = fields[f"stride_{axis}"], fields[f"dilation_{axis}"]
        base = b.sub(b.dot((stride, i0), (dilation, t0)), fields[f"pad_{axis}"])
        span = b.add(b.mul(dilation, b.sub(b.sub(t1, t0), b.i64(1))), b.i64(1))
        extent = b.add(b.mul(stride, b.sub(b.sub(i1, i0), b.i64(1))), span)
        return base, span, b.minimum(extent, b.sub(fields[f"out_{axis}"], base))

    @contextmanager
    def _phases(self, axis: str) -> Iterator[tuple[Value, Value, Value, Value]]:
        """Loop over the remainders of an axis.

        Yields the remainder, the output of its place 0, and the first and one past the last of its
        places whose outputs there are and some tap may reach.
        """
        b, fields = self.b, self.fields
        modulus = fields[f"modulus_{axis}"]
        base, span, extent = self._extent(axis)
        with b.loop(b.i64(0), b.minimum(modulus, span)) as phase:
            start = b.add(base, phase)
            low = self._quotient(b.sub(b.i64(0), start), modulus)
            high = self._quotient(b.sub(extent, phase), modulus)
            yield phase, start, low, b.maximum(low, high)

    @contextmanager
    def _lines(self, axis: str) -> Iterator[tuple[Value, Value]]:
        """Loop over the outputs of an axis: yields their index, and their offset in the slab."""
        b, fields = self.b, self.fields
        with self._phases(axis) as (phase, start, low, high), b.loop(low, high) as place:
            offset = b.dot((phase, fields[f"phase_{axis}"]), (place, fields[f"gs_{axis}"]))
            yield b.add(start, b.mul(place, fields[f"modulus_{axis}"])), offset

    def _quotient(self, value: Value, divisor: Value) -> Value:
        """``ceil(value / divisor)``, 0 for less."""
        b = self.b
        return b.sdiv(b.add(b.maximum(value, b.i64(0)), b.sub(divisor, b.i64(1))), divisor)

    # --- positions ----------------------------------------------------------------------------
    def list_positions(self, tap: dict[str, Value]) -> Value:
        """List the positions of a tap, or of all folded taps, and return their number.

        Where lanes are positions, runs are listed.
        """
        b = self.b
        x, g = self._slab("x"), self._slab("g")
        offset, steps = self._reached(tap, g)
        spans = {axis: self._span(axis, tap) for axis in _AXES} | {"n": self.box["n"]}
        count = Slot(b, I64, b.i64(0))
        length = b.sub(spans["w"][1], spans["w"][0])
        with b.if_then(b.icmp_signed(">", length, b.i64(0))):
            loops = (b.loop(*spans[axis]) for axis in ("n", "d", "h"))
            with next(loops) as n, next(loops) as d, next(loops) as h:
                index = {"n": n, "d": d, "h": h, "w": spans["w"][0]}
                from_first = {a: b.sub(i, self.box[a][0]) for a, i in index.items()}
                here = x.at(b, **from_first)
                there = b.dot(*((i, steps[a]) for a, i in from_first.items()))
                there = b.at(g.base, b.add(offset, there))
                lane, line = (there, here) if self.kernel.swapped else (here, there)
                if self.kernel.along == "positions":
                    self._enter(count.get(), lane, line, length)
                    count.add(b.i64(1))
                else:
                    self._enter_each(count.get(), lane, line, length)
                    count.add(length)
        return count.get()

    def _span(self, axis: str, tap: dict[str, Value]) -> tuple[Value, Value]:
        """The inputs of the box for which a tap has an output, or some folded tap."""
        b, fields, (first, end) = self.b, self.fields, self.box[axis]
        if self.kernel.folded and axis == "w":
            reach = {which: fields[f"folded_{which}"] for which in REACH}
        else:
            reach = row(b, fields.pointer(f"reach_{axis}"), tap[axis], REACH)
        return b.maximum(first, reach["first"]), b.minimum(end, reach["end"])

    def _reached(self, tap: dict[str, Value], g: View) -> tuple[Value, dict[str, Value]]:
        """What a tap reaches from the box's first position, and the steps from position to position."""
        b, fields = self.b, self.fields
        offset, steps = b.i64(0), {"n": g.n}
        for axis in _AXES:
            modulus, near = fields[f"modulus_{axis}"], fields[f"gs_{axis}"]
            place = b.sub(tap[axis], self.block.taps[axis][0])
            place = b.mul(fields[f"dilation_{axis}"], place)
            phase, place = b.srem(place, modulus), b.sdiv(place, modulus)
            offset = b.add(offset, b.dot((phase, fields[f"phase_{axis}"]), (place, near)))
            steps[axis] = b.mul(b.sdiv(fields[f"stride_{axis}"], modulus), near)
        return offset, steps

    def listed(self) -> Value:
        """Where the list is."""
        return self.b.at(self.scratch, self.fields["workspace_runs"])

    def _entry(self, index: Value, columns: int) -> Value:
        return self.b.at(self.listed(), self.b.mul(index, self.b.i64(8 * columns)))

    def _enter(self, index: Value, *values: Value) -> None:
        place = self._entry(index, len(values))
        for column, value in enumerate(values):
            self.b.store(value, self.b.at(place, self.b.i64(8 * column)), align=8)

    def _enter_each(self, index: Value, lane: Value, line: Value, length: Value) -> None:
        """Enter every position of a row."""
        b = self.b
        entry = Slot(b, PTR, self._entry(index, len(POSITION)))
        end = b.at(entry.get(), b.mul(length, b.i64(8 * len(POSITION))))
        first = [b.ptrtoint(place, I64) for place in (lane, line)]
        steps = _pair(b, *_column_steps(b, self.kernel, self.fields))
        both = Slot(b, steps.type, _pair(b, *first))
        with b.repeat(lambda: b.icmp_unsigned("<", entry.get(), end)):
            b.store(both.get(), entry.get(), align=8)
            both.add(steps)
            entry.set(b.at(entry.get(), b.i64(8 * len(POSITION))))


def _pair(b: Builder, one: Value, other: Value) -> Value:
    """A vector of two integers."""
    first = b.insert_element(ir.undefined(ir.vector(I64, 2)), one, 0)
    return b.insert_element(first, other, 1)


def _column_steps(b: Builder, kernel: FilterGradient, fields: Fields) -> tuple[Value, Value]:
    """From one position of a row to the next, in the slabs of lanes and of rows."""
    x = fields["xs_w"]
    g = b.mul(b.sdiv(fields["stride_w"], fields["modulus_w"]), fields["gs_w"])
    return (g, x) if kernel.swapped else (x, g)


# --- panels -------------------------------------------------------------------------------------
@dataclass
class _Panels:
    """The sums of a block, panel by panel."""

    b: Builder
    kernel: FilterGradient
    target: Target
    fields: Fields
    block: _Block

    def add(self, slabs: _Slabs, tap: dict[str, Value], sums: Value) -> None:
        """Add the products of a tap, or of all folded taps, to their sums."""
        b, kernel, fields = self.b, self.kernel, self.fields
        rows = self.block.rows[1]
        if kernel.folded:
            rows = b.mul(rows, fields["tap_step_w"])
        count = slabs.list_positions(tap)
        lane_step = fields["gs_c" if kernel.swapped else "xs_c"]
        table = fields.pointer("row_offsets")
        with b.if_then(b.icmp_signed(">", count, b.i64(0))), self._each() as (first, left, place):

            def call(vectors: int) -> None:
                panel = emit_panel(b.module, self.target, kernel, vectors)
                lanes, there = b.mul(first, lane_step), b.at(sums, place)
                b.call(panel, [slabs.listed(), count, lanes, there, rows, lane_step, table])

            with b.if_else(b.icmp_signed("<=", left, self._narrow())) as (narrow, whole):
                with narrow:
                    call(kernel.tail or kernel.vectors)
                with whole:
                    call(kernel.vectors)

    @contextmanager
    def _each(self) -> Iterator[tuple[Value, Value, Value]]:
        """Loop over the panels: yields the first lane, how many are left, and the sums' offset."""
        b, (_, lanes) = self.b, self.block.lanes
        lane_bytes = b.mul(self.fields["panel_rows"], b.i64(self.kernel.wide.bytes))
        with b.loop(b.i64(0), lanes, self.kernel.panel) as first:
            yield first, b.sub(lanes, first), b.mul(first, lane_bytes)

    def _narrow(self) -> Value:
        """Lanes of the last panel, if it is narrower than the others."""
        return self.b.i64(self.kernel.tail * self.kernel.panel // self.kernel.vectors)

    def unpack(self, tap: dict[str, Value], sums: Value) -> None:
        """Round the sums of a tap, or of all folded taps, and store them in the caller's array."""
        if not self.kernel.folded:
            self._unpack(tap, self.b.i64(0), sums)
            return
        b, (low, high) = self.b, self.block.taps["w"]
        with b.loop(low, high) as w:
            self._unpack({**tap, "w": w}, b.mul(b.sub(w, low), self.block.rows[1]), sums)

    def _unpack(self, tap: dict[str, Value], first_row: Value, sums: Value) -> None:
        b, kernel, fields, block = self.b, self.kernel, self.fields, self.block
        size = b.i64(kernel.wide.bytes)
        copy = emit_copy(b.module, self.target, kernel.wide, kernel.result)
        pairs = [(tap[axis], fields[f"y_{axis}"]) for axis in _AXES]
        pairs += [(block.group, fields["y_group"])]
        pairs += [(block.rows[0], fields["y_row"]), (block.lanes[0], fields["y_lane"])]
        place = b.at(fields.pointer("y"), b.dot(*pairs))
        with self._each() as (first, left, offset):
            width = b.i64(kernel.panel)
            if kernel.tail:
                narrow = self._narrow()
                width = b.select(b.icmp_signed("<=", left, narrow), narrow, width)
            line = b.mul(width, size)
            source = b.at(sums, b.add(offset, b.mul(first_row, line)))
            there = b.at(place, b.mul(first, fields["y_lane"]))
            steps = [fields["y_row"], fields["y_lane"]]
            count = [block.rows[1], b.minimum(left, width)]
            b.call(copy, [source, line, size, there, *steps, *count])
