"""Spec + target -> a frozen plan of the gradient in the filters: kernel, blocks, boxes, parts.

Pure, and independent of the number of threads, on which no result depends. A task is a block of the
gradient whose sums stay in the second-level cache; where that leaves few tasks, the positions are cut into
parts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import isqrt, prod
from typing import Any, NamedTuple

from convt.family import CODES
from convt.kernels.keys import Element, FilterGradient
from convt.spec import Spec, Triple
from convt.target import Target

__all__ = ["GradientPlan", "Reach", "make_gradient_plan", "reaches"]

_CHAIN = 192  # products in one chain of additions, at most; see kernels/sums.py
_CHANNELS = 256  # of each side in a task, about: more would leave the second-level cache
_TASKS = 64  # tasks that parts are made for
_PART = 1 << 22  # products in a part, at least
_POSITIONS = 1024  # and positions: every part has sums of its own
_PARTIAL = 8 << 20  # bytes of the sums of all parts, at most
_LINE = 64  # bytes in a cache line
_SPARE = 1024  # bytes that a tile may read past a slab: its spare rows
_LOAD = 0.35  # of a multiply-add: the cost of a load, most of which go on beside it
_TRANSPOSED = 1.1  # times the cost where the result is transposed
_FEW = 3  # output channels whose taps of the width may act as channels
_FOLDED = 32  # such taps, at most
_SPREAD = 128  # outputs that they reach from one position, at most
_TILE = 6  # multiply-adds' time for every tile of a box of positions


class Reach(NamedTuple):
    """The inputs for which a tap has an output."""

    first: int
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class GradientPlan:
    """How the gradient in the filters is computed."""

    spec: Spec  # the transposed convolution
    target: Target
    kernel: FilterGradient
    groups: int
    lane_channels: int  # in a group
    row_channels: int
    lane_step: int  # in a task
    row_step: int
    tap_step: Triple
    modulus: Triple  # outputs of equal remainder are beside each other
    box: tuple[int, int, int, int]  # inputs packed at a time: batch, depth, height, width
    parts: int  # of the positions
    products: int  # multiplications of the definition

    @property
    def boxes(self) -> tuple[int, ...]:
        """Boxes along the batch, depth, height and width."""
        sizes = (self.spec.batch, *self.spec.input_size)
        return tuple(-(-n // step) for n, step in zip(sizes, self.box, strict=True))

    @property
    def part_boxes(self) -> int:
        """Boxes in a part."""
        return -(-prod(self.boxes) // self.parts)

    @property
    def tap_blocks(self) -> tuple[int, ...]:
        """Blocks of taps along depth, height and width."""
        return tuple(-(-k // step) for k, step in zip(self.spec.kernel, self.tap_step, strict=True))

    @property
    def blocks(self) -> int:
        """Blocks of the gradient: a task sums one, or a part of its positions."""
        channels = -(-self.lane_channels // self.lane_step) * -(-self.row_channels // self.row_step)
        return prod(self.tap_blocks) * channels * self.groups

    @property
    def summed_taps(self) -> int:
        """Taps of a block whose sums are apart from each other."""
        return prod(self.tap_step[:2]) if self.kernel.folded else prod(self.tap_step)

    @property
    def folded_reach(self) -> Reach:
        """The inputs for which some tap of the width has an output."""
        found = [reach for reach in reaches(self.spec, 2) if reach.end] or [Reach(0, 0)]
        return Reach(min(r.first for r in found), max(r.end for r in found))

    @property
    def row_offsets(self) -> list[int]:
        """Bytes to the rows in the slab of outputs, where lanes are positions."""
        if self.kernel.along != "positions":
            return []
        *_, width, channel, _ = self.output_slab
        taps = self.tap_step[2] if self.kernel.folded else 1
        found = []
        for tap in range(taps):
            place, phase = divmod(self.spec.dilations[2] * tap, self.modulus[2])
            start = (phase * self.places[2] + place) * width
            found += [start + c * channel for c in range(self.row_channels)]
        return found

    @property
    def line_bytes(self) -> int:
        """Bytes of a channel of a row of outputs that is yet to be parted."""
        return self.modulus[2] * self.places[2] * self.kernel.wide.bytes

    @property
    def panel_rows(self) -> int:
        """Rows of sums, filled up to whole tiles."""
        rows = min(self.row_step, self.row_channels)
        if self.kernel.folded:
            rows *= self.tap_step[2]
        return -(-rows // self.kernel.rows) * self.kernel.rows

    @property
    def tap_bytes(self) -> int:
        """Bytes of the sums of one tap of a task, in whole steps of the second stage."""
        lanes = min(self.lane_step, self.lane_channels)
        panels = -(-lanes // self.kernel.panel) * self.kernel.panel
        return _up(panels * self.panel_rows * self.kernel.wide.bytes, 4 * _LINE)

    @property
    def block_bytes(self) -> int:
        """Bytes of the sums of a task."""
        return self.summed_taps * self.tap_bytes

    @property
    def input_slab(self) -> tuple[int, ...]:
        """Strides in bytes along batch, depth, height, width and channels, and all bytes."""
        lanes = not self.kernel.swapped
        _, depth, height, width = self.box
        return self._slab(lanes, (depth, height, width), width)

    @property
    def places(self) -> Triple:
        """Places for one remainder in the slab of outputs."""
        d, h, w = (_places(self, axis) for axis in range(3))
        return d, h, w

    @property
    def output_slab(self) -> tuple[int, ...]:
        """As `input_slab`."""
        sizes = [
            min(m, _span(self.spec, self.tap_step, axis)) * n
            for axis, (m, n) in enumerate(zip(self.modulus, self.places, strict=True))
        ]
        return self._slab(self.kernel.swapped, (sizes[0], sizes[1], sizes[2]), sizes[2])

    def _slab(self, lanes: bool, size: Triple, columns: int) -> tuple[int, ...]:
        item = self.kernel.wide.bytes
        groups = self.kernel.along == "groups"
        side = (self.lane_step, self.lane_channels)
        if not lanes and not groups:
            side = (self.row_step, self.row_channels)
        channels = min(side)
        if self.kernel.along == "positions":
            channel, width = columns * item, item
            height = channels * channel
        else:
            channel = item
            vector = self.kernel.panel if lanes or groups else 1
            width = _pitch(_up(channels, vector) * item)
            height = size[2] * width
        depth = size[1] * height
        batch = size[0] * depth
        return batch, depth, height, width, channel, self.box[0] * batch

    @property
    def workspace(self) -> tuple[int, ...]:
        """Bytes of a thread's slabs, row of outputs, list of positions and sums."""
        listed = prod(self.box[:3]) * (3 if self.kernel.along == "positions" else 2 * self.box[3])
        sums = self.block_bytes if self.parts == 1 else 0
        slabs = (self.input_slab[-1] + _SPARE, self.output_slab[-1] + _SPARE)
        line = self.line_bytes * self.row_step if self.kernel.along == "positions" else 0
        return tuple(_up(size, _LINE) for size in (*slabs, line, 8 * listed, sums))

    @property
    def partial_bytes(self) -> int:
        """Bytes of the sums of all parts."""
        return self.parts * self.blocks * self.block_bytes if self.parts > 1 else 0


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _pitch(size: int) -> int:
    """Bytes from one position to the next: many of equal remainder would share few sets of a cache."""
    if size <= _LINE:
        return size
    lines = -(-size // _LINE)
    return (lines + (lines % 4 == 0)) * _LINE


def _span(spec: Spec, tap_step: Triple, axis: int) -> int:
    """Outputs from a block's first tap to its last."""
    return spec.dilations[axis] * (tap_step[axis] - 1) + 1


def _places(plan: GradientPlan, axis: int) -> int:
    extent = plan.spec.strides[axis] * (plan.box[axis + 1] - 1)
    extent += _span(plan.spec, plan.tap_step, axis)
    return -(-extent // plan.modulus[axis])


def reaches(spec: Spec, axis: int) -> list[Reach]:
    """For every tap of an axis, the inputs for which it has an output."""
    stride, size, out = spec.strides[axis], spec.input_size[axis], spec.output_size[axis]
    found = []
    for tap in range(spec.kernel[axis]):
        start = spec.dilations[axis] * tap - spec.pad_before[axis]  # the output of input 0
        first = max(-(start // stride), 0)
        end = min((out - 1 - start) // stride + 1, size)
        found.append(Reach(first, end) if first < end else Reach(0, 0))
    return found


@lru_cache(maxsize=512)
def make_gradient_plan(
    spec: Spec,
    target: Target,
    *,
    input_swapped: bool = False,
    gradient_swapped: bool = False,
    finite: bool = True,
) -> GradientPlan:
    """Choose how to compute the gradient in the filters of `spec`, which has no empty array.

    `finite` allows folded taps, whose sums have products of inputs and zeros beyond the outputs; a result
    that is not finite then has to be computed anew without.
    """
    code = CODES[spec.dtype.name]
    elements = (Element(code, input_swapped), Element(code, gradient_swapped), Element(code))
    tile = _tile(spec, target, elements, finite)
    into, out = spec.in_channels // spec.groups, spec.out_channels // spec.groups
    groups, sides = spec.groups, (into, out)
    if tile.along == "groups":
        groups, sides = 1, (spec.groups, 1)
    lanes, rows = sides[::-1] if tile.swapped else sides
    hits = [sum(r.end - r.first for r in reaches(spec, axis)) for axis in range(3)]
    products = spec.batch * prod(hits) * into * spec.out_channels
    plan = GradientPlan(
        spec=spec,
        target=target,
        kernel=tile,
        groups=groups,
        lane_channels=lanes,
        row_channels=rows,
        lane_step=_step(lanes, tile.panel),
        row_step=_step(rows, tile.rows),
        tap_step=spec.kernel,
        modulus=_modulus(spec, tile, out),
        box=_positions(spec, _CHAIN * (2 * tile.lanes if tile.along == "positions" else 1)),
        parts=1,
        products=products,
    )
    return _parted(_fitted(plan))


def _modulus(spec: Spec, tile: FilterGradient, out: int) -> Triple:
    # A few channels of a row are copied as they lie, all at once; so are columns that are dense.
    few = out * tile.wide.bytes <= _LINE or spec.data_format == "NCDHW"
    d, h, w = spec.strides
    return d, h, 1 if few and tile.along != "positions" else w


# --- the tile -----------------------------------------------------------------------------------
def _tile(
    spec: Spec, target: Target, elements: tuple[Element, Element, Element], finite: bool
) -> FilterGradient:
    wide = elements[0].wide
    lanes = target.lanes(wide.bytes)
    into, out = spec.in_channels // spec.groups, spec.out_channels // spec.groups

    def make(rows: int, vectors: int, across: int, along: str, kind: str) -> FilterGradient:
        tail = 0 if along == "positions" else -(-across // lanes) % vectors
        swapped, folded = kind == "swapped", kind == "folded"
        return FilterGradient(wide, lanes, rows, vectors, tail, along, swapped, folded, *elements)

    if into == out == 1 and spec.groups > 1:
        vectors = min(-(-spec.groups // lanes), 4)
        return make(1, vectors, spec.groups, "groups", "")
    taps = spec.kernel[2]
    fold = finite and 1 < taps <= _FOLDED and spec.dilations[2] * taps <= _SPREAD
    if max(into, out) <= lanes // 2:
        rows = min(out * (taps if fold else 1), max(12 // into, 1), 6)
        return make(rows, into, into, "positions", "folded" if fold else "")
    choices = [("", into, out, 1.0), ("swapped", out, into, _TRANSPOSED)]
    if fold and out <= _FEW and spec.dilations[2] == 1:
        choices.append(("folded", into, out * taps, 1 / taps))
    best = []
    for order, (kind, across, down, factor) in enumerate(choices):
        for vectors in (1, 2, 3, 4, 6, 8):
            rows = min(_rows(target, vectors), down)
            if kind == "folded":
                rows = min(rows, 8)  # code is made for every number of rows
            # A tile that is not the only one reads a cache line of each side for a position.
            near = vectors * lanes * wide.bytes <= _LINE or rows == down
            if rows and vectors <= -(-across // lanes) and near:
                tile = make(rows, vectors, across, "channels", kind)
                best.append((_cost(tile, across, down) * factor, order, vectors, tile))
    return min(best, key=lambda found: found[:3])[-1]


def _rows(target: Target, vectors: int) -> int:
    """The most rows whose sums fit the registers, beside the operands."""
    spare = 1 if vectors == 1 or target.fma else 2
    return min((target.registers - vectors - spare) // vectors, 14)


def _cost(tile: FilterGradient, across: int, down: int) -> float:
    """Multiply-adds' time for the products of one position."""
    count = -(-across // tile.lanes)
    widths = [tile.vectors] * (count // tile.vectors) + ([tile.tail] if tile.tail else [])
    left = down % tile.rows
    heights = [tile.rows] * (down // tile.rows)
    if left:
        heights.append(min(h for h in tile.heights if h >= left))
    tiles = [(h, w) for h in heights for w in widths]
    return sum(h * w + _LOAD * (h + w) + _TILE / _CHAIN * (h * w + 4) for h, w in tiles)


# --- what a task covers -------------------------------------------------------------------------
def _step(channels: int, unit: int) -> int:
    """Channels in a task: about equal parts of whole tiles, or all."""
    parts = max(round(channels / _CHANNELS), 1)
    return min(_up(-(-channels // parts), unit), _up(channels, unit))


def _positions(spec: Spec, most: int) -> tuple[int, int, int, int]:
    """Positions packed at a time: whole rows, then a plane's or a cube's, where rows are short."""
    depth, height, width = spec.input_size
    w = _even(width, most)
    rows = max(most // w, 1)
    # The squarer, the fewer outputs are packed again for the next box.
    h = _even(height, max(isqrt(rows), rows // depth))
    d = _even(depth, max(rows // h, 1))
    return _even(spec.batch, max(rows // (h * d), 1)), d, h, w


def _even(size: int, most: int) -> int:
    """`size`, cut into equal parts of `most` at most."""
    return -(-size // -(-size // most))


def _fitted(plan: GradientPlan) -> GradientPlan:
    """`plan` with few enough taps in a task for its sums and its slab of outputs."""
    near, far = plan.target.l2_bytes, max(plan.target.l2_bytes, plan.target.l3_bytes // 8)
    while plan.block_bytes > near or plan.output_slab[-1] > far:
        steps = plan.tap_step
        axes = range(2 if plan.kernel.folded else 3)
        axis = next((axis for axis in axes if steps[axis] > 1), None)
        if axis is None:
            break
        some = list(steps)
        some[axis] = -(-steps[axis] // 2)
        plan = _with(plan, tap_step=(some[0], some[1], some[2]))
    return plan


def _parted(plan: GradientPlan) -> GradientPlan:
    """`plan` with its positions cut into parts, where it has few blocks."""
    bytes_of_all = plan.blocks * plan.block_bytes
    parts = min(
        -(-_TASKS // plan.blocks),
        prod(plan.boxes),
        plan.products // _PART,
        plan.products
        // (
            plan.lane_channels
            * plan.row_channels
            * plan.groups
            * prod(plan.spec.kernel)
            * _POSITIONS
        ),
        _PARTIAL // bytes_of_all,
    )
    if parts < 2:
        return plan
    return _with(plan, parts=-(-prod(plan.boxes) // -(-prod(plan.boxes) // parts)))


def _with(plan: GradientPlan, **changes: Any) -> GradientPlan:
    return replace(plan, **changes)
