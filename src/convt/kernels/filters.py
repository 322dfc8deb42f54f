"""Packing filters, widened: ``[block][tap][input channel][lane]``, or with the width's taps inside the channels.

The caller's array may have any strides, element type and byte order. Lanes beyond the last output channel
are zero; what they compute is stored nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from convt.kernels.builder import I64, PTR, Builder, Slot
from convt.kernels.copy import emit_copy
from convt.kernels.driver import Fields
from convt.kernels.elements import Element
from convt.target import Target

__all__ = ["PackFilters"]

Value = Any


@dataclass(frozen=True, slots=True)
class PackFilters:
    """A packing kernel; a task is one block of output channels and one depth of the kernel."""

    wide: Element  # element type of the packed filters
    source: Element  # element type of the caller's filters
    block: int  # output channels in a block
    tail: int  # output channels in the last block of a group; 0: it is like the others
    rows: bool = False  # the taps of the width lie within an input channel

    @property
    def name(self) -> str:
        return f"{self.wide.name}_filters_b{self.block}t{self.tail}{'r' if self.rows else ''}_from_{self.source.name}"

    def emit(self, target: Target) -> str:
        module = ir.Module(self.name)
        run = ir.Function(module, ir.FunctionType(ir.VoidType(), [PTR, PTR]), "run")
        b = Builder(run, fma=target.fma)
        fields = Fields(b, run.args[0])
        number = Slot(b, I64)

        def more() -> Value:
            number.set(b.atomic_rmw("add", fields.place("next"), b.int(1), "monotonic"))
            return b.icmp_signed("<", number.get(), fields["tasks"])

        with b.repeat(more):
            self._task(b, target, fields, number.get())
        b.ret_void()
        return str(module)

    def _task(self, b: Builder, target: Target, fields: Fields, number: Value) -> None:
        copy = emit_copy(b.module, target, self.source, self.wide)
        size = self.wide.bytes
        channels, blocks = fields["in_channels"], fields["blocks"]
        depth = b.srem(number, fields["kernel_d"])
        number = b.sdiv(number, fields["kernel_d"])
        block, group = b.srem(number, blocks), b.sdiv(number, blocks)
        # Channels out: where this block starts, how many it has, how many lanes it is packed to.
        first = b.mul(block, b.int(self.block))
        last = b.icmp_signed("==", block, b.sub(blocks, b.int(1)))
        lanes = b.select(last, b.int(self.tail or self.block), b.int(self.block))
        count = b.minimum(lanes, b.sub(fields["out_channels"], first))
        group_lanes = b.sub(b.mul(blocks, b.int(self.block)), b.int(self.block - (self.tail or self.block)))
        plane = b.mul(fields["kernel_h"], fields["kernel_w"])
        rows = b.mul(channels, b.mul(plane, fields["kernel_d"]))
        lanes_before = b.add(b.mul(group, group_lanes), first)
        packed = b.at(fields.pointer("filters"), b.mul(b.mul(lanes_before, rows), b.int(size)))
        lane_bytes = b.mul(lanes, b.int(size))
        packed = b.at(packed, b.mul(b.mul(depth, b.mul(plane, channels)), lane_bytes))
        row_bytes, tap_bytes = lane_bytes, b.mul(channels, lane_bytes)
        if self.rows:
            row_bytes, tap_bytes = b.mul(fields["kernel_w"], lane_bytes), lane_bytes
        channel = b.add(b.mul(group, fields["out_channels"]), first)
        source = b.at(
            fields.pointer("source"),
            b.dot((depth, fields["source_d"]), (channel, fields["source_o"])),
        )
        line_bytes = b.mul(fields["kernel_w"], b.mul(channels, lane_bytes))
        with b.loop(b.int(0), fields["kernel_h"]) as h, b.loop(b.int(0), fields["kernel_w"]) as w:
            place = b.at(packed, b.dot((h, line_bytes), (w, tap_bytes)))
            with b.loop(b.int(0), channels) as i, b.loop(count, lanes) as lane:
                zero = ir.Constant(self.wide.wide, 0.0)
                b.store(zero, b.at(place, b.dot((i, row_bytes), (lane, b.int(size)))))
            taps = b.at(source, b.dot((h, fields["source_h"]), (w, fields["source_w"])))
            b.call(
                copy,
                [
                    taps,
                    fields["source_o"],
                    fields["source_i"],
                    place,
                    b.int(size),
                    row_bytes,
                    count,
                    channels,
                ],
            )
