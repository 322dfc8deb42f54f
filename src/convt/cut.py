"""A problem cut into tasks: chunks of each axis, of the batch and of the blocks of output channels.

Pure. Tasks write disjoint outputs, so any cut is right; a good one keeps a task's input in the second-level
cache while every phase reads it, keeps slabs small, gives filters that come from afar enough pixels to work
on, and leaves the threads enough tasks to even out.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from convt.geometry import Axis
from convt.kernels.keys import Channels, Dots, Filtering, Rows
from convt.spec import Spec, Triple
from convt.target import Target

__all__ = ["Chunk", "Cutter", "Region", "chunks"]

SMALL = 1 << 16  # products in a task below which more tasks cost more than they bring
_PHASE_PIXELS = (
    96  # pixels of a phase in a task, so that filters read from afar are used often enough
)
_TASKS = 8  # tasks a thread, where there is work for them: the last ones even out
_ROW_TASKS = 4  # the same of rows, which have little work for every halo that they pack
_CHUNKS = 1 << 16  # chunks of an axis, at most: their table stays small


class Chunk(NamedTuple):
    """A range of outputs of one axis, and the inputs that it reads."""

    start: int
    stop: int
    in_first: int
    in_end: int


class Region(NamedTuple):
    """What a task covers at most."""

    size: Triple  # outputs: depth, height, width
    batch: int
    blocks: int  # of output channels
    apart: bool = False  # one phase alone


def chunks(axis: Axis, length: int) -> list[Chunk]:
    """The outputs of `axis`, `length` at a time."""
    starts = range(0, axis.output, max(length, 1))
    stops = [min(start + length, axis.output) for start in starts]
    return [
        Chunk(start, stop, *axis.input_range(start, stop))
        for start, stop in zip(starts, stops, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Cutter:
    """Halves a region, at first the whole problem, until caches, slabs and threads are content."""

    spec: Spec
    target: Target
    axes: tuple[Axis, Axis, Axis]
    kernel: Channels | Dots | Filtering | Rows
    units: tuple[int, ...]  # outputs of each axis that stay together
    blocks: int  # of output channels, in a group
    threads: int
    products: int
    afar: bool  # filters come from beyond the caches

    def cut(self) -> Region:
        """The region of a task."""
        region = Region(self.spec.output_size, max(self.spec.batch, 1), max(self.blocks, 1))
        if 0 in self.spec.output_shape:
            return region
        while self._too_large(region) and (smaller := self._halved(region, spare=False)):
            region = smaller
        each = _ROW_TASKS if isinstance(self.kernel, Rows) else _TASKS
        wanted = min(self.threads * each, self.products // SMALL) if self.threads > 1 else 1
        while self._tasks(region) < wanted and (smaller := self._halved(region, spare=True)):
            region = smaller
        return region

    def _tasks(self, region: Region) -> int:
        spec = self.spec
        counts = [-(-o // max(s, 1)) for o, s in zip(spec.output_size, region.size, strict=True)]
        batches = -(-spec.batch // region.batch)
        phases = prod(len(axis.correlations) for axis in self.axes) if region.apart else 1
        return prod(counts) * batches * spec.groups * -(-self.blocks // region.blocks) * phases

    def _too_large(self, region: Region) -> bool:
        """Whether the input of a task, or its slab of results, crowd the second-level cache."""
        spec, item = self.spec, self.kernel.wide.bytes
        out_channels = spec.out_channels // spec.groups
        in_channels = spec.in_channels // spec.groups
        channels = min(region.blocks * self.kernel.block_channels, out_channels)
        if self.kernel.depthwise:
            in_channels = channels
        inputs = prod(self._reads(region)) * region.batch * in_channels
        outputs = 0
        if self.kernel.destination:
            outputs = prod(region.size) * region.batch * channels
        # Halos are packed again by every task, and blocks of tiles want many, so these may be larger.
        near, far = self.target.l2_bytes // 4, self.target.l3_bytes // 8
        limit = max(near, far) if self.kernel.source or self.kernel.family == "filtering" else near
        if self.afar:  # each task reads its filters from afar, and a tap's inputs near
            limit = max(limit, self.target.l3_bytes // 2)
        return inputs * item > limit or outputs * item > 2 * near

    def _reads(self, region: Region) -> list[int]:
        """Inputs that a region reads on each axis."""
        return [
            min(axis.input, (axis.step * (length - 1) + axis.reach) // axis.pitch + 1)
            for axis, length in zip(self.axes, region.size, strict=True)
        ]

    def _pixels(self, region: Region) -> int:
        """Pixels of one phase."""
        sizes = zip(region.size, self.axes, strict=True)
        return region.batch * prod(max(length // axis.pitch, 1) for length, axis in sizes)

    @property
    def _part_phases(self) -> bool:
        """Whether tasks may have phases of their own: their outputs are apart, and no slab has all."""
        kernel = self.kernel
        return isinstance(kernel, Filtering) and not (kernel.accumulate or kernel.destination)

    def _halved(self, region: Region, *, spare: bool) -> Region | None:
        """`region` halved on its outermost axis; with `spare`, not below enough pixels a phase."""
        spatial = self._pixels(region) >= 2 * _PHASE_PIXELS or not spare
        blocks, filtering = region.blocks > 1, isinstance(self.kernel, Filtering)
        if filtering:  # each task takes its inputs to the points
            blocks = blocks and spare and self._tasks(region) < self.threads
        if self.afar:  # tasks of other phases or channels read other filters
            if self._part_phases and spare and not region.apart:
                return region._replace(apart=True)
            spatial = spatial and not (blocks or (filtering and spare))
        if region.batch > 1 and spatial:
            return region._replace(batch=-(-region.batch // 2))
        counts = [-(-o // s) for o, s in zip(region.size, self.units, strict=True)]
        order = [0, 1, 2]
        if self.kernel.source and counts[1] > counts[0]:
            order = [1, 0, 2]  # the squarer, the less halo
        for axis in order if spatial else ():
            unit, steps = self.units[axis], counts[axis]
            if steps > 1 and self.spec.output_size[axis] // region.size[axis] < _CHUNKS // 2:
                size = list(region.size)
                size[axis] = -(-steps // 2) * unit
                return region._replace(size=(size[0], size[1], size[2]))
        if blocks:
            return region._replace(blocks=-(-region.blocks // 2))
        return None
