"""Follows a plan: fills in the record of a call, packs the filters, hands tasks to the threads.

Nothing is decided here. Addresses and strides of the arrays go into a copy of the plan's record; the
compiled kernels do the rest.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from convt import jit
from convt.geometry import Tap
from convt.kernels.record import FIELDS, slot
from convt.plan import Plan
from convt.threads import share

__all__ = ["empty_output", "execute", "pack_filters"]

Array = npt.NDArray[Any]
_ALIGNMENT = 64  # bytes: a cache line, and the widest vector


def empty_output(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """A new C-contiguous array that starts on a cache line; its elements are arbitrary."""
    size = dtype.itemsize
    for length in shape:
        size *= length
    return _aligned(size)[:size].view(dtype).reshape(shape)


def _aligned(size: int) -> npt.NDArray[np.uint8]:
    block = np.empty(size + _ALIGNMENT, np.uint8)
    return block[-block.ctypes.data % _ALIGNMENT :][:size]


def pack_filters(plan: Plan, filters: Array, threads: int) -> Array:
    """Reorder and widen `filters` as the plan's kernel reads them."""
    wide = np.dtype(np.float64 if plan.kernel.wide.code == "f64" else np.float32)
    packed = empty_output((plan.packed_filters,), wide)
    if not packed.size:
        return packed
    spec = plan.computed
    filters = filters.reshape(spec.filters_shape)
    record = _template(plan).copy()
    record[slot("tasks")] = spec.groups * plan.blocks * spec.kernel[0]
    record[slot("filters")] = packed.ctypes.data
    first = slot("source")
    record[first] = filters.ctypes.data
    record[first + 1 : first + 6] = filters.strides
    function = jit.load(plan.pack, plan.target)
    address = record.ctypes.data
    share(lambda _: function(address, 0), threads if packed.size > 1 << 15 else 1)
    return packed


def execute(plan: Plan, input: Array, packed: Array, bias: Array | None, output: Array) -> None:
    """Compute the whole of `output` from `input` and packed filters."""
    if not output.size:
        return
    record = _template(plan).copy()
    wide = packed.dtype
    lanes = empty_output((plan.packed_lanes,), wide)
    lanes.fill(-0.0)  # the one value that changes no sum
    if bias is not None:
        _spread(plan, bias, lanes)
    output = output.reshape(plan.computed.output_shape)
    channels_last = plan.spec.data_format == "NDHWC"
    for name, array in (("x", input), ("y", output)):
        n, *rest = array.strides
        strides = (n, *rest) if channels_last else (n, *rest[1:], rest[0])
        record[slot(name)] = array.ctypes.data
        record[slot(f"{name}_n") : slot(f"{name}_n") + 5] = strides
    record[slot("filters")] = packed.ctypes.data
    record[slot("bias")] = lanes.ctypes.data
    function = jit.load(plan.kernel, plan.target)
    threads = min(plan.threads, plan.tasks)
    room = sum(plan.workspace)
    workspace = _aligned(room * threads)
    address, start = record.ctypes.data, workspace.ctypes.data
    share(lambda index: function(address, start + index * room), threads)


def _spread(plan: Plan, bias: Array, lanes: Array) -> None:
    """Lay out one bias value a lane, group by group."""
    spec = plan.computed
    channels = spec.out_channels // spec.groups
    values = np.tile(bias, spec.out_channels // plan.spec.out_channels)
    lanes.reshape(spec.groups, -1)[:, :channels] = values.reshape(spec.groups, channels)


@lru_cache(maxsize=512)
def _template(plan: Plan) -> npt.NDArray[np.int64]:
    """The record of every call of `plan`, but for the arrays."""
    spec = plan.computed
    offsets = [sum(plan.workspace[:part]) for part in range(4)]
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
        "workspace_runs": offsets[0],
        "workspace_pixels": offsets[1],
        "workspace_input": offsets[2],
        "workspace_output": offsets[3],
    }
    for number, axis in enumerate("dhw"):
        tables = _tables(plan, number)
        for name, table in zip(("chunks", "segments", "taps"), tables, strict=True):
            fields[f"{name}_{axis}"] = table.ctypes.data
        fields[f"{axis}_tasks"] = len(plan.chunks[number])
        fields[f"in_{axis}"] = spec.input_size[number]
        fields[f"out_{axis}"] = spec.output_size[number]
        fields[f"kernel_{axis}"] = spec.kernel[number]
        fields[f"stride_{axis}"] = spec.strides[number]
    record = np.zeros(len(FIELDS), np.int64)
    for name, value in fields.items():
        record[slot(name)] = value
    return record


@lru_cache(maxsize=2048)
def _tables(plan: Plan, axis: int) -> tuple[npt.NDArray[np.int64], ...]:
    """Rows of the chunks, segments and taps of one axis; see kernels/record.py for their columns."""
    chunks: list[tuple[int, ...]] = []
    segments: list[tuple[int, ...]] = []
    taps: list[tuple[int, int]] = []
    places: dict[tuple[Tap, ...], int] = {}
    for chunk in plan.chunks[axis]:
        found = plan.axes[axis].segments(chunk.start, chunk.stop)
        first = len(segments)
        for segment in found:
            if segment.taps not in places:
                places[segment.taps] = len(taps)
                taps.extend((tap.index, tap.shift) for tap in segment.taps)
            place = places[segment.taps]
            end = place + len(segment.taps)
            segments.append((segment.out_first, segment.count, segment.in_first, place, end))
        chunks.append((first, len(segments), chunk.in_first, chunk.in_end, chunk.start, chunk.stop))
    return tuple(
        np.fromiter(chain.from_iterable(rows), np.int64) for rows in (chunks, segments, taps)
    )
