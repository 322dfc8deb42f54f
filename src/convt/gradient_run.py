"""Follows a plan of the gradient in the filters: fills in the record, hands tasks to the threads."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from convt import jit, target
from convt.gradient_plan import GradientPlan, make_gradient_plan, reaches
from convt.kernels.gradient_record import FIELDS, slot
from convt.memory import address, empty_output, workspace
from convt.spec import Spec
from convt.threads import share

__all__ = ["execute_gradient", "filter_gradient"]

Array = npt.NDArray[Any]
_ALONE = 1 << 16  # products up to which one thread does all
_NEXT, _TASKS, _ARRAYS, _PARTIAL = map(slot, ("next", "tasks", "x", "partial"))
_Record = ctypes.c_int64 * len(FIELDS)


def filter_gradient(spec: Spec, input: Array, gradient: Array, output: Array, threads: int) -> None:
    """Compute the whole of `output`, the gradient in the filters, from arrays of which none is empty."""
    for finite in (True, False):
        plan = make_gradient_plan(
            spec,
            target.host(),
            input_swapped=not input.dtype.isnative,
            gradient_swapped=not gradient.dtype.isnative,
            finite=finite,
        )
        execute_gradient(plan, input, gradient, output, threads)
        if not plan.kernel.folded or np.isfinite(output).all():
            return


def execute_gradient(
    plan: GradientPlan, input: Array, gradient: Array, output: Array, threads: int
) -> None:
    """Follow `plan`."""
    call = _call(plan)
    record: Any = _Record.from_buffer_copy(call.template)
    places = (address(input), address(gradient), address(output))
    d, h, w, out, into = output.strides
    sides = (into, out) if call.lanes_out else (out, into)
    strides = (*_strides(plan, input), *_strides(plan, gradient))
    arrays = (*places, *strides, d, h, w, out * call.group_channels, *sides)
    record[_ARRAYS : _ARRAYS + len(arrays)] = arrays
    threads = threads if plan.products > _ALONE else 1
    if call.partial_bytes:
        partial = empty_output((call.partial_bytes,), np.dtype(np.uint8))  # kept for the next call
        record[_PARTIAL] = address(partial)
    _share(call, record, threads)
    if call.partial_bytes:
        record[_NEXT : _NEXT + 3] = (0, call.added, 1)
        _share(call, record, threads)


def _strides(plan: GradientPlan, array: Array) -> tuple[int, ...]:
    """Bytes along batch, depth, height, width and channels."""
    if plan.spec.data_format == "NDHWC":
        return array.strides
    n, c, *rest = array.strides
    return (n, *rest, c)


def _share(call: _Call, record: Any, threads: int) -> None:
    def work() -> None:
        room = workspace(call.room)
        call.function(record, room.address)

    share(work, min(threads, record[_TASKS]))


class _Call(NamedTuple):
    """What all calls of a plan share."""

    template: Any  # the record, but for the arrays
    tables: Any  # which the record holds the addresses of
    function: jit.Function
    room: int  # bytes of a thread's workspace
    partial_bytes: int  # of the parts' sums
    added: int  # tasks of the second stage
    lanes_out: bool  # lanes are output channels
    group_channels: int  # output channels in a group


@lru_cache(maxsize=512)
def _call(plan: GradientPlan) -> _Call:
    template, tables = _template(plan)
    return _Call(
        template,
        tables,
        jit.load(plan.kernel, plan.target),
        sum(plan.workspace),
        plan.partial_bytes,
        plan.blocks * plan.summed_taps,
        plan.kernel.swapped or plan.kernel.along == "groups",
        plan.spec.out_channels // plan.groups,
    )


def _template(plan: GradientPlan) -> tuple[Any, Any]:
    """The record of every call of `plan`, but for the arrays, and the tables that it refers to."""
    spec = plan.spec
    groups = plan.groups
    tables = [np.fromiter(chain.from_iterable(reaches(spec, axis)), np.int64) for axis in range(3)]
    rows = np.array(plan.row_offsets, np.int64)
    fields: dict[str, int] = {
        "tasks": plan.blocks * plan.parts,
        "in_channels": spec.in_channels // groups,
        "out_channels": spec.out_channels // groups,
        "batch": spec.batch,
        "row_channels": plan.row_channels,
        "lane_channels": plan.lane_channels,
        "row_step": plan.row_step,
        "lane_step": plan.lane_step,
        "row_blocks": -(-plan.row_channels // plan.row_step),
        "lane_blocks": -(-plan.lane_channels // plan.lane_step),
        "parts": plan.parts,
        "part_boxes": plan.part_boxes,
        "tap_bytes": plan.tap_bytes,
        "block_bytes": plan.block_bytes,
        "panel_rows": plan.panel_rows,
        "folded_first": plan.folded_reach.first,
        "folded_end": plan.folded_reach.end,
        "row_offsets": address(rows),
        "line_bytes": plan.line_bytes,
    }
    for axis, box, count in zip("ndhw", plan.box, plan.boxes, strict=True):
        fields |= {f"box_{axis}": box, f"{axis}_boxes": count}
    for name, slab in (("xs", plan.input_slab), ("gs", plan.output_slab)):
        fields |= {f"{name}_{axis}": s for axis, s in zip("ndhwc", slab[:5], strict=True)}
    for number, axis in enumerate("dhw"):
        fields |= {
            f"in_{axis}": spec.input_size[number],
            f"out_{axis}": spec.output_size[number],
            f"kernel_{axis}": spec.kernel[number],
            f"stride_{axis}": spec.strides[number],
            f"dilation_{axis}": spec.dilations[number],
            f"pad_{axis}": spec.pad_before[number],
            f"reach_{axis}": address(tables[number]),
            f"modulus_{axis}": plan.modulus[number],
            f"tap_step_{axis}": plan.tap_step[number],
            f"{axis}_blocks": plan.tap_blocks[number],
            f"phase_{axis}": plan.places[number] * plan.output_slab[1 + number],
        }
    place = 0
    for part, size in zip(("x", "g", "line", "runs", "sums"), plan.workspace, strict=True):
        fields[f"workspace_{part}"] = place
        place += size
    record = _Record()
    for name, value in fields.items():
        record[slot(name)] = value
    return record, (tables, rows)
