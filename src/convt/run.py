"""Follows a plan: fills in the record of a call, packs the filters, hands tasks to the threads.

Nothing is decided here. Addresses and strides of the arrays go into a copy of the plan's record; the
compiled kernels do the rest.
"""

from __future__ import annotations

import ctypes
import threading
from functools import lru_cache
from itertools import chain
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from convt import jit
from convt.family import ALIGNED_FROM
from convt.kernels.keys import Filtering
from convt.kernels.record import FIELDS, WORKSPACE, slot
from convt.plan import Plan
from convt.threads import share

__all__ = ["Packed", "empty_output", "execute", "pack_filters"]

Array = npt.NDArray[Any]
ALIGNMENT = 64  # bytes: a cache line, and the widest vector
_KEPT = 16 << 20  # bytes of workspace that a thread keeps from call to call
_PACK_ALONE = 1 << 15  # elements up to which one thread packs filters


class Packed(NamedTuple):
    """A block of memory that starts on a cache line, and its address."""

    array: Array
    address: int


def empty_output(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """A new C-contiguous array, a large one from a cache line on; its elements are arbitrary."""
    size = prod(shape) * dtype.itemsize
    if size < ALIGNED_FROM:
        return np.empty(shape, dtype)
    return _aligned(size).array.view(dtype).reshape(shape)


def pack_filters(plan: Plan, filters: Array, threads: int) -> Packed:
    """Reorder and widen `filters` as the plan's kernel reads them."""
    packed = _aligned(plan.packed_bytes)
    if not plan.packed_filters:
        return packed
    spec = plan.computed
    filters = filters.reshape(spec.filters_shape)
    record = _record(plan)
    record[_TASKS] = spec.groups * plan.blocks * spec.kernel[0]
    record[_FILTERS] = packed.address
    record[_SOURCE : _SOURCE + 6] = (_address(filters), *filters.strides)
    function = _functions(plan)[0]
    count = threads if plan.packed_filters > _PACK_ALONE else 1
    share(lambda: function(record, None), count)
    if plan.transform and plan.filtered:
        again = _record(plan)
        again[_TASKS] = len(plan.filtered.bases) * plan.blocks
        again[_FILTERS] = packed.address
        again[_TRANSFORMED] = packed.address + _transformed(plan)
        transform = jit.load(plan.transform, plan.target)
        share(lambda: transform(again, None), count)
    return packed


def _transformed(plan: Plan) -> int:
    """Where the transformed filters begin among the packed ones, in bytes."""
    return plan.packed_filters * plan.kernel.wide.bytes


def execute(plan: Plan, input: Array, packed: Packed, bias: Array | None, output: Array) -> None:
    """Compute the whole of `output` from `input` and packed filters."""
    if not output.size:
        return
    if plan.computed is not plan.spec:
        output = output.reshape(plan.computed.output_shape)
    lanes = _lanes(plan, bias)
    record = _record(plan)
    record[_X : _X + 4] = (_address(input), packed.address, lanes.address, _address(output))
    record[_TRANSFORMED] = packed.address + _transformed(plan)
    n, *rest = input.strides
    m, *more = output.strides
    if plan.spec.data_format == "NCDHW":
        rest, more = [*rest[1:], rest[0]], [*more[1:], more[0]]
    record[_STRIDES : _STRIDES + 10] = (n, *rest, m, *more)
    function = _functions(plan)[1]
    room = sum(plan.workspace)

    def work() -> None:
        workspace = _workspace(room)
        function(record, workspace.address)

    share(work, min(plan.threads, plan.tasks))


# --- memory -------------------------------------------------------------------------------------
def _address(array: Array) -> int:
    return int(array.ctypes.data)


def _aligned(size: int) -> Packed:
    block = np.empty(size + ALIGNMENT, np.uint8)
    address = _address(block)
    start = -address % ALIGNMENT
    return Packed(block[start : start + size], address + start)


_kept = threading.local()


def _workspace(size: int) -> Packed:
    """Room for one call in this thread; a small one is kept for the next."""
    if size > _KEPT:
        return _aligned(size)
    block: Packed | None = getattr(_kept, "block", None)
    if block is None or block.array.size < size:
        block = _kept.block = _aligned(size)
    return block


def _lanes(plan: Plan, bias: Array | None) -> Packed:
    """One bias value a lane, group by group; -0.0, which changes no sum, where there is none."""
    if bias is None:
        return _no_bias(plan.packed_lanes, plan.kernel.wide.bytes)
    spec = plan.computed
    lanes = _minus_zeros(plan.packed_lanes, plan.kernel.wide.bytes)
    channels = spec.out_channels // spec.groups
    values = np.tile(bias, spec.out_channels // plan.spec.out_channels)
    wide = lanes.array.view(np.float64 if plan.kernel.wide.code == "f64" else np.float32)
    wide.reshape(spec.groups, -1)[:, :channels] = values.reshape(spec.groups, channels)
    return lanes


def _minus_zeros(count: int, item: int) -> Packed:
    values = _aligned(count * item)
    values.array.view(np.float64 if item == 8 else np.float32).fill(-0.0)
    return values


_no_bias = lru_cache(maxsize=64)(_minus_zeros)


# --- the record of a call -----------------------------------------------------------------------
_TASKS, _X, _FILTERS, _TRANSFORMED, _STRIDES, _SOURCE = map(
    slot, ("tasks", "x", "filters", "transformed", "x_n", "source")
)
_Record = ctypes.c_int64 * len(FIELDS)


@lru_cache(maxsize=512)
def _functions(plan: Plan) -> tuple[jit.Function, jit.Function]:
    """What packs the plan's filters, and what computes."""
    return jit.load(plan.pack, plan.target), jit.load(plan.kernel, plan.target)


def _record(plan: Plan) -> Any:
    """A record of `plan` for one call."""
    return _Record.from_buffer_copy(_template(plan))


@lru_cache(maxsize=512)
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
        "n_tasks": -(-spec.batch // plan.batch_step),
        "c_tasks": -(-plan.blocks // plan.block_step),
        "run_channels": plan.run_channels,
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
        fields[f"phase_count_{axis}"] = len(plan.axes[number].phases)
        fields[f"{axis}_tasks"] = len(plan.chunks[number])
        fields[f"in_{axis}"] = spec.input_size[number]
        fields[f"out_{axis}"] = spec.output_size[number]
        fields[f"kernel_{axis}"] = spec.kernel[number]
        fields[f"stride_{axis}"] = spec.strides[number]
    record = _Record()
    for name, value in fields.items():
        record[slot(name)] = value
    return record


@lru_cache(maxsize=2048)
def _tables(plan: Plan, axis: int) -> tuple[npt.NDArray[np.int64], ...]:
    """Rows of the chunks, segments and taps of one axis; see kernels/record.py for their columns."""
    chunks: list[tuple[int, ...]] = []
    segments: list[tuple[int, ...]] = []
    taps: list[tuple[int, int]] = []
    places: dict[int, int] = {}  # where the taps of a phase begin
    for phase in plan.axes[axis].phases:
        places[phase.residue] = len(taps)
        taps.extend((tap.index, tap.shift) for tap in phase.taps)
    for chunk in plan.chunks[axis]:
        first = len(segments)
        for segment in plan.axes[axis].segments(chunk.start, chunk.stop):
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


def _phases(plan: Plan, number: int, places: dict[int, int]) -> list[tuple[int, ...]]:
    """Rows of the table of phases of one axis, for minimal filtering."""
    assert plan.filtered is not None
    assert isinstance(plan.kernel, Filtering)
    axis, kinds = plan.axes[number], plan.filtered.kinds[number]
    found = (plan.kernel.depth, plan.kernel.height, plan.kernel.width)[number]
    rows: list[tuple[int, ...]] = []
    for phase, kind in zip(axis.phases, kinds, strict=True):
        first = (phase.residue - axis.pad_before) % axis.stride
        middle = (first + axis.pad_before) // axis.stride
        place = places[phase.residue]
        taps = (place, place + len(phase.taps))
        reach = middle - phase.taps[-1].shift
        rows.append((first, reach, middle, found.index(kind), kind[0], *taps))
    return rows


@lru_cache(maxsize=512)
def _bases(plan: Plan) -> npt.NDArray[np.int64]:
    """Bytes before the transformed filters of each phase."""
    bases = plan.filtered.bases if plan.filtered else (0,)
    return np.array(bases, np.int64) * plan.kernel.wide.bytes
