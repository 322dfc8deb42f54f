"""The inner loops of the gradient in the filters: one panel of a tap's sums, tile by tile.

A tile reads the listed positions in both slabs and adds its sums to those in memory, which lie
``[row][lane]`` within the panel. Where lanes are channels, a last tile may have rows to spare: what those
read lies in the slab or after it, and what they sum is in rows that no one reads.
"""

from __future__ import annotations

from collections.abc import Callable

from convt.kernels import ir
from convt.kernels.builder import I64, PTR, Builder, Slot, function
from convt.kernels.elements import number
from convt.kernels.gradient_record import POSITION, RUN
from convt.kernels.ir import Value
from convt.kernels.keys import FilterGradient
from convt.target import Target

__all__ = ["emit_panel"]

_CHAINS = 10  # sums that are in progress at once, at least: each waits for its last addition
_SETS = 4


def emit_panel(
    module: ir.Module, target: Target, kernel: FilterGradient, vectors: int
) -> ir.Function:
    """``panel(listed, count, lane_offset, sums, rows, lane_step, offsets)``: all tiles of `vectors`.

    Where lanes are positions, `lane_step` is from one channel to the next, and `offsets` a table of where
    the rows are.
    """
    name = f"panel_{vectors}"
    if name in module.globals:
        return module.globals[name]
    heights = kernel.heights
    tiles = {height: _emit_tile(module, target, kernel, height, vectors) for height in heights}
    made = function(module, name, [PTR, I64, I64, PTR, I64, I64, PTR])
    b = Builder(made, fma=target.fma)
    listed, count, offset, sums, rows, lane_step, table = made.args
    across = vectors * (1 if kernel.along == "positions" else kernel.lanes)
    row_bytes = b.i64(across * kernel.wide.bytes)

    def call(height: int, first: Value) -> None:
        channel = offset if kernel.along == "groups" else b.mul(first, b.i64(kernel.wide.bytes))
        place, offsets = b.at(sums, b.mul(first, row_bytes)), b.at(table, b.mul(first, b.i64(8)))
        b.call(tiles[height], [listed, count, offset, channel, place, lane_step, offsets])

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
    """``tile(listed, count, lane_offset, row_offset, sums, lane_step, offsets)``."""
    # The full tile is inlined into the loop over tiles; the rests are rare.
    whole = height == kernel.heights[0]
    arguments = [PTR, I64, I64, I64, PTR, I64, PTR]
    made = function(module, f"tile_{height}x{vectors}", arguments, inline=whole)
    b = Builder(made, fma=target.fma)
    listed, count, lane_offset, row_offset, sums, lane_step, table = made.args
    tile = _Tile(b, kernel, height, vectors)
    tile.approach(sums)
    if kernel.along == "positions":
        steps = [b.mul(b.i64(v), lane_step) for v in range(vectors)]
        offsets = [b.word(table, r) for r in range(height)]
        tile.runs(listed, count, lane_offset, steps, offsets)
    else:
        tile.positions(listed, count, lane_offset, row_offset)
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
    ) -> None:
        self.b, self.kernel = b, kernel
        self.height, self.vectors, self.size = height, vectors, kernel.wide.bytes
        self.kind = ir.vector(number(kernel.wide), kernel.lanes)
        self.sets = max(min(_CHAINS // (height * vectors), _SETS), 1)
        zero = ir.constant(self.kind, 0.0)
        self.sums = [
            [[Slot(b, self.kind, zero) for _ in range(vectors)] for _ in range(height)]
            for _ in range(self.sets)
        ]

    # --- lanes are channels -------------------------------------------------------------------
    def positions(self, listed: Value, count: Value, *offsets: Value) -> None:
        """Add the products of the listed positions."""
        b, entry = self.b, 8 * len(POSITION)
        place, left = Slot(b, PTR, listed), Slot(b, I64, count)
        for many in sorted({self.sets, 1}, reverse=True):
            with b.repeat(_reaches(b, left, many)):
                for number_of_set in range(many):
                    here = b.at(place.get(), b.i64(number_of_set * entry))
                    lane, line = (
                        b.at(b.read(b.at(here, b.i64(8 * side)), PTR), offset)
                        for side, offset in enumerate(offsets)
                    )
                    self._channels(self.sums[number_of_set], lane, line)
                place.set(b.at(place.get(), b.i64(many * entry)))
                left.set(b.sub(left.get(), b.i64(many)))

    def _channels(self, sums: list[list[Slot]], lane: Value, line: Value) -> None:
        """Add the products of one position."""
        b, width = self.b, self.kernel.lanes * self.size
        across = [self._load(b.at(lane, b.i64(v * width))) for v in range(self.vectors)]
        for r, totals in enumerate(sums):
            if self.kernel.along == "groups":
                down = [self._load(b.at(line, b.i64(v * width))) for v in range(self.vectors)]
            else:
                place = b.at(line, b.i64(r * self.size))
                element = b.load(place, align=self.size, typ=self.kind.element)
                down = [b.splat(element, self.kernel.lanes)] * self.vectors
            for total, one, other in zip(totals, down, across, strict=True):
                total.set(b.multiply_add(one, other, total.get()))

    def _load(self, place: Value) -> Value:
        return self.b.load(place, align=self.size, typ=self.kind)

    # --- lanes are positions ------------------------------------------------------------------
    def runs(
        self, listed: Value, count: Value, offset: Value, steps: list[Value], offsets: list[Value]
    ) -> None:
        """Add the products of the listed runs: whole vectors of positions, then the rest."""
        b, lanes = self.b, self.kernel.lanes
        with b.loop(b.i64(0), count) as index:
            entry = b.at(listed, b.mul(index, b.i64(8 * len(RUN))))
            lane, line = (b.read(b.at(entry, b.i64(8 * side)), PTR) for side in range(2))
            start = b.at(lane, offset)
            across = [Slot(b, PTR, b.at(start, step)) for step in steps]
            down = [Slot(b, PTR, b.at(line, place)) for place in offsets]
            left = Slot(b, I64, b.word(entry, 2))
            for many in sorted({self.sets, 1}, reverse=True):
                with b.repeat(_reaches(b, left, many * lanes)):
                    for number_of_set in range(many):
                        move = b.i64(number_of_set * lanes * self.size)
                        one, other = (
                            [b.at(p.get(), move) for p in side] for side in (across, down)
                        )
                        self._planes(self.sums[number_of_set], one, other, self._load)
                    for place in (*across, *down):
                        place.set(b.at(place.get(), b.i64(many * lanes * self.size)))
                    left.set(b.sub(left.get(), b.i64(many * lanes)))
            rest = left.get()
            with b.if_then(b.icmp_signed(">", rest, b.i64(0))):
                mask = b.below(rest, lanes, item=self.size)

                def masked(place: Value) -> Value:
                    return b.masked_load(self.kind, place, mask)

                one, other = ([p.get() for p in side] for side in (across, down))
                self._planes(self.sums[0], one, other, masked)

    def _planes(
        self,
        sums: list[list[Slot]],
        across: list[Value],
        down: list[Value],
        load: Callable[[Value], Value],
    ) -> None:
        """Add the products of a vector of positions."""
        others = [load(place) for place in across]
        for place, totals in zip(down, sums, strict=True):
            value = load(place)
            for total, other in zip(totals, others, strict=True):
                total.set(self.b.multiply_add(value, other, total.get()))

    # --- totals -------------------------------------------------------------------------------
    def approach(self, place: Value) -> None:
        """Bring the sums in memory near: they may be in a cache far away."""
        if self.kernel.along != "positions":
            for line in range(0, self.height * self.vectors * self.kernel.lanes * self.size, 64):
                self.b.prefetch(self.b.at(place, self.b.i64(line)))

    def store(self, place: Value) -> None:
        """Add the sums to those in memory."""
        b, kind, size = self.b, self.kind, self.size
        across = self.kernel.along == "positions"
        if across:
            kind = kind.element
        else:
            size *= self.kernel.lanes
        for index in range(self.height * self.vectors):
            r, v = divmod(index, self.vectors)
            value = self.sums[0][r][v].get()
            for part in self.sums[1:]:
                value = b.fadd(value, part[r][v].get())
            value = self._across(value) if across else value
            there = b.at(place, b.i64(index * size))
            b.store(b.fadd(b.load(there, align=self.size, typ=kind), value), there, align=self.size)

    def _across(self, value: Value) -> Value:
        """The sum of all lanes."""
        b, half = self.b, self.kernel.lanes // 2
        while half:
            parts = [b.shuffle(value, value, [i + k for i in range(half)]) for k in (0, half)]
            value = b.fadd(*parts)
            half //= 2
        return b.extract_element(value, 0)


def _reaches(b: Builder, left: Slot, many: int) -> Callable[[], Value]:
    """Whether so `many` are left."""
    return lambda: b.icmp_signed(">=", left.get(), b.i64(many))
