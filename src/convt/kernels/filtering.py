"""Minimal filtering: fewer products than the definition's, for many channels on both sides.

Every phase is a small dense correlation. Its outputs are cut into tiles of m_d x m_h x m_w; the inputs
that a tile reads are taken to points (kernels/points.py), multiplied with filters at the same points,
summed over input channels, and taken back. The sums of a point over many tiles are a matrix product,
which kernels/products.py computes. A block of tiles stays in the caches between the three steps. Tiles are
anchored to the output's coordinates, so a result does not depend on how the outputs are cut into tasks.

An Inf or NaN spreads over its tile at the points. So every output is looked at, and a tile with one that is
not finite is computed anew by the definition's own products.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial, reduce
from math import prod
from typing import Any

from convt.kernels import ir
from convt.kernels.builder import I1, I64, PTR, Builder, Slot, function
from convt.kernels.channels import emit_block
from convt.kernels.driver import Fields, Share, each_block, emit_run, row, tap, task_channels
from convt.kernels.elements import number
from convt.kernels.ir import Value
from convt.kernels.keys import Filtering
from convt.kernels.points import Key, Shape, apply, box, cases, phase, shapes
from convt.kernels.products import emit_products
from convt.kernels.sums import RunList, Runs
from convt.target import Target

__all__ = ["emit"]

_TILE = ("n", "d", "h", "w")  # a row of the list of tiles


def emit(kernel: Filtering, target: Target) -> ir.Module:
    """The kernel: phase by phase, and a block of tiles at a time."""
    return emit_run(target, kernel, _Tiles)


@dataclass
class _Tiles(Share[Filtering]):
    def compute(self) -> None:
        b, fields = self.b, self.fields
        self.clear()
        high, wide = (fields[f"phase_count_{axis}"] for axis in "hw")
        with b.loop(*self.task.phases) as place:
            rows = b.sdiv(place, wide)
            d, h, w = b.sdiv(rows, high), b.srem(rows, high), b.srem(place, wide)
            index = zip("dhw", (d, h, w), strict=True)
            phases = {axis: phase(b, fields, axis, i) for axis, i in index}
            base = b.word(b.at(fields.pointer("bases"), b.mul(place, b.i64(8))), 0)
            filters = b.at(fields.pointer("transformed"), base)
            self.phase(phases, filters, (d, h, w), place)

    def __post_init__(self) -> None:
        b, fields, kernel = self.b, self.fields, self.kernel
        size, lanes = kernel.wide.bytes, kernel.lanes
        self.channels, self.packed = fields["in_channels"], fields["packed_lanes"]
        padded = b.and_(b.add(self.channels, b.i64(lanes - 1)), b.i64(-lanes))
        self.first, self.count = task_channels(b, fields, kernel, self.task)
        self.in_bytes, self.out_bytes = (b.mul(c, b.i64(size)) for c in (padded, self.packed))
        self.points, self.sums, self.zeros, self.tiles = (
            b.at(self.scratch, fields[f"workspace_{part}"])
            for part in ("points", "sums", "zeros", "tiles")
        )

    def clear(self) -> None:
        """What lies beyond the input reads as zeros."""
        b = self.b
        end = b.maximum(self.in_bytes, self.out_bytes)
        kind = ir.vector(number(self.kernel.wide), self.kernel.lanes)
        with b.loop(b.i64(0), end, self.kernel.lanes * self.kernel.wide.bytes) as offset:
            b.store(ir.constant(kind, 0.0), b.at(self.zeros, offset), align=4)

    def phase(
        self,
        phases: dict[str, dict[str, Value]],
        filters: Value,
        index: tuple[Value, Value, Value],
        number_: Value,
    ) -> None:
        """All tiles of one phase, or what one part of the input, number `number_`, adds to them."""
        b, fields = self.b, self.fields
        firsts, counts = [self.task.batch[0]], [b.sub(self.task.batch[1], self.task.batch[0])]
        for axis in "dhw":
            step = b.mul(fields[f"pitch_{axis}"], phases[axis]["tile"])
            chunk = self.task.chunks[axis]
            outputs = b.sub(chunk["out_end"], b.add(chunk["out_first"], phases[axis]["out_first"]))
            tiles = b.sdiv(b.add(outputs, b.sub(step, b.i64(1))), step)
            firsts.append(b.sdiv(chunk["out_first"], step))
            counts.append(b.maximum(tiles, b.i64(0)))
        total = reduce(b.mul, counts)
        points = reduce(b.mul, [phases[axis]["points"] for axis in "dhw"])
        block = fields["tile_block"]
        in_point, out_point = b.mul(block, self.in_bytes), b.mul(block, self.out_bytes)
        with b.loop(b.i64(0), total, block) as first:
            here = b.minimum(block, b.sub(total, first))
            self._list_tiles(firsts, counts, first, here)
            with b.loop(b.i64(0), here) as i:
                self._enter(phases, i, in_point)
            with b.loop(b.i64(0), points) as point:
                self._multiply(filters, point, in_point, out_point, here)
            with b.loop(b.i64(0), here) as i:
                self._leave(phases, i, out_point, index, number_)

    # --- lists --------------------------------------------------------------------------------
    def _list_tiles(
        self, firsts: list[Value], counts: list[Value], first: Value, here: Value
    ) -> None:
        """List the tiles from number `first` on."""
        b = self.b
        with b.loop(b.i64(0), here) as i:
            rest, place = b.add(first, i), b.at(self.tiles, b.mul(i, b.i64(8 * len(_TILE))))
            for k in reversed(range(4)):
                value = b.add(firsts[k], b.srem(rest, counts[k]))
                rest = b.sdiv(rest, counts[k])
                b.store(value, b.at(place, b.i64(8 * k)), align=8)

    def _tile(self, i: Value) -> dict[str, Value]:
        return row(self.b, self.tiles, i, _TILE)

    # --- to the points ------------------------------------------------------------------------
    def _enter(self, phases: dict[str, dict[str, Value]], i: Value, in_point: Value) -> None:
        """List where a tile's inputs are, and take them to the points."""
        b = self.b
        tile = self._tile(i)
        table = b.stack(PTR, max(prod(t.points for t in shape) for shape in shapes(self.kernel)))
        place = Slot(b, PTR, table)
        origin, inside = self.x.at(b, n=tile["n"]), ir.constant(I1, 1)
        with (
            self._reads(phases, tile, "d", origin, inside) as deep,
            self._reads(phases, tile, "h", *deep) as high,
            self._reads(phases, tile, "w", *high) as (here, within),
        ):
            b.store(b.select(within, here, self.zeros), place.get(), align=8)
            place.set(b.at(place.get(), b.i64(8)))
        arguments = [table, b.at(self.points, b.mul(i, self.in_bytes)), in_point, self.channels]
        for shape, chosen in cases(b, self.kernel, phases):
            with b.if_then(chosen):
                b.call(_emit_enter(b.module, self.target, self.kernel, shape), arguments)

    @contextmanager
    def _reads(
        self,
        phases: dict[str, dict[str, Value]],
        tile: dict[str, Value],
        axis: str,
        place: Value,
        inside: Value,
    ) -> Iterator[tuple[Value, Value]]:
        """Loop over what a tile reads along an axis: where it is, and whether that is in the input."""
        b, phase_ = self.b, phases[axis]
        step, size = self.fields[f"step_{axis}"], self.fields[f"in_{axis}"]
        first = b.add(b.mul(tile[axis], phase_["tile"]), phase_["in_first"])
        first = b.add(b.mul(first, step), phase_["part"])
        with b.loop(b.i64(0), phase_["points"]) as k:
            position = b.add(first, b.mul(k, step))
            within = b.and_(inside, b.icmp_unsigned("<", position, size))  # a negative one is huge
            yield b.at(place, b.mul(position, getattr(self.x, axis))), within

    def _multiply(
        self, filters: Value, point: Value, in_point: Value, out_point: Value, here: Value
    ) -> None:
        """The sums of one point over the input channels, for the listed tiles."""
        b, kernel = self.b, self.kernel
        size = kernel.wide.bytes
        channel_bytes = b.mul(self.channels, b.i64(size))
        filters = b.at(filters, b.mul(point, b.mul(self.packed, channel_bytes)))
        inputs = b.at(self.points, b.mul(point, in_point))
        sums = b.at(self.sums, b.mul(point, out_point))

        def call(block: Value, vectors: int) -> None:
            channel = b.mul(block, b.i64(kernel.block_channels))
            arguments = [b.at(filters, b.mul(channel, channel_bytes)), inputs]
            arguments += [b.at(sums, b.mul(channel, b.i64(size))), here]
            arguments += [self.in_bytes, self.out_bytes, self.channels]
            arguments.append(self.fields["run_channels"])
            b.call(emit_products(b.module, self.target, kernel.products, vectors), arguments)

        products = kernel.products
        each_block(b, self.fields, self.task.blocks, products.vectors, products.tail, call)

    # --- and back -----------------------------------------------------------------------------
    def _leave(
        self,
        phases: dict[str, dict[str, Value]],
        i: Value,
        out_point: Value,
        index: tuple[Value, Value, Value],
        number_: Value,
    ) -> None:
        """Take a tile's sums back from the points, add the bias, store; mend what is not finite."""
        b, fields = self.b, self.fields
        tile = self._tile(i)
        place, valid, steps = {"n": tile["n"]}, [], []
        for axis in "dhw":
            stride = fields[f"pitch_{axis}"]
            first = b.mul(b.mul(tile[axis], phases[axis]["tile"]), stride)
            place[axis] = b.add(first, phases[axis]["out_first"])
            left = b.sub(self.task.chunks[axis]["out_end"], place[axis])
            left = b.sdiv(b.add(left, b.sub(stride, b.i64(1))), stride)
            valid.append(b.minimum(left, phases[axis]["tile"]))
            steps.append(b.mul(stride, getattr(self.y, axis)))
        y = self.y.at(b, **place)
        offset = b.mul(self.first, b.i64(self.kernel.wide.bytes))
        sums = b.at(self.sums, b.add(b.mul(i, self.out_bytes), offset))
        spoilt = b.stack(I64)
        arguments = [sums, out_point, y, *steps, *valid, self.count]
        arguments += [b.at(fields.pointer("bias"), offset), spoilt]
        for shape, chosen in cases(b, self.kernel, phases):
            with b.if_then(chosen):
                self._call_leave(shape, arguments, number_)
        mend = b.icmp_signed("!=", b.read(spoilt), b.i64(0))
        if self.kernel.accumulate:  # what one part spoilt, the sum of all shows
            last = b.i64(1)
            for axis in "dhw":
                last = b.mul(last, fields[f"phase_count_{axis}"])
            mend = b.and_(mend, b.icmp_signed("==", number_, b.sub(last, b.i64(1))))
        with b.if_then(mend):
            middles = []
            for axis in "dhw":
                first = b.mul(tile[axis], phases[axis]["tile"])
                middles.append(b.add(first, phases[axis]["middle"]))
            x = self.x.at(b, n=tile["n"])
            strides = [self.x.d, self.x.h, self.x.w, self.x.c]
            arguments = [self.fields.record, self.scratch, x, *strides, y, *steps, *valid]
            arguments += [*middles, *index, *self.task.blocks]
            b.call(_emit_redo(b.module, self.target, self.kernel), arguments)

    def _call_leave(self, shape: Shape, arguments: list[Value], number_: Value) -> None:
        """Store the outputs of a phase; of parts of the input, the first stores and others add."""
        b, kernel = self.b, self.kernel
        first, more = (
            _emit_leave(b.module, self.target, kernel, shape, more=more)
            for more in (False, kernel.accumulate)
        )
        if not kernel.accumulate:
            b.call(first, arguments)
            return
        with b.if_else(b.icmp_signed("==", number_, b.i64(0))) as (stores, adds):
            with stores:
                b.call(first, arguments)
            with adds:
                b.call(more, arguments)


def _emit_enter(module: ir.Module, target: Target, kernel: Filtering, shape: Shape) -> ir.Function:
    """``enter(table, points, point_bytes, channels)``: inputs of one tile to the points."""
    name = "enter_" + "_".join(f"{t.outputs}{t.taps}" for t in shape)
    if name in module.globals:
        return module.globals[name]
    made = function(module, name, [PTR, PTR, I64, I64])
    b = Builder(made, fma=target.fma)
    table, points, point_bytes, channels = made.args
    kind = ir.vector(number(kernel.wide), kernel.lanes)
    size = kernel.wide.bytes
    keys = box(*(t.points for t in shape))
    with b.loop(b.i64(0), channels, kernel.lanes) as channel:
        # The last vector overlaps the one before, so that nothing beyond the channels is read.
        offset = b.mul(b.minimum(channel, b.sub(channels, b.i64(kernel.lanes))), b.i64(size))

        def read(key: Key, offset: Value = offset) -> Value:
            place = b.read(b.at(table, b.i64(8 * keys.index(key))), PTR)
            return b.load(b.at(place, offset), align=1, typ=kind)

        found = apply(b, (shape[0].input, shape[1].input, shape[2].input), read)
        place = b.at(points, offset)
        for key in keys:
            b.store(found[key], place, align=1)
            place = b.at(place, point_bytes)
    b.ret_void()
    return made


def _emit_leave(
    module: ir.Module, target: Target, kernel: Filtering, shape: Shape, *, more: bool
) -> ir.Function:
    """``leave(sums, point_bytes, y, steps x 3, valid x 3, channels, bias, spoilt)``: one tile's outputs.

    With `more`, they are added to what is there.
    """
    name = ("more_" if more else "leave_") + "_".join(f"{t.outputs}{t.taps}" for t in shape)
    if name in module.globals:
        return module.globals[name]
    made = function(module, name, [PTR, I64, PTR, *[I64] * 7, PTR, PTR])
    b = Builder(made, fma=target.fma)
    sums, point_bytes, y, *rest = made.args
    steps, valid, (channels, bias, spoilt) = rest[:3], rest[3:6], rest[6:]
    kind = ir.vector(number(kernel.wide), kernel.lanes)
    size, lanes = kernel.wide.bytes, kernel.lanes
    keys = box(*(t.points for t in shape))
    outputs = box(*(t.outputs for t in shape))
    pairs = zip(valid, shape, strict=True)
    whole = reduce(b.and_, [b.icmp_signed("==", n, b.i64(t.outputs)) for n, t in pairs])
    zero = ir.constant(kind, 0.0)
    seen = Slot(b, kind, zero)
    with b.loop(b.i64(0), channels, lanes) as channel:
        first = b.minimum(channel, b.sub(channels, b.i64(lanes)))
        again = b.below(b.sub(channel, first), lanes, item=size)  # lanes that were stored before
        offset = b.mul(first, b.i64(size))
        at_points = partial(_at_points, b, b.at(sums, offset), point_bytes, keys, kind)
        found = apply(b, (shape[0].output, shape[1].output, shape[2].output), at_points)
        if not more:
            shift = b.load(b.at(bias, offset), align=1, typ=kind)
            total = seen.get()
            for key in outputs:
                found[key] = b.fadd(found[key], shift)
                total = b.multiply_add(found[key], zero, total)  # NaN once one is not finite
            seen.set(total)
        target_ = b.at(y, offset)
        for key in outputs:
            place = b.at(target_, b.dot(*((b.i64(k), s) for k, s in zip(key, steps, strict=True))))
            with b.if_then(_inside(b, key, valid, whole)):
                value = found[key]
                if more:
                    value = b.select(again, ir.constant(kind, -0.0), value)
                    value = b.fadd(value, b.load(place, align=1, typ=kind))
                    seen.set(b.multiply_add(value, zero, seen.get()))
                b.store(value, place, align=1)
    _mark(b, seen.get(), spoilt)
    b.ret_void()
    return made


def _at_points(
    b: Builder, sums: Value, point_bytes: Value, keys: list[Key], kind: ir.Type, key: Key
) -> Value:
    """The sums at one point."""
    place = b.at(sums, b.mul(point_bytes, b.i64(keys.index(key))))
    return b.load(place, align=1, typ=kind)


def _mark(b: Builder, seen: Value, spoilt: Value) -> None:
    """Store 1 if a lane of `seen` is NaN, else 0."""
    lanes = ir.integer(seen.type.count)
    bad = b.bitcast(b.unordered(seen, seen), lanes)
    bad = b.icmp_unsigned("!=", bad, ir.constant(lanes, 0))
    b.store(b.zext(bad, I64), spoilt, align=8)


def _inside(b: Builder, key: tuple[int, ...], valid: list[Value], whole: Value) -> Value:
    """Whether an output of a tile is one: all are, or it lies below the counts."""
    inside = b.icmp_signed("<", b.i64(key[0]), valid[0])
    for k, count in zip(key[1:], valid[1:], strict=True):
        inside = b.and_(inside, b.icmp_signed("<", b.i64(k), count))
    return b.or_(whole, inside)


def _emit_redo(module: ir.Module, target: Target, kernel: Filtering) -> ir.Function:
    """``redo(record, scratch, x, x_strides, y, steps, valid, middles, phases, low, high)``.

    The outputs of one tile in the blocks of channels from `low` to `high`, each by the products that the
    definition asks for.
    """
    if "redo" in module.globals:
        return module.globals["redo"]
    made = function(module, "redo", [PTR, PTR, PTR, *[I64] * 4, PTR, *[I64] * 14])
    b = Builder(made, fma=target.fma)
    record, scratch, x, *rest = made.args
    strides, y, rest = rest[:4], rest[4], rest[5:]
    steps, valid, middles, index, blocks = (rest[k : k + 3] for k in range(0, 15, 3))
    fields = Fields(b, record)
    phases = {a: phase(b, fields, a, i) for a, i in zip("dhw", index, strict=True)}
    table = b.stack(PTR, 2)
    loops = [b.loop(b.i64(0), count) for count in valid]
    with loops[0] as i, loops[1] as j, loops[2] as k:
        here = (i, j, k)
        listed = RunList(b, fields, scratch, strides[3], "redo")
        places = [b.add(m, v) for m, v in zip(middles, here, strict=True)]
        _list_taps(b, fields, phases, places, strides, listed, every=kernel.accumulate)
        b.store(x, table, align=8)
        target_ = b.at(y, b.dot(*zip(here, steps, strict=True)))
        b.store(target_, b.at(table, b.i64(8)), align=8)
        _redo_blocks(b, target, kernel, fields, listed.runs(), table, (blocks[0], blocks[1]))
    b.ret_void()
    return made


def _list_taps(
    b: Builder,
    fields: Fields,
    phases: dict[str, dict[str, Value]],
    places: list[Value],
    strides: list[Value],
    listed: RunList,
    *,
    every: bool,
) -> None:
    """List the taps that meet an input, for one output: those of its phase, or of every part."""

    def taps(axis: str) -> Any:
        if every:
            return b.loop(b.i64(0), fields[f"kernel_{axis}"])
        return b.loop(phases[axis]["tap_first"], phases[axis]["tap_end"])

    with taps("d") as d, taps("h") as h, taps("w") as w:
        index, offset, inside = b.i64(0), b.i64(0), ir.constant(I1, 1)
        for axis, number_, place, stride in zip("dhw", (d, h, w), places, strides[:3], strict=True):
            entry = tap(b, fields, axis, number_)
            position = b.sub(b.mul(place, fields[f"step_{axis}"]), entry["shift"])
            inside = b.and_(inside, b.icmp_unsigned("<", position, fields[f"in_{axis}"]))
            index = b.add(b.mul(index, fields[f"kernel_{axis}"]), entry["index"])
            offset = b.add(offset, b.mul(position, stride))
        with b.if_then(inside):
            listed.add(offset, index)


def _redo_blocks(
    b: Builder,
    target: Target,
    kernel: Filtering,
    fields: Fields,
    runs: Runs,
    table: Value,
    blocks: tuple[Value, Value],
) -> None:
    size = b.i64(kernel.wide.bytes)
    rows = b.mul(fields["in_channels"], b.mul(fields["kernel_d"], fields["kernel_h"]))
    rows = b.mul(rows, fields["kernel_w"])
    products = replace(kernel.products, pixels=1, tail_pixels=1)  # the least code

    def call(block: Value, vectors: int) -> None:
        channel = b.mul(block, b.i64(kernel.block_channels))
        offset = b.mul(channel, size)
        filters = b.at(fields.pointer("filters"), b.mul(offset, rows))
        arguments = [filters, b.at(fields.pointer("bias"), offset), table, b.i64(1), *runs]
        here = b.sub(block, blocks[0])
        arguments.append(b.sub(fields["out_channels"], channel))
        arguments.append(b.mul(here, b.i64(kernel.block_channels * kernel.wide.bytes)))
        b.call(emit_block(b.module, target, products, vectors), arguments)

    each_block(b, fields, blocks, products.vectors, products.tail, call)
