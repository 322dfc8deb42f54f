"""Follows a plan of the gradient in the filters: fills in the record, hands tasks to the threads."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from convt import jit, target
from convt.gradient_plan import GradientPlan, make_gradient_plan, reaches
from convt.kernels.gradient_record import FIELDS, slot
from convt.memory import address, aligned, workspace
from convt.spec import Spec
from convt.threads import share

__all__ = ["execute_gradient", "filter_gradient"]

Array = npt.NDArray[Any]
_ALONE = 1 << 16  # products up to which one thread does all
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
    values: dict[str, int] = {
        "tasks": plan.blocks * plan.parts,
        "x": address(input),
        "g": address(gradient),
        "y": address(output),
    }
    channels_last = plan.spec.data_format == "NDHWC"
    for name, array in (("x", input), ("g", gradient)):
        n, *rest = array.strides
        strides = (n, *rest) if channels_last else (n, *rest[1:], rest[0])
        values |= {f"{name}_{axis}": s for axis, s in zip("ndhwc", strides, strict=True)}
    d, h, w, out, into = output.strides
    lane, row = (out, into) if plan.kernel.swapped or plan.kernel.along == "groups" else (into, out)
    values |= {"y_d": d, "y_h": h, "y_w": w, "y_row": row, "y_lane": lane}
    values["y_group"] = out * (plan.spec.out_channels // plan.groups)
    threads = threads if plan.products > _ALONE else 1
    partial = aligned(plan.partial_bytes)
    values["partial"] = partial.address
    _share(plan, values, threads)
    if plan.parts > 1:
        values |= {"stage": 1, "tasks": plan.blocks * plan.summed_taps}
        _share(plan, values, threads)


def _share(plan: GradientPlan, values: dict[str, int], threads: int) -> None:
    template, tables = _template(plan)  # the template holds the addresses of the tables
    record = _Record.from_buffer_copy(template)
    for name, value in values.items():
        record[slot(name)] = value
    function = jit.load(plan.kernel, plan.target)
    room = sum(plan.workspace)

    def work() -> None:
        room_here = workspace(room)
        function(record, room_here.address)

    share(work, min(threads, values["tasks"]))
    del tables


@lru_cache(maxsize=512)
def _template(plan: GradientPlan) -> tuple[Any, Any]:
    """The record of every call of `plan`, but for the arrays, and the tables that it refers to."""
    spec = plan.spec
    groups = plan.groups
    tables = [np.fromiter(chain.from_iterable(reaches(spec, axis)), np.int64) for axis in range(3)]
    rows = np.array(plan.row_offsets, np.int64)
    fields: dict[str, int] = {
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
