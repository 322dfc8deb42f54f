"""Spec + geometry + target -> a frozen, printable Plan: kernel family, tile, chunks, tasks, workspace.

Pure: no array is touched and nothing is compiled. Every choice of how to compute is made here, from
numbers that the plan keeps and prints; ``run`` follows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import NamedTuple

from convt.fold import fold
from convt.geometry import Axis, axes
from convt.kernels.keys import Channels, Element, PackFilters, Rows
from convt.spec import Spec, Triple
from convt.target import Target

__all__ = ["Access", "Chunk", "Plan", "make_plan"]

_CODES = {"float16": "f16", "bfloat16": "bf16", "float32": "f32", "float64": "f64"}
_RUN = 256  # products of one tap in one chain of additions, at most; see kernels/sums.py
_GROUP = 128  # products that chains of several taps may add up to: longer ones cost accuracy
_PIXELS = 240  # pixels whose addresses are listed at a time: their input stays in the first caches
_PHASE_PIXELS = (
    96  # pixels of a phase in a task, so that filters read from afar are used often enough
)
_TASKS = 8  # tasks a thread, where there is work for them: the last ones even out
_ROW_TAPS, _ROW_STRIDE = 64, 64  # the widest rows that code is emitted for
_RUN_COST = 10  # instructions a tile spends on a run beside its sums
_MOVE = 5  # instructions that move one vector into or out of a slab, transposed
_HALO = 1.5  # times that an input element is packed, on average
_LINE = 64  # bytes in a cache line
_SMALL = 1 << 16  # products in a task below which more tasks cost more than they bring


class Access(NamedTuple):
    """How the caller's arrays lie in memory, as far as a plan depends on it."""

    input_swapped: bool = False  # in foreign byte order
    filters_swapped: bool = False
    input_channels_dense: bool = True  # elements that differ by one channel follow each other
    output_channels_dense: bool = True
    output_width_dense: bool = False  # elements that differ by one column follow each other
    output_contiguous: bool = False  # in C order, from a cache line on


class Chunk(NamedTuple):
    """A range of outputs of one axis, and the inputs that it reads."""

    start: int
    stop: int
    in_first: int
    in_end: int


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How one problem is computed. Equal problems share one plan, which is only equal to itself."""

    spec: Spec  # as posed
    computed: Spec  # as computed: `spec`, or an equal problem
    target: Target
    axes: tuple[Axis, Axis, Axis]  # of the problem as computed
    kernel: Channels | Rows
    reason: str  # why this family
    pack: PackFilters
    chunks: tuple[tuple[Chunk, ...], ...]  # of the outputs: depth, height, width
    batch_step: int  # batch entries in a task
    blocks: int  # blocks of output channels in a group
    block_step: int  # such blocks in a task
    run_channels: int  # input channels in one chain of additions
    flush_runs: int  # chains summed up before they join the total
    pixel_block: int  # pixels listed at a time
    packed_filters: int  # elements
    packed_lanes: int  # output channels of all groups, filled up to whole vectors
    workspace: tuple[
        int, int, int, int
    ]  # bytes: list of runs, list of pixels, input slab, output slab
    threads: int  # that share the tasks
    products: int  # multiplications of the definition

    @property
    def tasks(self) -> int:
        spec, counts = self.computed, [len(c) for c in self.chunks]
        batches = -(-spec.batch // self.batch_step)
        return prod(counts) * batches * spec.groups * -(-self.blocks // self.block_step)

    @property
    def workspace_bytes(self) -> int:
        """Memory beside input, filters and output: packed filters, and slabs of each thread."""
        return self.packed_filters * self.kernel.wide.bytes + self.threads * sum(self.workspace)


@lru_cache(maxsize=512)
def make_plan(
    spec: Spec,
    target: Target,
    access: Access,
    threads: int,
    *,
    family: str | None = None,
    finite: bool = True,
) -> Plan:
    """Choose how to compute `spec` on `target` with up to `threads` threads.

    `family` asks for one of the families, "channels" or "rows"; ValueError if it can't serve the problem.
    `finite` says that every filter value is a finite number, which the family of rows depends on.
    """
    posed = spec
    folded = fold(spec) if access.output_contiguous else spec
    kernel, reason = _choose(spec, folded, target, access, family, finite)
    spec = spec if kernel.rows else folded
    shape = axes(spec)
    products = _products(spec, shape)
    channels = spec.out_channels // spec.groups
    blocks = -(-channels // kernel.block_channels)
    tail = kernel.tail * (kernel.lanes if isinstance(kernel, Channels) else 1)
    group_lanes = (blocks - bool(tail)) * kernel.block_channels + tail
    threads = threads if products > _SMALL else 1
    region = _Regions(spec, target, shape, kernel, blocks, threads, products).cut()
    chunks = tuple(
        tuple(_chunks(axis, length)) for axis, length in zip(shape, region.size, strict=True)
    )
    if isinstance(kernel, Rows):
        chunks = (*chunks[:2], tuple(_row_chunk(c, kernel, spec.pad_before[2]) for c in chunks[2]))
    in_channels = spec.in_channels // spec.groups
    spread = _spread(kernel)
    run = max(min(in_channels, _RUN // spread), 1)
    taps = prod(max((len(p.taps) for p in axis.phases), default=0) for axis in shape)
    pixel_block = 0
    if isinstance(kernel, Channels):
        pixel_block = max(_PIXELS // kernel.pixels, 1) * kernel.pixels
    item = kernel.wide.bytes
    inputs = prod(max((c.in_end - c.in_first for c in axis), default=0) for axis in chunks)
    outputs = prod(max((c.stop - c.start for c in axis), default=0) for axis in chunks)
    out_channels = min(region.blocks * kernel.block_channels, channels)
    workspace = (
        _aligned(24 * taps * -(-in_channels // run)),
        _aligned(16 * (pixel_block + kernel.pixels)) if isinstance(kernel, Channels) else 0,
        _aligned(inputs * region.batch * in_channels * item) if kernel.source else 0,
        _aligned(outputs * region.batch * out_channels * item) if kernel.destination else 0,
    )
    source = Element(_CODES[spec.dtype.name], access.filters_swapped)
    return Plan(
        spec=posed,
        computed=spec,
        target=target,
        axes=shape,
        kernel=kernel,
        reason=reason,
        pack=PackFilters(kernel.wide, source, kernel.block_channels, tail, kernel.rows),
        chunks=chunks,
        batch_step=region.batch,
        blocks=blocks,
        block_step=region.blocks,
        run_channels=run,
        flush_runs=max(_GROUP // (run * spread), 1),
        pixel_block=pixel_block,
        packed_filters=prod(spec.kernel) * in_channels * spec.groups * group_lanes,
        packed_lanes=group_lanes * spec.groups,
        workspace=workspace,
        threads=threads,
        products=products,
    )


# --- which family -------------------------------------------------------------------------------
def _choose(
    spec: Spec,
    folded: Spec,
    target: Target,
    access: Access,
    family: str | None,
    finite: bool,
) -> tuple[Channels | Rows, str]:
    """The kernel that a count of instructions favours, or the family asked for; and why."""
    channels = _channels(folded, target, access)
    if family == "channels":
        return channels, "asked for"
    if not finite:
        return channels, "filters that are not finite must meet no padded lane"
    rows = _rows(spec, target, access)
    if family == "rows":
        if rows is None:
            raise ValueError("the family of rows can't serve a width whose taps reach this far")
        return rows, "asked for"
    if rows is None:
        return channels, "the width's taps reach too far for lanes over the width"
    one, other = _channels_cost(folded, channels), _rows_cost(spec, rows)
    sizes = (
        f"about {one / 1e6:.3g} M vector instructions over channels, {other / 1e6:.3g} M over rows"
    )
    return (channels, sizes) if one <= other else (rows, sizes)


def _products(spec: Spec, shape: tuple[Axis, Axis, Axis]) -> int:
    """Multiplications that the definition asks for."""
    pairs = spec.batch * prod(axis.hits for axis in shape)
    return pairs * spec.in_channels * (spec.out_channels // spec.groups)


def _channels_cost(spec: Spec, kernel: Channels) -> float:
    """Vector instructions, about: sums, what every run costs beside them, and moving slabs."""
    in_channels = spec.in_channels // spec.groups
    channels = spec.out_channels // spec.groups
    vectors = -(-channels // kernel.lanes)
    pixels = spec.batch * prod(axis.hits for axis in axes(spec)) * spec.groups
    sums = pixels * vectors * in_channels
    overhead = pixels * -(-vectors // kernel.vectors) * _RUN_COST / kernel.pixels
    return sums + overhead + _slabs(spec, kernel, lanes=kernel.lanes)


def _rows_cost(spec: Spec, kernel: Rows) -> float:
    depth, height, _ = axes(spec)
    in_channels = spec.in_channels // spec.groups
    columns = -(-spec.output_size[2] // spec.strides[2])
    vectors = -(-columns // kernel.columns) * kernel.vectors
    lines = spec.batch * depth.hits * height.hits * spec.groups
    channels = spec.out_channels // spec.groups
    sums = lines * in_channels * channels * spec.kernel[2] * vectors
    # A vector of input is loaded once a shift, a filter once a tile.
    tiles = vectors // kernel.vectors
    blocks = -(-channels // kernel.channels)
    shifts = len({tap.shift for tap in kernel.taps})
    loads = lines * in_channels * (blocks * shifts * vectors + channels * spec.kernel[2] * tiles)
    overhead = lines * blocks * tiles * _RUN_COST
    return max(sums, loads) + overhead + _slabs(spec, kernel, lanes=kernel.lanes)


def _slabs(spec: Spec, kernel: Channels | Rows, lanes: int) -> float:
    """Instructions that pack inputs (with some halo, read again) and unpack results."""
    inputs = spec.batch * prod(spec.input_size) * spec.in_channels * _HALO if kernel.source else 0
    outputs = spec.batch * prod(spec.output_size) * spec.out_channels if kernel.destination else 0
    return _MOVE * (inputs + outputs) / lanes


def _channels(spec: Spec, target: Target, access: Access) -> Channels:
    code, wide = _elements(spec)
    channels = spec.out_channels // spec.groups
    lanes = target.lanes(wide.bytes)
    while lanes > 4 and channels <= lanes // 2:
        lanes //= 2
    vectors, tail = _block(-(-channels // lanes))
    pixels = _tile_pixels(target.registers, vectors)
    narrow = code != wide.code
    packs = narrow or access.input_swapped or not access.input_channels_dense
    source = Element(code, access.input_swapped) if packs else None
    unpacks = narrow or not access.output_channels_dense
    destination = Element(code) if unpacks else None
    pixel_bytes = spec.out_channels * wide.bytes
    stream = _streams(spec, target, access) and not unpacks and pixel_bytes % _LINE == 0
    return Channels(wide, lanes, pixels, vectors, tail, source, destination, stream)


def _streams(spec: Spec, target: Target, access: Access) -> bool:
    """Whether to store past the caches: where they could not hold the result anyway."""
    size = prod(spec.output_shape) * spec.dtype.itemsize
    return access.output_contiguous and size > target.l3_bytes


def _rows(spec: Spec, target: Target, access: Access) -> Rows | None:
    code, wide = _elements(spec)
    kernel, stride, dilation = spec.kernel[2], spec.strides[2], spec.dilations[2]
    columns = -(-spec.output_size[2] // stride)
    reach = (kernel - 1) * dilation // stride + 1
    if kernel > _ROW_TAPS or stride > _ROW_STRIDE or reach > max(columns, _ROW_TAPS):
        return None
    lanes = target.lanes(wide.bytes)
    while lanes > 4 and columns <= lanes // 2:
        lanes //= 2
    channels = spec.out_channels // spec.groups
    block, vectors = _row_tile(target.registers, stride, max(channels, 1), -(-columns // lanes))
    unpacks = code != wide.code or not access.output_width_dense
    return Rows(
        wide=wide,
        lanes=lanes,
        vectors=vectors,
        channels=block,
        tail=channels % block,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        pad=spec.pad_before[2] % stride,
        source=Element(code, access.input_swapped),
        destination=Element(code) if unpacks else None,
        stream=not unpacks
        and _streams(spec, target, access)
        and spec.output_size[2] * wide.bytes % _LINE == 0,
    )


def _row_tile(registers: int, stride: int, channels: int, vectors: int) -> tuple[int, int]:
    """Output channels and vectors of a phase in a tile: the fewest loads and padded vectors a product."""

    def waste(tile: tuple[int, int]) -> tuple[float, int]:
        block, width = tile
        padded = -(-vectors // width) * width / max(vectors, 1)
        return padded * (1 + 1 / block + 1 / width), -block * width

    room = registers - 1
    tiles = [
        (block, width)
        for block in range(1, min(channels, 4) + 1)
        for width in range(1, min(vectors, 8) + 1)
        if stride * block * width + width <= room
    ]
    return min(tiles, key=waste, default=(1, 1))


def _elements(spec: Spec) -> tuple[str, Element]:
    """The code of the problem's dtype, and the element type of its sums."""
    code = _CODES[spec.dtype.name]
    return code, Element(code).wide


def _spread(kernel: Channels | Rows) -> int:
    """Products that one input channel adds to an output in one run, at most."""
    if isinstance(kernel, Channels):
        return 1
    return max(sum(t.phase == phase for t in kernel.taps) for phase in range(kernel.stride)) or 1


def _block(vectors: int) -> tuple[int, int]:
    """Vectors of output channels in a block, and in the last one where it differs."""
    if vectors <= 3:
        return max(vectors, 1), 0
    return 2, 3 if vectors % 2 else 0


def _tile_pixels(registers: int, vectors: int) -> int:
    """Pixels in a tile: as many sums as fit beside a row of filters and one input element."""
    return min((registers - vectors - 1) // vectors, 12 if registers <= 16 else 14)


class _Region(NamedTuple):
    """What a task covers at most."""

    size: Triple  # outputs: depth, height, width
    batch: int
    blocks: int


@dataclass
class _Regions:
    """Cuts a problem into tasks: fewer, larger ones until caches, slabs and threads are content."""

    spec: Spec
    target: Target
    axes: tuple[Axis, Axis, Axis]
    kernel: Channels | Rows
    blocks: int
    threads: int
    products: int

    def cut(self) -> _Region:
        region = _Region(self.spec.output_size, max(self.spec.batch, 1), max(self.blocks, 1))
        while self._too_large(region) and (smaller := self._halved(region, spare=False)):
            region = smaller
        wanted = min(self.threads * _TASKS, self.products // _SMALL) if self.threads > 1 else 1
        while self._tasks(region) < wanted and (smaller := self._halved(region, spare=True)):
            region = smaller
        return region

    def _tasks(self, region: _Region) -> int:
        spec = self.spec
        counts = [-(-o // max(s, 1)) for o, s in zip(spec.output_size, region.size, strict=True)]
        batches = -(-spec.batch // region.batch)
        return prod(counts) * batches * spec.groups * -(-self.blocks // region.blocks)

    def _too_large(self, region: _Region) -> bool:
        """Whether input or output of a task crowd the second-level cache."""
        spec, item = self.spec, self.kernel.wide.bytes
        inputs = prod(self._reads(region)) * region.batch * (spec.in_channels // spec.groups)
        limit = self.target.l2_bytes // 4
        outputs = 0
        if self.kernel.destination:
            channels = min(
                region.blocks * self.kernel.block_channels, spec.out_channels // spec.groups
            )
            outputs = prod(region.size) * region.batch * channels
        return inputs * item > limit or outputs * item > 2 * limit

    def _reads(self, region: _Region) -> list[int]:
        return [
            min(
                axis.input,
                -(-length // axis.stride) + ((axis.kernel - 1) * axis.dilation) // axis.stride,
            )
            for axis, length in zip(self.axes, region.size, strict=True)
        ]

    def _pixels(self, region: _Region) -> int:
        sizes = zip(region.size, self.spec.strides, strict=True)
        return region.batch * prod(max(length // stride, 1) for length, stride in sizes)

    def _halved(self, region: _Region, *, spare: bool) -> _Region | None:
        """`region` halved where it hurts least; with `spare`, never below a tile's worth of pixels."""
        if region.batch > 1 and (self._pixels(region) >= 2 * _PHASE_PIXELS or not spare):
            return region._replace(batch=-(-region.batch // 2))
        spatial = self._pixels(region) >= 2 * _PHASE_PIXELS or not spare
        for axis in range(3) if spatial else ():
            steps = -(-region.size[axis] // self.spec.strides[axis])
            if steps > 1:
                size = list(region.size)
                size[axis] = -(-steps // 2) * self.spec.strides[axis]
                return region._replace(size=(size[0], size[1], size[2]))
        if region.blocks > 1:
            return region._replace(blocks=-(-region.blocks // 2))
        return None


def _chunks(axis: Axis, length: int) -> list[Chunk]:
    starts = range(0, axis.output, max(length, 1))
    stops = [min(start + length, axis.output) for start in starts]
    return [
        Chunk(start, stop, *axis.input_range(start, stop))
        for start, stop in zip(starts, stops, strict=True)
    ]


def _aligned(size: int) -> int:
    return -(-size // 64) * 64


def _row_chunk(chunk: Chunk, kernel: Rows, pad: int) -> Chunk:
    """The same outputs, with the columns that whole tiles of rows load, beyond the input too."""
    least, most = kernel.reach
    columns = -(-(chunk.stop - chunk.start) // kernel.stride)
    first = chunk.start // kernel.stride + pad // kernel.stride + least
    length = -(-columns // kernel.columns) * kernel.columns + most - least
    return chunk._replace(in_first=first, in_end=first + length)
