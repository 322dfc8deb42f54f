"""Spec + geometry + target -> a frozen, printable Plan: kernel family, tile, chunks, tasks, workspace.

Pure: no array is touched and nothing is compiled. Every choice of how to compute is made here, from
numbers that the plan keeps and prints; ``run`` follows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import NamedTuple

from convt.geometry import Axis, axes
from convt.kernels.channels import Channels
from convt.kernels.elements import Element
from convt.kernels.filters import PackFilters
from convt.spec import Spec, Triple
from convt.target import Target

__all__ = ["Access", "Chunk", "Plan", "make_plan"]

_CODES = {"float16": "f16", "bfloat16": "bf16", "float32": "f32", "float64": "f64"}
_RUN = 256  # products in one chain of additions; see kernels/sums.py
_PIXELS = 240  # pixels whose addresses are listed at a time: their input stays in the first caches
_PHASE_PIXELS = 96  # pixels of a phase in a task, so that filters read from afar are used often enough
_TASKS = 8  # tasks a thread, where there is work for them: the last ones even out
_SMALL = 1 << 16  # products in a task below which more tasks cost more than they bring


class Access(NamedTuple):
    """How the caller's arrays lie in memory, as far as a plan depends on it."""

    input_swapped: bool = False  # in foreign byte order
    filters_swapped: bool = False
    input_channels_dense: bool = True  # elements that differ by one channel follow each other
    output_channels_dense: bool = True
    output_width_dense: bool = False  # elements that differ by one column follow each other


class Chunk(NamedTuple):
    """A range of outputs of one axis, and the inputs that it reads."""

    start: int
    stop: int
    in_first: int
    in_end: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How one problem is computed."""

    spec: Spec
    target: Target
    axes: tuple[Axis, Axis, Axis]
    kernel: Channels
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
    workspace: tuple[int, int, int, int]  # bytes: list of runs, list of pixels, input slab, output slab
    threads: int  # that share the tasks
    products: int  # multiplications of the definition

    @property
    def tasks(self) -> int:
        spec, counts = self.spec, [len(c) for c in self.chunks]
        batches = -(-spec.batch // self.batch_step)
        return prod(counts) * batches * spec.groups * -(-self.blocks // self.block_step)

    @property
    def workspace_bytes(self) -> int:
        """Memory beside input, filters and output: packed filters, and slabs of each thread."""
        return self.packed_filters * self.kernel.wide.bytes + self.threads * sum(self.workspace)


@lru_cache(maxsize=512)
def make_plan(spec: Spec, target: Target, access: Access, threads: int) -> Plan:
    """Choose how to compute `spec` on `target` with up to `threads` threads."""
    shape = axes(spec)
    products = spec.batch * prod(axis.hits for axis in shape)
    products *= spec.in_channels * (spec.out_channels // spec.groups)
    kernel = _channels(spec, target, access)
    source = Element(_CODES[spec.dtype.name], access.filters_swapped)
    lanes = kernel.lanes
    channels = spec.out_channels // spec.groups
    blocks = -(-channels // kernel.block_channels)
    tail = kernel.tail * lanes
    group_lanes = blocks * kernel.block_channels - (kernel.block_channels - tail if tail else 0)
    region = _Regions(spec, target, shape, kernel, blocks, threads, products).cut()
    chunks = tuple(
        tuple(_chunks(axis, length)) for axis, length in zip(shape, region.size, strict=True)
    )
    in_channels = spec.in_channels // spec.groups
    run = min(in_channels, _RUN) or 1
    taps = prod(max((len(p.taps) for p in axis.phases), default=0) for axis in shape)
    runs = taps * -(-in_channels // run)
    pixel_block = max(_PIXELS // kernel.pixels, 1) * kernel.pixels
    item = kernel.wide.bytes
    inputs = prod(max(c.in_end - c.in_first for c in axis) for axis in chunks if axis)
    outputs = prod(max(c.stop - c.start for c in axis) for axis in chunks if axis)
    workspace = (
        _aligned(24 * runs),
        _aligned(16 * (pixel_block + kernel.pixels)),
        _aligned(inputs * region.batch * in_channels * item) if kernel.source else 0,
        _aligned(outputs * region.batch * region.blocks * kernel.block_channels * item)
        if kernel.destination
        else 0,
    )
    plan = Plan(
        spec=spec,
        target=target,
        axes=shape,
        kernel=kernel,
        pack=PackFilters(kernel.wide, source, kernel.block_channels, tail),
        chunks=chunks,
        batch_step=region.batch,
        blocks=blocks,
        block_step=region.blocks,
        run_channels=run,
        flush_runs=max(_RUN // run, 1),
        pixel_block=pixel_block,
        packed_filters=prod(spec.kernel) * in_channels * spec.groups * group_lanes,
        packed_lanes=group_lanes * spec.groups,
        workspace=workspace,
        threads=threads if products > _SMALL else 1,
        products=products,
    )
    return plan


def _channels(spec: Spec, target: Target, access: Access) -> Channels:
    code = _CODES[spec.dtype.name]
    wide = Element("f64" if code == "f64" else "f32")
    narrow = code != wide.code
    channels = spec.out_channels // spec.groups
    lanes = target.lanes(wide.bytes)
    while lanes > 4 and channels <= lanes // 2:
        lanes //= 2
    vectors, tail = _block(-(-channels // lanes))
    pixels = _tile_pixels(target.registers, vectors)
    packs = narrow or access.input_swapped or not access.input_channels_dense
    source = Element(code, access.input_swapped) if packs else None
    unpacks = narrow or not access.output_channels_dense
    return Channels(wide, lanes, pixels, vectors, tail, source, Element(code) if unpacks else None)


def _block(vectors: int) -> tuple[int, int]:
    """Vectors of output channels in a block and, where it differs, in the last: two; three close odd counts."""
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
    kernel: Channels
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
            channels = min(region.blocks * self.kernel.block_channels, spec.out_channels // spec.groups)
            outputs = prod(region.size) * region.batch * channels
        return inputs * item > limit or outputs * item > 2 * limit

    def _reads(self, region: _Region) -> list[int]:
        return [
            min(axis.input, -(-length // axis.stride) + ((axis.kernel - 1) * axis.dilation) // axis.stride)
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
