"""The record of a call: what a kernel needs to know of it, as 64-bit integers in a fixed order.

A plan fills everything but the addresses and strides of the arrays, once; ``run`` copies it and fills in
those. Sizes are counts of elements, strides and offsets are bytes, and per-axis tables hold plain rows of
integers, so one compiled kernel serves every size.
"""

from __future__ import annotations

__all__ = ["CHUNK", "FIELDS", "PHASE", "RUN", "SEGMENT", "TAP", "WORKSPACE", "slot"]

_AXES = ("d", "h", "w")
_STRIDES = ("n", "d", "h", "w", "c")
WORKSPACE = (
    "runs",
    "totals",
    "pixels",
    "input",
    "output",
    "redo",
    "tiles",
    "zeros",
    "points",
    "sums",
)  # its parts, in order

FIELDS: tuple[str, ...] = (
    "next",  # the task that the next free thread takes
    "tasks",  # number of tasks
    "x",
    "filters",  # packed
    "bias",  # packed, in the type of the sums; -0.0 where there is none
    "y",
    *(f"x_{axis}" for axis in _STRIDES),
    *(f"y_{axis}" for axis in _STRIDES),
    "batch",
    "batch_step",  # batch entries in a task
    "groups",
    "in_channels",  # in one group
    "out_channels",  # in one group
    "blocks",  # blocks of output channels in one group
    "block_step",  # such blocks in a task
    "phases",  # of all axes together
    "phase_step",  # such phases in a task of minimal filtering
    *(f"{axis}_tasks" for axis in ("n", "c", "p", *_AXES)),  # tasks along each axis
    *(f"in_{axis}" for axis in _AXES),
    *(f"out_{axis}" for axis in _AXES),
    *(f"kernel_{axis}" for axis in _AXES),
    *(f"pitch_{axis}" for axis in _AXES),  # from one output of a phase to the next
    *(f"step_{axis}" for axis in _AXES),  # and from its inputs to those of the next
    *(f"chunks_{axis}" for axis in _AXES),  # addresses of the tables of each axis
    *(f"segments_{axis}" for axis in _AXES),
    *(f"taps_{axis}" for axis in _AXES),
    "run_channels",  # input channels in a run
    "joined_channels",  # channels that runs of neighbouring taps may join up to
    "flush_runs",  # runs summed up before they join the total
    "pixel_block",  # pixels whose addresses are listed at a time
    "packed_lanes",  # output channels of a group, filled up to whole vectors
    "tile_block",  # tiles that are transformed at a time
    "transformed",  # packed filters at the points of minimal filtering
    *(f"phases_{axis}" for axis in _AXES),  # addresses of the tables of phases
    *(f"phase_count_{axis}" for axis in _AXES),
    "bases",  # where the filters of each phase begin among the transformed, in bytes
    *(f"workspace_{part}" for part in WORKSPACE),
    # the filters as the caller has them
    "source",
    *(f"source_{axis}" for axis in (*_AXES, "o", "i")),
)
_SLOTS = {name: position for position, name in enumerate(FIELDS)}

# Rows of the per-axis tables.
CHUNK = ("segment_first", "segment_end", "in_first", "in_end", "out_first", "out_end")
SEGMENT = ("out_first", "count", "in_first", "tap_first", "tap_end")
TAP = ("index", "shift")
# A phase of minimal filtering: its outputs are pitch * j + out_first; a tile of outputs from j on reads
# every step-th input from step * (j + in_first) + part on, and a tap reads at step * (j + middle) - shift.
PHASE = (
    "out_first",
    "in_first",
    "part",
    "middle",
    "kind",
    "tile",
    "points",
    "tap_first",
    "tap_end",
)
# A row of the list of runs, which the kernel makes for a box of outputs: where a run starts in the input
# (bytes from the pixel) and in the packed filters (rows), and how many channels it sums.
RUN = ("input", "row", "count")


def slot(name: str) -> int:
    """The position of the field `name`."""
    return _SLOTS[name]
