"""Follows a plan: fills in the record of a call, packs the filters, hands tasks to the threads.

Nothing is decided here. Addresses and strides of the arrays go into a copy of the plan's record; the
compiled kernels do the rest.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache, partial
from itertools import chain
from operator import itemgetter
from struct import Struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from convt import jit
from convt.cut import Chunk
from convt.geometry import Segment
from convt.kernels.keys import Filtering, Rows
from convt.kernels.record import FIELDS, WORKSPACE, slot
from convt.memory import ALIGNMENT, Block, address, aligned, empty_output, recycled, workspace
from convt.plan import Plan
from convt.threads import share

__all__ = ["empty_output", "execute", "pack_filters"]

Array = npt.NDArray[Any]
_PACK_ALONE = 1 << 15  # elements up to which one thread packs filters


def pack_filters(plan: Plan, filters: Array, threads: int, *, once: bool = False) -> Block:
    """Reorder and widen `filters` as the plan's kernel reads them; `once`: for a single call."""
    call = _call(plan)
    packed = recycled(call.packed_bytes) if once else aligned(call.packed_bytes)
    if not plan.packed_filters:
        return packed
    filters = filters.reshape(call.filters_shape)
    record = _Record.from_buffer_copy(call.template)
    record[_TASKS] = call.pack_tasks
    record[_FILTERS] = packed.address
    _SIX.pack_into(record, 8 * _SOURCE, address(filters), *filters.strides)
    count = threads if plan.packed_filters > _PACK_ALONE else 1
    share(partial(call.pack, record, None), count)
    if (transform := call.transform) and plan.filtered:
        again = _Record.from_buffer_copy(call.template)
        again[_TASKS] = len(plan.filtered.bases) * plan.blocks
        again[_FILTERS] = packed.address
        again[_TRANSFORMED] = packed.address + call.transformed
        share(partial(transform, again, None), count)
    return packed


def execute(plan: Plan, input: Array, packed: Block, bias: Array | None, output: Array) -> None:
    """Compute the whole of `output` from `input` and packed filters."""
    if not output.size:
        return
    if plan.computed is not plan.spec:
        output = output.reshape(plan.computed.output_shape)
    call = _call(plan)
    lanes = call.no_bias if bias is None else _lanes(plan, bias)
    strides = input.strides + output.strides
    if call.unusual:
        strides = _in_order(plan, strides, input.itemsize)
    record = _Record.from_buffer_copy(call.template)
    places = (address(input), packed.address, lanes.address, address(output))
    _FOURTEEN.pack_into(record, 8 * _X, *places, *strides)
    record[_TRANSFORMED] = packed.address + call.transformed

    def work() -> None:
        room = workspace(call.room)
        call.compute(record, room.address)

    share(work, call.threads)


def _in_order(plan: Plan, strides: tuple[int, ...], item: int) -> tuple[int, ...]:
    """The strides of input and output along batch, depth, height, width and channels."""
    if plan.spec.data_format == "NCDHW":
        strides = _CHANNELS_LAST(strides)
    if plan.spec.in_channels == 1:  # its stride is any number, and kernels take it for an element's
        strides = (*strides[:4], item, *strides[5:])
    return strides


def _lanes(plan: Plan, bias: Array) -> Block:
    """One bias value a lane, group by group."""
    spec, item = plan.computed, plan.kernel.wide.bytes
    place = address(bias)
    wide = bias.dtype.isnative and bias.itemsize == item and bias.strides == (item,)
    if wide and bias.size == plan.packed_lanes and place % ALIGNMENT == 0:
        return Block(bias, place)  # as it is
    lanes = _minus_zeros(plan.packed_lanes, item)
    filled = lanes.array.view(np.float64 if item == 8 else np.float32)
    filled = filled.reshape(spec.groups, -1)[:, : spec.out_channels // spec.groups]
    # Where taps act as channels, every tap has the bias of its output channel.
    filled.reshape(spec.groups, -1, plan.spec.out_channels // spec.groups)[...] = bias.reshape(
        spec.groups, 1, -1
    )
    return lanes


def _minus_zeros(count: int, item: int) -> Block:
    """-0.0 in every lane, which changes no sum."""
    values = aligned(count * item)
    values.array.view(np.float64 if item == 8 else np.float32).fill(-0.0)
    return values


_no_bias = lru_cache(maxsize=64)(_minus_zeros)


# --- the record of a call -----------------------------------------------------------------------
_TASKS, _X, _FILTERS, _TRANSFORMED, _SOURCE = map(
    slot, ("tasks", "x", "filters", "transformed", "source")
)
_HEIGHT = 1  # the axis
_FOURTEEN = Struct("14q")  # four arrays, and the strides of two
_SIX = Struct("6q")  # an array and its strides
_CHANNELS_LAST = itemgetter(0, 2, 3, 4, 1, 5, 7, 8, 9, 6)  # of five strides and five
_Record = ctypes.c_int64 * len(FIELDS)


class _Call(NamedTuple):
    """What every call of a plan shares."""

    pack: jit.Function
    transform: jit.Function | None
    pack_tasks: int
    filters_shape: tuple[int, ...]
    packed_bytes: int
    compute: jit.Function
    template: Any  # the record, but for the arrays
    room: int  # bytes of workspace of a thread
    threads: int
    transformed: int  # where transformed filters begin among the packed ones, in bytes
    no_bias: Block
    unusual: bool  # strides are not the record's as they come


@lru_cache(maxsize=512)
def _call(plan: Plan) -> _Call:
    spec = plan.computed
    kernels = [kernel for kernel in (plan.pack, plan.transform, plan.kernel) if kernel]
    pack, *transform, compute = jit.load_all(kernels, plan.target)
    return _Call(
        pack,
        transform[0] if transform else None,
        spec.groups * plan.blocks * spec.kernel[0],
        spec.filters_shape,
        plan.packed_bytes,
        compute,
        _template(plan),
        sum(plan.workspace),
        min(plan.threads, plan.tasks),
        plan.packed_filters * plan.kernel.wide.bytes,
        _no_bias(plan.packed_lanes, plan.kernel.wide.bytes),
        plan.spec.data_format != "NDHWC" or plan.spec.in_channels == 1,
    )


def _template(plan: Plan) -> Any:
    """The record of every call of `plan`, but for the arrays."""
    spec = plan.computed
    fields: dict[str, int] = {
        "tasks": plan.tasks,
        "batch": spec.batch,
        "batch_step": plan.batch_step,
        "groups": spec.groups,
        "in_channels": spec.in_channels // spec.groups,
        "out_channels": spec.out_channels // spec.groups,
        "blocks": plan.blocks,
        "block_step": plan.block_step,
        "phases": plan.phases,
        "phase_step": plan.phase_step,
        "n_tasks": -(-spec.batch // plan.batch_step),
        "c_tasks": -(-plan.blocks // plan.block_step),
        "p_tasks": -(-plan.phases // plan.phase_step),
        "run_channels": plan.run_channels,
        "joined_channels": plan.joined_channels,
        "flush_runs": plan.flush_runs,
        "pixel_block": plan.pixel_block,
        "packed_lanes": plan.packed_lanes // spec.groups,
        "tile_block": plan.filtered.tile_block if plan.filtered else 0,
        "bases": _bases(plan).ctypes.data,
    }
    place = 0
    for part, size in zip(WORKSPACE, plan.workspace, strict=True):
        fields[f"workspace_{part}"] = place
        place += size
    for number, axis in enumerate("dhw"):
        tables = _tables(plan, number)
        for name, table in zip(("chunks", "segments", "taps", "phases"), tables, strict=True):
            fields[f"{name}_{axis}"] = table.ctypes.data
        fields[f"phase_count_{axis}"] = len(plan.axes[number].correlations)
        fields[f"{axis}_tasks"] = len(plan.chunks[number])
        fields[f"in_{axis}"] = spec.input_size[number]
        fields[f"out_{axis}"] = spec.output_size[number]
        fields[f"kernel_{axis}"] = spec.kernel[number]
        fields[f"pitch_{axis}"] = plan.axes[number].pitch
        fields[f"step_{axis}"] = plan.axes[number].step
    record = _Record()
    for name, value in fields.items():
        record[slot(name)] = value
    return record


@lru_cache(maxsize=2048)
def _tables(plan: Plan, axis: int) -> tuple[npt.NDArray[np.int64], ...]:
    """Rows of the chunks, segments and taps of one axis; see kernels/record.py for their columns."""
    whole = plan.axes[axis]
    chunks: list[tuple[int, ...]] = []
    segments: list[tuple[int, ...]] = []
    taps: list[tuple[int, int]] = []
    places: dict[int, int] = {}  # where the taps of a phase begin
    for phase in whole.correlations if plan.filtered else whole.phases:
        places[phase.residue] = len(taps)
        part = phase.residue if whole.forward and plan.filtered else 0
        step = whole.step if plan.filtered else 1
        taps.extend((tap.index, step * tap.shift - part) for tap in phase.taps)
    for chunk in plan.chunks[axis]:
        first = len(segments)
        for segment in _segments(plan, axis, chunk):
            place = places[segment.phase.residue]
            segments.append(
                (
                    segment.out_first,
                    segment.count,
                    segment.in_first,
                    place + segment.tap_first,
                    place + segment.tap_end,
                )
            )
        chunks.append((first, len(segments), chunk.in_first, chunk.in_end, chunk.start, chunk.stop))
    phases = _phases(plan, axis, places) if plan.filtered else []
    return tuple(
        np.fromiter(chain.from_iterable(rows), np.int64)
        for rows in (chunks, segments, taps, phases)
    )


def _segments(plan: Plan, number: int, chunk: Chunk) -> tuple[Segment, ...]:
    """What the kernel walks on an axis: outputs that the same taps reach, or those that each tap does."""
    axis = plan.axes[number]
    if plan.filtered:
        return ()
    if plan.kernel.by_taps:
        return axis.reaches(chunk.start, chunk.stop)
    grouped = isinstance(plan.kernel, Rows) and plan.kernel.lines > 1 and number == _HEIGHT
    return (axis.groups if grouped else axis.segments)(chunk.start, chunk.stop)


def _phases(plan: Plan, number: int, places: dict[int, int]) -> list[tuple[int, ...]]:
    """Rows of the table of phases of one axis, for minimal filtering."""
    assert plan.filtered is not None
    assert isinstance(plan.kernel, Filtering)
    axis, kinds = plan.axes[number], plan.filtered.kinds[number]
    found = (plan.kernel.depth, plan.kernel.height, plan.kernel.width)[number]
    rows: list[tuple[int, ...]] = []
    for phase, kind in zip(axis.correlations, kinds, strict=True):
        first = 0 if axis.forward else (phase.residue - axis.pad_before) % axis.stride
        middle = (first + axis.lead) // axis.pitch
        part = phase.residue if axis.forward else 0
        place = places[phase.residue]
        taps = (place, place + len(phase.taps))
        reach = middle - phase.taps[-1].shift
        points = sum(kind) - 1
        rows.append((first, reach, part, middle, found.index(kind), kind[0], points, *taps))
    return rows


@lru_cache(maxsize=512)
def _bases(plan: Plan) -> npt.NDArray[np.int64]:
    """Bytes before the transformed filters of each phase."""
    bases = plan.filtered.bases if plan.filtered else (0,)
    return np.array(bases, np.int64) * plan.kernel.wide.bytes
