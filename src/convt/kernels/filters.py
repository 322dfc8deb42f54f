"""Packing filters, widened: ``[block][tap][input channel][lane]``, or with the width's taps innermost.

The caller's array may have any strides, element type and byte order. Lanes beyond the last output channel
are zero; what they compute is stored nowhere.
"""

from __future__ import annotations

from convt.kernels import ir
from convt.kernels.builder import PTR, Builder
from convt.kernels.copy import emit_copy
from convt.kernels.driver import Fields, tasks
from convt.kernels.elements import number
from convt.kernels.ir import Value
from convt.kernels.keys import PackFilters
from convt.target import Target

__all__ = ["emit"]


def emit(kernel: PackFilters, target: Target) -> ir.Module:
    """The packing kernel; a task is one block of output channels and one depth of the kernel."""
    module = ir.Module(kernel.name)
    run = ir.Function(module, "run", [PTR, PTR])
    b = Builder(run, fma=target.fma)
    fields = Fields(b, run.args[0])
    with tasks(b, fields) as index:
        _task(b, kernel, target, fields, index)
    b.ret_void()
    return module


def _task(b: Builder, kernel: PackFilters, target: Target, fields: Fields, index: Value) -> None:
    copy = emit_copy(b.module, target, kernel.source, kernel.wide, few=())
    size = kernel.wide.bytes
    channels, blocks = fields["in_channels"], fields["blocks"]
    depth = b.srem(index, fields["kernel_d"])
    index = b.sdiv(index, fields["kernel_d"])
    block, group = b.srem(index, blocks), b.sdiv(index, blocks)
    # Channels out: where this block starts, how many it has, how many lanes it is packed to.
    first = b.mul(block, b.i64(kernel.block))
    last = b.icmp_signed("==", block, b.sub(blocks, b.i64(1)))
    lanes = b.select(last, b.i64(kernel.tail or kernel.block), b.i64(kernel.block))
    count = b.minimum(lanes, b.sub(fields["out_channels"], first))
    group_lanes = b.sub(
        b.mul(blocks, b.i64(kernel.block)), b.i64(kernel.block - (kernel.tail or kernel.block))
    )
    plane = b.mul(fields["kernel_h"], fields["kernel_w"])
    rows = b.mul(channels, b.mul(plane, fields["kernel_d"]))
    lanes_before = b.add(b.mul(group, group_lanes), first)
    packed = b.at(fields.pointer("filters"), b.mul(b.mul(lanes_before, rows), b.i64(size)))
    lane_bytes = b.mul(lanes, b.i64(size))
    packed = b.at(packed, b.mul(b.mul(depth, b.mul(plane, channels)), lane_bytes))
    row_bytes, tap_bytes = lane_bytes, b.mul(channels, lane_bytes)
    if kernel.by_rows:
        row_bytes, tap_bytes = b.mul(fields["kernel_w"], lane_bytes), lane_bytes
    channel = b.add(b.mul(group, fields["out_channels"]), first)
    source = b.at(
        fields.pointer("source"),
        b.dot((depth, fields["source_d"]), (channel, fields["source_o"])),
    )
    line_bytes = b.mul(fields["kernel_w"], b.mul(channels, lane_bytes))
    with b.loop(b.i64(0), fields["kernel_h"]) as h, b.loop(b.i64(0), fields["kernel_w"]) as w:
        place = b.at(packed, b.dot((h, line_bytes), (w, tap_bytes)))
        with b.loop(b.i64(0), channels) as i, b.loop(count, lanes) as lane:
            zero = ir.constant(number(kernel.wide), 0.0)
            b.store(zero, b.at(place, b.dot((i, row_bytes), (lane, b.i64(size)))))
        taps = b.at(source, b.dot((h, fields["source_h"]), (w, fields["source_w"])))
        b.call(
            copy,
            [
                taps,
                fields["source_o"],
                fields["source_i"],
                place,
                b.i64(size),
                row_bytes,
                count,
                channels,
            ],
        )
