"""The inner loops of the gradient in the filters: one panel of a tap's sums, tile by tile.

A tile reads the listed runs of positions in both slabs and adds its sums to those in memory, which lie
``[row][lane]`` within the panel. Where lanes are channels, a last tile may have rows to spare: what those
read lies in the slab or after it, and what they sum is in rows that no one reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from convt.kernels.builder import I64, PTR, Builder, Slot, function
from convt.kernels.driver import row
from convt.kernels.elements import number
from convt.kernels.gradient_record import RUN
from convt.kernels.keys import FilterGradient
from convt.target import Target

__all__ = ["emit_panel"]

Value = Any
# runs, their number, offset of the panel's lanes, sums, rows, steps of both slabs from one position to the
# next, and from one channel to the next
_ARGUMENTS = (PTR, I64, I64, PTR, I64, I64, I64, I64, I64)
_CHAINS = 10  # sums that are in progress at once, at least: each waits for its last addition
_MOST = 4


def emit_panel(
    module: ir.Module, target: Target, kernel: FilterGradient, vectors: int
) -> ir.Function:
    """``panel(runs, count, lane_offset, sums, rows, ...)``: all tiles of a panel of `vectors`."""
    name = f"panel_{vectors}"
    if name in module.globals:
        return module.globals[name]
    heights = kernel.heights
    tiles = {height: _emit_tile(module, target, kernel, height, vectors) for height in heights}
    made = function(module, name, _ARGUMENTS)
    b = Builder(made, fma=target.fma)
    runs, count, offset, sums, rows, *steps = made.args
    across = vectors * (1 if kernel.along == "positions" else kernel.lanes)
    row_bytes = b.i64(across * kernel.wide.bytes)

    def call(height: int, first: Value) -> None:
        channel = offset if kernel.along == "groups" else b.mul(first, steps[3])
        place = b.at(sums, b.mul(first, row_bytes))
        b.call(tiles[height], [runs, count, offset, channel, place, *steps])

    whole = b.sub(rows, b.srem(rows, b.i64(heights[0])))
    left = b.sub(rows, whole)
    with b.loop(b.i64(0), whole, heights[0]) as first:
        call(heights[0], first)
    for height, below in zip(heights, (*heights[1:], 0), strict=True):
        fits = b.and_(
            b.icmp_signed("<=", left, b.i64(height)), b.icmp_signed(">", left, b.i64(below))
        )
        with b.if_then(fits):
            call(height, whole)
    b.ret_void()
    return made


def _emit_tile(
    module: ir.Module, target: Target, kernel: FilterGradient, height: int, vectors: int
) -> ir.Function:
    """``tile(runs, count, lane_offset, row_offset, sums, steps...)``."""
    made = function(
        module, f"tile_{height}x{vectors}", [PTR, I64, I64, I64, PTR, I64, I64, I64, I64]
    )
    b = Builder(made, fma=target.fma)
    runs, count, lane_offset, row_offset, sums, *steps = made.args
    tile = _Tile(b, kernel, height, vectors, *steps)
    with b.loop(b.i64(0), count) as index:
        run = row(b, runs, index, RUN)
        lane, line = (b.inttoptr(run[side], PTR) for side in ("lane", "row"))
        tile.run(b.at(lane, lane_offset), b.at(line, row_offset), run["count"])
    tile.store(sums)
    b.ret_void()
    return made


class _Tile:
    """The sums of one register tile, in as many sets as it takes to keep the processor busy."""

    def __init__(
        self,
        b: Builder,
        kernel: FilterGradient,
        height: int,
        vectors: int,
        lane_step: Value,
        row_step: Value,
        lane_channel: Value,
        row_channel: Value,
    ) -> None:
        self.b, self.kernel = b, kernel
        self.height, self.vectors, self.size = height, vectors, kernel.wide.bytes
        self.kind = ir.VectorType(number(kernel.wide), kernel.lanes)
        self.by_position = kernel.along == "positions"
        self.steps = (lane_step, row_step)
        planes = (lane_channel, row_channel)
        self.planes = [
            [b.mul(b.i64(i), plane) for i in range(n)]
            for n, plane in zip((vectors, height), planes, strict=True)
        ]
        self.sets = max(min(_CHAINS // (height * vectors), _MOST), 1)
        zero = b.splat_constant(self.kind, 0.0)
        self.sums = [
            [[Slot(b, self.kind, zero) for _ in range(vectors)] for _ in range(height)]
            for _ in range(self.sets)
        ]

    def run(self, lane: Value, line: Value, count: Value) -> None:
        """Add the products of `count` positions from `lane` and `line` on."""
        b = self.b
        each = self.kernel.lanes if self.by_position else 1
        places = [Slot(b, PTR, lane), Slot(b, PTR, line)]
        left = Slot(b, I64, count)
        for many in sorted({self.sets, 1}, reverse=True):
            moves = [[b.mul(step, b.i64(i * each)) for step in self.steps] for i in range(many + 1)]
            enough = b.i64(many * each)
            with b.repeat(lambda enough=enough: b.icmp_signed(">=", left.get(), enough)):  # type: ignore[misc]
                here = [place.get() for place in places]
                for part, move in zip(self.sums, moves[:-1], strict=False):
                    lane, line = (b.at(p, m) for p, m in zip(here, move, strict=True))
                    self._products(part, lane, line, self._load)
                for place, value, move in zip(places, here, moves[-1], strict=True):
                    place.set(b.at(value, move))
                left.set(b.sub(left.get(), enough))
        if self.by_position:
            rest = left.get()
            with b.if_then(b.icmp_signed(">", rest, b.i64(0))):
                mask = b.below(rest, self.kernel.lanes, item=self.size)

                def masked(place: Value) -> Value:
                    return b.masked_load(self.kind, place, mask)

                self._products(self.sums[0], places[0].get(), places[1].get(), masked)

    def _load(self, place: Value) -> Value:
        return self.b.load(place, align=self.size, typ=self.kind)

    def _products(
        self, sums: list[list[Slot]], lane: Value, line: Value, load: Callable[[Value], Value]
    ) -> None:
        """Add the products of one position, or of a vector of them."""
        b, width = self.b, self.kernel.lanes * self.size
        if self.by_position:
            across = [load(b.at(lane, plane)) for plane in self.planes[0]]
        else:
            across = [load(b.at(lane, b.i64(v * width))) for v in range(self.vectors)]
        for r, totals in enumerate(sums):
            if self.by_position:
                down = [load(b.at(line, self.planes[1][r]))] * self.vectors
            elif self.kernel.along == "groups":
                down = [load(b.at(line, b.i64(v * width))) for v in range(self.vectors)]
            else:
                element = b.load(
                    b.at(line, b.i64(r * self.size)), align=self.size, typ=self.kind.element
                )
                down = [b.splat(element, self.kernel.lanes)] * self.vectors
            for total, one, other in zip(totals, down, across, strict=True):
                total.set(b.multiply_add(one, other, total.get()))

    def store(self, place: Value) -> None:
        """Add the sums to those in memory."""
        b = self.b
        for r in range(self.height):
            for v in range(self.vectors):
                value = self.sums[0][r][v].get()
                for part in self.sums[1:]:
                    value = b.fadd(value, part[r][v].get())
                kind = self.kind
                if self.by_position:
                    value, kind = self._across(value), self.kind.element
                size = self.size * (1 if self.by_position else self.kernel.lanes)
                there = b.at(place, b.i64((r * self.vectors + v) * size))
                b.store(b.fadd(b.load(there, align=4, typ=kind), value), there, align=4)

    def _across(self, value: Value) -> Value:
        """The sum of all lanes."""
        b, half = self.b, self.kernel.lanes // 2
        while half:
            parts = [b.shuffle(value, value, [i + k for i in range(half)]) for k in (0, half)]
            value = b.fadd(*parts)
            half //= 2
        return b.extract_element(value, ir.Constant(ir.IntType(32), 0))
