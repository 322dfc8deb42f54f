"""Lanes over output channels: for many channels out.

A tile is a few pixels by a few vectors of output channels, kept in registers. For every tap and input
channel it broadcasts one input element a pixel and multiplies it with vectors of packed filters. Pixels of
a tile are any pixels that the same taps reach, listed by address, so short rows fill tiles as well as long
ones, and nothing is padded. The filters are packed as ``[block][tap][input channel][lane]``.

Where few pixels meet many filters, which then come from beyond the caches, a kernel goes tap by tap: it
lists the pixels that a tap reaches and adds its products to the output, so each filter is read once.

Where every group has one channel in and one out (a depthwise problem), lanes are groups: the tile loads
vectors of input instead of broadcasting elements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

from convt.kernels import ir
from convt.kernels.builder import I64, PTR, Builder, Slot, function
from convt.kernels.driver import Share, each_block, emit_run, segment, segments, tap, task_channels
from convt.kernels.elements import number
from convt.kernels.ir import Value
from convt.kernels.keys import Channels
from convt.kernels.sums import RUNS, RunList, Runs, accumulate
from convt.target import Target

__all__ = ["Tile", "each_tile", "emit", "emit_block"]


def emit(kernel: Channels, target: Target) -> ir.Module:
    """The kernel: box by box, the outputs that the same taps reach on every axis."""
    return emit_run(target, kernel, _Boxes)


class _Boxes(Share[Channels]):
    def compute(self) -> None:
        b, task = self.b, self.task
        if self.kernel.by_taps:
            self.clear()
        with segments(b, task, "d") as d, segments(b, task, "h") as h, segments(b, task, "w") as w:
            index = zip("dhw", (d, h, w), strict=True)
            self.box({axis: segment(b, self.fields, axis, i) for axis, i in index})

    def box(self, box: dict[str, dict[str, Value]]) -> None:
        """The outputs of one segment of each axis."""
        b, fields = self.b, self.fields
        runs = self._runs(box)
        counts = [b.sub(self.task.batch[1], self.task.batch[0])]
        counts += [box[axis]["count"] for axis in "dhw"]
        pixels = counts[0]
        for count in counts[1:]:
            pixels = b.mul(pixels, count)
        with b.loop(b.i64(0), pixels, fields["pixel_block"]) as first:
            count = b.minimum(fields["pixel_block"], b.sub(pixels, first))
            table = self._table(box, counts, first, count)
            self._blocks(runs, table, count)

    def clear(self) -> None:
        """Set the task's outputs to the bias, which the taps' products are added to."""
        b, kernel = self.b, self.kernel
        kind = ir.vector(number(kernel.wide), kernel.lanes)
        size = b.i64(kernel.wide.bytes)
        first, count = task_channels(b, self.fields, kernel, self.task)
        lanes_before = b.mul(self.task.group, self.fields["packed_lanes"])
        bias = b.at(self.fields.pointer("bias"), b.mul(b.add(lanes_before, first), size))
        chunks = [(self.task.chunks[a]["out_first"], self.task.chunks[a]["out_end"]) for a in "dhw"]
        loops = [b.loop(*bounds) for bounds in (self.task.batch, *chunks)]
        with loops[0] as n, loops[1] as d, loops[2] as h, loops[3] as w:
            y = self.y.at(b, n=n, d=d, h=h, w=w)
            with b.loop(b.i64(0), count, kernel.lanes) as channel:
                offset = b.mul(channel, size)
                value = b.load(b.at(bias, offset), align=1, typ=kind)
                b.store_first(value, b.at(y, offset), b.sub(count, channel))

    def _runs(self, box: dict[str, dict[str, Value]]) -> Runs:
        """List the taps that reach the box, in order."""
        b, fields = self.b, self.fields
        listed = RunList(b, fields, self.scratch, self.x.c)
        strides = {"d": self.x.d, "h": self.x.h, "w": self.x.w}
        count = {a: b.sub(box[a]["tap_end"], box[a]["tap_first"]) for a in "dhw"}
        taps = {a: b.loop(b.i64(1), b.add(count[a], b.i64(1))) for a in "dhw"}
        with taps["d"] as d, taps["h"] as h, taps["w"] as w:
            index, offset = b.i64(0), b.i64(0)
            for axis, position in zip("dhw", (d, h, w), strict=True):
                # By falling shift: the inputs in order, and so the filters of a convolution.
                entry = tap(b, fields, axis, b.sub(box[axis]["tap_end"], position))
                index = b.add(b.mul(index, fields[f"kernel_{axis}"]), entry["index"])
                offset = b.sub(offset, b.mul(entry["shift"], strides[axis]))
            listed.add(offset, index)
        return listed.runs()

    def _table(
        self, box: dict[str, dict[str, Value]], counts: list[Value], first: Value, count: Value
    ) -> Value:
        """List the addresses (input, output) of `count` pixels, counted from `first` in the box."""
        b, fields = self.b, self.fields
        place = b.at(self.scratch, fields["workspace_pixels"])
        x = self.x.at(b, n=self.task.batch[0], **{a: box[a]["in_first"] for a in "dhw"})
        y = self.y.at(b, n=self.task.batch[0], **{a: box[a]["out_first"] for a in "dhw"})
        x_steps = [self.x.n, *(b.mul(getattr(self.x, a), fields[f"step_{a}"]) for a in "dhw")]
        y_steps = [self.y.n, *(b.mul(getattr(self.y, a), fields[f"pitch_{a}"]) for a in "dhw")]
        index: list[Slot] = []
        rest = first
        for size in reversed(counts):
            index.insert(0, Slot(b, I64, b.srem(rest, size)))
            rest = b.sdiv(rest, size)
        done = Slot(b, I64, b.i64(0))
        with b.repeat(lambda: b.icmp_signed("<", done.get(), count)):
            here = [slot.get() for slot in index]
            start = done.get()
            length = b.minimum(b.sub(counts[3], here[3]), b.sub(count, start))
            px = Slot(b, PTR, b.at(x, b.dot(*zip(here, x_steps, strict=True))))
            py = Slot(b, PTR, b.at(y, b.dot(*zip(here, y_steps, strict=True))))
            with b.loop(start, b.add(start, length)) as entry:
                self._enter(place, entry, px.get(), py.get())
                px.set(b.at(px.get(), x_steps[3]))
                py.set(b.at(py.get(), y_steps[3]))
            done.add(length)
            self._advance(index, counts)
        # Rests of tiles read past the end: they find the last pixel again.
        last = b.at(place, b.mul(b.sub(count, b.i64(1)), b.i64(16)))
        again = [b.read(b.at(last, b.i64(8 * k)), PTR) for k in range(2)]
        for extra in range(self.kernel.pixels - 1):
            self._enter(place, b.add(count, b.i64(extra)), *again)
        return place

    def _enter(self, place: Value, entry: Value, x: Value, y: Value) -> None:
        place = self.b.at(place, self.b.mul(entry, self.b.i64(16)))
        self.b.store(x, place, align=8)
        self.b.store(y, self.b.at(place, self.b.i64(8)), align=8)

    def _advance(self, index: list[Slot], counts: list[Value]) -> None:
        """Go to the start of the next row of the box."""
        b = self.b
        index[3].set(b.i64(0))
        carry = b.i64(1)
        for axis in (2, 1, 0):
            value = b.add(index[axis].get(), carry)
            full = b.icmp_signed("==", value, counts[axis])
            index[axis].set(b.select(full, b.i64(0), value))
            carry = b.zext(full, I64)

    def _blocks(self, runs: Runs, table: Value, count: Value) -> None:
        """Every block of output channels of the task, for the pixels listed in `table`."""
        b, fields, kernel = self.b, self.fields, self.kernel
        size = kernel.wide.bytes
        rows = b.mul(
            fields["in_channels"],
            b.mul(fields["kernel_d"], b.mul(fields["kernel_h"], fields["kernel_w"])),
        )
        block_bytes = b.mul(rows, b.i64(kernel.block_channels * size))
        low, high = self.task.blocks
        tail_lanes = kernel.tail * kernel.lanes
        # Every group has the same blocks, and its last block may be narrower.
        group_lanes = b.mul(fields["blocks"], b.i64(kernel.block_channels))
        if kernel.tail:
            group_lanes = b.sub(group_lanes, b.i64(kernel.block_channels - tail_lanes))
        lanes_before = b.mul(self.task.group, group_lanes)
        filters = b.at(fields.pointer("filters"), b.mul(b.mul(lanes_before, rows), b.i64(size)))
        bias = b.at(fields.pointer("bias"), b.mul(lanes_before, b.i64(size)))

        def call(block: Value, vectors: int) -> None:
            channel = b.mul(block, b.i64(kernel.block_channels))
            offset = b.mul(b.sub(block, low), b.i64(kernel.block_channels * size))
            b.call(
                emit_block(b.module, self.target, kernel, vectors),
                [
                    b.at(filters, b.mul(block, block_bytes)),
                    b.at(bias, b.mul(channel, b.i64(size))),
                    table,
                    count,
                    *runs,
                    b.sub(fields["out_channels"], channel),
                    offset,
                ],
            )

        each_block(b, fields, (low, high), kernel.vectors, kernel.tail, call)


_LINE = 64  # bytes in a cache line, as most processors have it
_ARGUMENTS = [PTR, PTR, PTR, I64, *RUNS, I64, I64]


def emit_block(module: ir.Module, target: Target, kernel: Channels, vectors: int) -> ir.Function:
    """``block(filters, bias, table, count, runs..., valid, offset)``: its tiles."""
    name = f"block_{vectors}"
    if name in module.globals:
        return module.globals[name]
    heights = kernel.heights(vectors)
    tiles = {h: _emit_tile(module, target, kernel, h, vectors) for h in heights}
    made = function(module, name, _ARGUMENTS)
    b = Builder(made, fma=target.fma)
    filters, bias, table, count, *rest = made.args

    def call(height: int, first: Value) -> None:
        b.call(tiles[height], [filters, bias, b.at(table, b.mul(first, b.i64(16))), *rest])

    each_tile(b, count, heights, call)
    b.ret_void()
    return made


def each_tile(
    b: Builder, count: Value, heights: tuple[int, ...], call: Callable[[int, Value], None]
) -> None:
    """Call ``call(height, first)`` for tiles that cover `count` places, `heights` falling.

    The rest goes to the lowest tile that holds it, whose surplus repeats the last place.
    """
    whole = b.sub(count, b.srem(count, b.i64(heights[0])))
    left = b.sub(count, whole)
    full = b.icmp_signed(">", left, b.i64(heights[1] if len(heights) > 1 else 0))
    end = b.add(whole, b.select(full, b.i64(heights[0]), b.i64(0)))
    with b.loop(b.i64(0), end, heights[0]) as first:
        call(heights[0], first)
    for height, below in [*pairwise((*heights, 0))][1:]:
        fits = b.and_(
            b.icmp_signed("<=", left, b.i64(height)), b.icmp_signed(">", left, b.i64(below))
        )
        with b.if_then(fits):
            call(height, whole)


def _emit_tile(
    module: ir.Module, target: Target, kernel: Channels, pixels: int, vectors: int
) -> ir.Function:
    """One register tile: `pixels` listed addresses by `vectors` vectors of output channels."""
    # The full tile is inlined into the loop over tiles; the rests are rare.
    made = function(
        module,
        f"tile_{pixels}x{vectors}",
        [PTR, PTR, PTR, *RUNS, I64, I64],
        inline=pixels == kernel.heights(vectors)[0],
    )
    b = Builder(made, fma=target.fma)
    filters, bias, table, *runs, valid, offset = made.args
    tile = _Listed(b, kernel, pixels, vectors, filters, table, valid, offset)
    zero = ir.constant(tile.kind, 0.0)
    accumulate(b, Runs(*runs), [s for r in tile.sums for s in r], tile.run, zero)
    tile.store(bias)
    b.ret_void()
    return made


class Tile:
    """The sums of one register tile: pixels by vectors of output channels."""

    def __init__(self, b: Builder, kernel: Channels, pixels: int, vectors: int) -> None:
        self.b, self.kernel, self.vectors = b, kernel, vectors
        self.lanes, self.size = kernel.lanes, kernel.wide.bytes
        self.kind = ir.vector(number(kernel.wide), kernel.lanes)
        self.unroll = kernel.unroll if pixels == kernel.heights(vectors)[0] else 1
        self.sums = [[Slot(b, self.kind) for _ in range(vectors)] for _ in range(pixels)]
        self.steps = [b.i64(v * self.lanes * self.size) for v in range(vectors)]

    def sweep(self, places: list[Value], filters: Value, count: Value) -> None:
        """Add the products of `count` input channels, of each pixel from its place on."""
        b, width = self.b, self.vectors * self.lanes * self.size
        weights = Slot(b, PTR, filters)
        end = b.mul(count, b.i64(self.size))
        channel = Slot(b, I64, b.i64(0))
        panel = b.mul(count, b.i64(width))  # bytes to the filters of the next block

        def below(stop: Value) -> Value:
            return b.icmp_signed("<", channel.get(), stop)

        for unroll in sorted({self.unroll, 1}, reverse=True):
            with b.repeat(partial(below, b.sub(end, b.i64((unroll - 1) * self.size)))):
                parts = [[total.get() for total in row] for row in self.sums]
                for ahead in range(unroll):
                    here = b.at(weights.get(), b.i64(ahead * width))
                    for line in range(0, width if self.kernel.prefetch else 0, _LINE):
                        b.prefetch(b.at(here, b.add(panel, b.i64(line))))
                    self._products(
                        parts, places, here, b.add(channel.get(), b.i64(ahead * self.size))
                    )
                for row, values in zip(self.sums, parts, strict=True):
                    for total, value in zip(row, values, strict=True):
                        total.set(value)
                weights.set(b.at(weights.get(), b.i64(unroll * width)))
                channel.add(b.i64(unroll * self.size))

    def _products(
        self, parts: list[list[Value]], places: list[Value], weights: Value, channel: Value
    ) -> None:
        """Add the products of one input channel to `parts`."""
        b = self.b
        align = self.lanes * self.size
        taps = [b.load(b.at(weights, step), align=align, typ=self.kind) for step in self.steps]
        for place, row in zip(places, parts, strict=True):
            values = self.inputs(b.at(place, channel))
            for v, (value, weight) in enumerate(zip(values, taps, strict=True)):
                row[v] = b.multiply_add(value, weight, row[v])

    def inputs(self, element: Value) -> list[Value]:
        """What the vectors of output channels are multiplied with."""
        value = self.b.load(element, align=1, typ=number(self.kernel.wide))
        return [self.b.splat(value, self.lanes)] * self.vectors


class _Listed(Tile):
    """A tile of listed pixels."""

    def __init__(
        self,
        b: Builder,
        kernel: Channels,
        pixels: int,
        vectors: int,
        filters: Value,
        table: Value,
        valid: Value,
        offset: Value,
    ) -> None:
        super().__init__(b, kernel, pixels, vectors)
        self.filters, self.table, self.valid, self.offset = filters, table, valid, offset
        self.x = [b.read(b.at(table, b.i64(16 * p)), PTR) for p in range(pixels)]
        if pixels == kernel.heights(vectors)[0] and not kernel.stream:
            self._expect()

    def _expect(self) -> None:
        """Bring the outputs near: the sums take longer than memory does."""
        for pixel in range(len(self.sums)):
            y = self._output(pixel)
            for line in range(0, self.vectors * self.lanes * self.size, _LINE):
                self.b.prefetch(self.b.at(y, self.b.i64(line)), write=True)

    def _output(self, pixel: int) -> Value:
        b = self.b
        return b.at(b.read(b.at(self.table, b.i64(16 * pixel + 8)), PTR), self.offset)

    def run(self, entry: dict[str, Value]) -> None:
        """Add the products of one run: of one tap, some input channels."""
        b, width = self.b, self.vectors * self.lanes * self.size
        start = b.add(entry["input"], self.offset) if self.kernel.depthwise else entry["input"]
        filters = b.at(self.filters, b.mul(entry["row"], b.i64(width)))
        self.sweep([b.at(place, start) for place in self.x], filters, entry["count"])

    def inputs(self, element: Value) -> list[Value]:
        if not self.kernel.depthwise:
            return super().inputs(element)
        b = self.b
        return [
            b.masked_load(self.kind, b.at(element, step), self._valid(v))
            for v, step in enumerate(self.steps)
        ]

    def _valid(self, vector: int) -> Value:
        return self.b.below(self.valid, self.lanes, vector * self.lanes, item=self.size)

    def store(self, bias: Value) -> None:
        """Add the bias or what is there, and store; of the last block only the lanes that are channels."""
        b, lanes = self.b, self.lanes
        full = b.icmp_signed(">=", self.valid, b.i64(self.vectors * lanes))
        if not self.kernel.by_taps:
            self._add_bias(bias)
        with b.if_else(full) as (whole, part):
            with whole:
                for _, value, place in self._added(part=False):
                    b.put(value, place, stream=self.kernel.stream)
            with part:
                for v, value, place in self._added(part=True):
                    b.store_first(value, place, b.sub(self.valid, b.i64(v * lanes)))

    def _add_bias(self, bias: Value) -> None:
        b, align = self.b, self.lanes * self.size
        biases = [b.load(b.at(bias, step), align=align, typ=self.kind) for step in self.steps]
        for row in self.sums:
            for total, value in zip(row, biases, strict=True):
                total.set(b.fadd(total.get(), value))

    def _added(self, *, part: bool) -> list[tuple[int, Value, Value]]:
        """The results, added to what is there if the kernel accumulates: a surplus pixel counts once."""
        b, results = self.b, list(self._results())
        if not self.kernel.by_taps:
            return results
        return [
            (
                v,
                b.fadd(
                    b.masked_load(self.kind, place, self._valid(v))
                    if part
                    else b.load(place, align=1, typ=self.kind),
                    value,
                ),
                place,
            )
            for v, value, place in results
        ]

    def _results(self) -> Iterator[tuple[int, Value, Value]]:
        """The number of the vector, its value and its place, for every pixel."""
        b = self.b
        for pixel, row in enumerate(self.sums):
            y = self._output(pixel)
            for v, (total, step) in enumerate(zip(row, self.steps, strict=True)):
                yield v, total.get(), b.at(y, step)
