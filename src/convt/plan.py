"""Spec + geometry + target -> a frozen, printable Plan: kernel, chunks, tasks, workspace.

Pure: no array is touched and nothing is compiled. Every choice of how to compute is made here, in `family`
(which kernel) and in `cut` (which tasks), from numbers that the plan keeps; ``run`` follows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod

from convt.cut import SMALL, Chunk, Cutter, Region, chunks
from convt.family import CODES, Access, Choice, choose, joined_taps, products
from convt.fast import Filtered
from convt.geometry import Axis, axes
from convt.kernels.keys import (
    Channels,
    Dots,
    Element,
    Filtering,
    PackFilters,
    Rows,
    TransformFilters,
)
from convt.spec import Spec
from convt.target import Target

__all__ = ["Access", "Chunk", "Plan", "make_plan", "reads", "restrict", "units"]

_RUN = 256  # products of one tap in one chain of additions, at most; see kernels/sums.py
_GROUP = 128  # products that chains of several taps may add up to: longer ones cost accuracy
_TOTALS = 4096  # bytes that hold the sums of any tile: 32 registers of 64 bytes, twice
_POINT_RUN = 64  # products in one chain at the points of minimal filtering, where errors weigh more
_PIXELS = 240  # pixels whose addresses are listed at a time: their input stays in the first caches


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How one problem is computed. Equal problems share one plan, which is only equal to itself."""

    spec: Spec  # as posed
    computed: Spec  # as computed: `spec`, or an equal problem
    target: Target
    axes: tuple[Axis, Axis, Axis]  # of the problem as computed
    kernel: Channels | Dots | Filtering | Rows
    reason: str  # why this kernel
    pack: PackFilters
    chunks: tuple[tuple[Chunk, ...], ...]  # of the outputs: depth, height, width
    batch_step: int  # batch entries in a task
    blocks: int  # blocks of output channels in a group
    block_step: int  # such blocks in a task
    phases: int  # of all axes together
    phase_step: int  # such phases in a task
    run_channels: int  # input channels in one chain of additions
    joined_channels: int  # that chains of neighbouring taps may join up to
    flush_runs: int  # chains summed up before they join the total
    pixel_block: int  # pixels listed at a time; 0: the kernel lists none
    packed_filters: int  # elements
    packed_lanes: int  # output channels of all groups, filled up to whole vectors
    workspace: tuple[int, ...]  # bytes: runs, totals, pixels, slabs of input and output
    threads: int  # that share the tasks
    products: int  # multiplications of the definition
    filtered: Filtered | None = None  # where the kernel is one of minimal filtering

    @property
    def tasks(self) -> int:
        """Tasks that the threads share."""
        counts = [len(axis) for axis in self.chunks]
        batches = -(-self.computed.batch // self.batch_step)
        blocks = -(-self.blocks // self.block_step) * -(-self.phases // self.phase_step)
        return prod(counts) * batches * self.computed.groups * blocks

    @property
    def workspace_bytes(self) -> int:
        """Memory beside input, filters and output: packed filters, and what each thread works in."""
        return self.packed_bytes + min(self.threads, self.tasks) * sum(self.workspace)

    @property
    def packed_bytes(self) -> int:
        """Bytes of the packed filters, and of the transformed ones."""
        extra = self.filtered.elements if self.filtered else 0
        return (self.packed_filters + extra) * self.kernel.wide.bytes

    @property
    def transform(self) -> TransformFilters | None:
        """What takes the packed filters to the points of minimal filtering."""
        return TransformFilters(self.kernel) if isinstance(self.kernel, Filtering) else None


@lru_cache(maxsize=512)
def make_plan(
    spec: Spec,
    target: Target,
    access: Access,
    threads: int,
    *,
    family: str | None = None,
    finite: bool = True,
    algorithm: str = "direct",
    bound: bool = False,
) -> Plan:
    """Choose how to compute `spec` on `target` with up to `threads` threads.

    `family` asks for one of the families, "channels", "dots", "rows" or "filtering"; ValueError if it can't
    serve the problem. `finite` says that every filter value is a finite number, which dots and rows depend
    on. `algorithm` is "direct", or "auto" or "fast" to allow minimal filtering; `bound`, that filters are
    transformed once for many calls.
    """
    choice = choose(spec, target, access, family, finite=finite, algorithm=algorithm, bound=bound)
    kernel, computed, reason, found = choice
    shape, work = axes(computed), products(computed)
    threads = threads if work > SMALL else 1
    in_channels, channels = (
        c // computed.groups for c in (computed.in_channels, computed.out_channels)
    )
    blocks = _block_count(kernel, channels)
    tail = kernel.tail * (1 if kernel.rows else kernel.lanes)
    group_lanes = (blocks - bool(tail)) * kernel.block_channels + tail
    units = found.units if found else tuple(axis.pitch for axis in shape)
    afar = found.afar if found else kernel.by_taps
    region = Cutter(computed, target, shape, kernel, units, blocks, threads, work, afar).cut()
    phases = prod(len(axis.correlations) for axis in shape)
    pieces = [chunks(axis, length) for axis, length in zip(shape, region.size, strict=True)]
    if isinstance(kernel, Dots | Rows):
        pieces[2] = [_row_chunk(c, kernel, computed.pad_before[2]) for c in pieces[2]]
    spread = _spread(kernel)
    longest, group = (_POINT_RUN, _POINT_RUN) if found else (_RUN, _GROUP)
    lanes = kernel.lanes if isinstance(kernel, Dots) else 1  # each has a chain of its own
    run = max(min(in_channels // lanes, longest // spread), 1) * lanes
    joined = run * (1 if found else joined_taps(kernel, shape[2], run, group))
    return Plan(
        spec=spec,
        computed=computed,
        target=target,
        axes=shape,
        kernel=kernel,
        reason=reason,
        pack=PackFilters(
            wide=kernel.wide,
            source=Element(CODES[spec.dtype.name], access.filters_swapped),
            block=kernel.block_channels,
            tail=tail,
            by_rows=isinstance(kernel, Rows),
        ),
        chunks=tuple(map(tuple, pieces)),
        batch_step=region.batch,
        blocks=blocks,
        block_step=region.blocks,
        phases=phases,
        phase_step=1 if region.apart else max(phases, 1),
        run_channels=run,
        joined_channels=joined,
        flush_runs=max(group * lanes // (joined * spread), 1),
        pixel_block=_pixel_block(kernel),
        packed_filters=prod(spec.kernel) * in_channels * computed.groups * group_lanes,
        packed_lanes=group_lanes * computed.groups,
        workspace=_workspace(computed, shape, choice, region, pieces, run),
        filtered=found,
        threads=threads,
        products=work,
    )


def restrict(plan: Plan, batch: int, ranges: Sequence[tuple[int, int]]) -> Plan:
    """`plan` for a part of its outputs: some of its batch, and a range of each axis.

    Coordinates stay those of the whole, and so do the kernel and the order of every sum: the part gets the
    bits that the whole would have there. Ranges start at multiples of `units`; the plan is not folded.
    """
    pieces = []
    for axis, whole, (start, stop) in zip(plan.axes, plan.chunks, ranges, strict=True):
        cut = ((max(c.start, start), min(c.stop, stop)) for c in whole)
        pieces.append([Chunk(a, b, *axis.input_range(a, b)) for a, b in cut if a < b])
    if isinstance(plan.kernel, Dots | Rows):
        pad = plan.computed.pad_before[2]
        pieces[2] = [_row_chunk(chunk, plan.kernel, pad) for chunk in pieces[2]]
    same = plan.computed is plan.spec
    spec = replace(plan.spec, batch=batch)
    computed = spec if same else replace(plan.computed, batch=batch)
    return replace(plan, spec=spec, computed=computed, chunks=tuple(map(tuple, pieces)))


def units(plan: Plan) -> tuple[int, ...]:
    """Outputs of each axis that stay together in any part of the plan."""
    return plan.filtered.units if plan.filtered else tuple(axis.pitch for axis in plan.axes)


def reads(plan: Plan) -> list[tuple[int, int]]:
    """The inputs of each axis, from first to one past the last, that the plan's tasks load."""
    found = []
    for number, (axis, unit, pieces) in enumerate(
        zip(plan.axes, units(plan), plan.chunks, strict=True)
    ):
        first = min((c.in_first for c in pieces if c.in_first < c.in_end), default=0)
        end = max((c.in_end for c in pieces if c.in_first < c.in_end), default=0)
        if isinstance(plan.kernel, Dots | Rows) and number == 2:
            first, end = first * plan.kernel.parts, end * plan.kernel.parts
        elif plan.filtered and pieces:  # a tile loads what its outputs beyond the end would read
            whole = replace(axis, output=axis.output + unit)
            start, stop = pieces[0].start, -(-pieces[-1].stop // unit) * unit
            first, end = whole.input_range(start, stop)
        found.append((min(max(first, 0), axis.input), max(min(end, axis.input), 0)))
    return [(min(first, end), end) for first, end in found]


def _block_count(kernel: Channels | Dots | Filtering | Rows, channels: int) -> int:
    """Blocks of output channels in a group: the last one may be wider than the others."""
    if kernel.rows:
        return -(-channels // kernel.block_channels)
    whole = -(-channels // kernel.lanes) - kernel.tail
    return -(-whole // (kernel.block_channels // kernel.lanes)) + bool(kernel.tail)


def _spread(kernel: Channels | Dots | Filtering | Rows) -> int:
    """Products that one input channel adds to an output in one run, at most."""
    if not isinstance(kernel, Dots | Rows):
        return 1
    return max(sum(t.phase == phase for t in kernel.taps) for phase in range(kernel.phases)) or 1


def _pixel_block(kernel: Channels | Dots | Filtering | Rows) -> int:
    if not isinstance(kernel, Channels):
        return 0
    return max(_PIXELS // kernel.pixels, 1) * kernel.pixels


def _workspace(
    spec: Spec,
    shape: tuple[Axis, Axis, Axis],
    choice: Choice,
    region: Region,
    pieces: list[list[Chunk]],
    run: int,
) -> tuple[int, ...]:
    """Bytes of each part of a thread's workspace; see kernels/record.py."""
    kernel, found = choice.kernel, choice.filtered
    in_channels, channels = (c // spec.groups for c in (spec.in_channels, spec.out_channels))
    wide = max(kernel.tail * kernel.lanes - kernel.block_channels, 0) if not kernel.rows else 0
    out_channels = min(region.blocks * kernel.block_channels + wide, channels)
    if kernel.depthwise:
        in_channels = out_channels
    taps = prod(max((len(p.taps) for p in axis.phases), default=0) for axis in shape)
    inputs = prod(max((c.in_end - c.in_first for c in axis), default=0) for axis in pieces)
    if isinstance(kernel, Rows):
        inputs *= kernel.parts
    outputs = prod(max((c.stop - c.start for c in axis), default=0) for axis in pieces)
    item, runs = kernel.wide.bytes, 24 * -(-in_channels // run)
    listed = _pixel_block(kernel) + kernel.pixels if isinstance(kernel, Channels) else 0
    slabs = (
        inputs * region.batch * in_channels * item if kernel.source else 0,
        outputs * region.batch * out_channels * item if kernel.destination else 0,
    )
    zeros = in_channels * item if isinstance(kernel, Dots) else 0
    sizes = (runs * taps, _TOTALS, 16 * listed, *slabs, 0, 0, zeros, 0, 0)
    if found and isinstance(kernel, Filtering):
        tiles, points = found.tile_block, found.points
        padded, packed = (-(-c // kernel.lanes) * kernel.lanes for c in (in_channels, channels))
        sizes = (
            0,
            _TOTALS,
            0,
            *slabs,
            runs * taps,
            32 * tiles,
            max(padded, packed) * item,
            points * tiles * padded * item,
            points * tiles * packed * item,
        )
    return tuple(-(-size // 64) * 64 for size in sizes)


def _row_chunk(chunk: Chunk, kernel: Dots | Rows, pad: int) -> Chunk:
    """The same outputs, with the columns that whole tiles of a row load, beyond the input too.

    Of a convolution, columns of each part of the input.
    """
    columns = -(-(chunk.stop - chunk.start) // kernel.phases)
    before = -(pad // kernel.stride) if kernel.forward else pad // kernel.stride
    first = chunk.start // kernel.phases + before - kernel.margin
    return chunk._replace(in_first=first, in_end=first + kernel.reads(columns, kernel.columns))
