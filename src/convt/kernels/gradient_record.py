"""The record of a call for the gradient in the filters: 64-bit integers in a fixed order.

As `record` for the other kernels: sizes count elements, strides and offsets are bytes. "Lanes" are the
channels that vectors hold, "rows" those of the other side.
"""

from __future__ import annotations

__all__ = ["FIELDS", "POSITION", "REACH", "RUN", "slot"]

_AXES = ("d", "h", "w")
_STRIDES = ("n", "d", "h", "w", "c")

FIELDS: tuple[str, ...] = (
    "next",  # the task that the next free thread takes
    "tasks",
    "stage",  # 0: sums; 1: sums of the parts' sums
    "x",
    "g",  # the gradient in the output
    "y",  # the gradient in the filters
    *(f"x_{axis}" for axis in _STRIDES),
    *(f"g_{axis}" for axis in _STRIDES),
    *(f"y_{axis}" for axis in (*_AXES, "group", "row", "lane")),
    "in_channels",  # in one group
    "out_channels",  # in one group
    "batch",
    *(f"in_{axis}" for axis in _AXES),
    *(f"out_{axis}" for axis in _AXES),
    *(f"kernel_{axis}" for axis in _AXES),
    *(f"stride_{axis}" for axis in _AXES),
    *(f"dilation_{axis}" for axis in _AXES),
    *(f"pad_{axis}" for axis in _AXES),
    *(f"reach_{axis}" for axis in _AXES),  # address of a table: the inputs of every tap
    "folded_first",  # the inputs for which some tap of the width has an output
    "folded_end",
    "row_offsets",  # address of a table: where rows are in the slab, where lanes are positions
    *(f"modulus_{axis}" for axis in _AXES),  # outputs of equal remainder are beside each other
    "row_channels",  # in one group
    "lane_channels",
    "row_step",  # channels in a task
    "lane_step",
    *(f"tap_step_{axis}" for axis in _AXES),  # taps in a task
    *(f"{axis}_blocks" for axis in (*_AXES, "row", "lane")),  # tasks along each axis
    *(f"box_{axis}" for axis in ("n", *_AXES)),  # inputs that are packed at a time
    *(f"{axis}_boxes" for axis in ("n", *_AXES)),
    "parts",  # of the boxes, each summed by tasks of its own
    "part_boxes",  # boxes in a part
    # slabs of the input and of the output's gradient
    *(f"xs_{axis}" for axis in _STRIDES),
    *(f"gs_{axis}" for axis in _STRIDES),
    *(f"phase_{axis}" for axis in _AXES),  # from one remainder to the next
    "workspace_x",
    "workspace_g",
    "workspace_line",
    "line_bytes",  # of one channel
    "workspace_runs",
    "workspace_sums",
    "tap_bytes",  # the sums of a tap, or of all folded taps
    "block_bytes",  # the sums of a task
    "panel_rows",  # rows of sums, filled up to whole tiles
    "partial",  # the address of the parts' sums, if there is more than one part
)
_SLOTS = {name: position for position, name in enumerate(FIELDS)}

REACH = ("first", "end")  # inputs for which a tap has an output
POSITION = ("lane", "row")  # where a position is in both slabs
RUN = ("lane", "row", "count")  # positions that follow each other in both slabs, and how many


def slot(name: str) -> int:
    """The position of the field `name`."""
    return _SLOTS[name]
