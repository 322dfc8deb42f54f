"""Products at one point of minimal filtering: a small matrix product, tiles by output channels.

The tiles of a block lie one after the other, so addresses are computed, not listed, and sums are stored as
they are. Chains of additions are short, since errors weigh more at the points: later ones are added to
what the first stored.
"""

from __future__ import annotations

from convt.kernels import ir
from convt.kernels.builder import I64, PTR, Builder, function
from convt.kernels.channels import Tile, each_tile
from convt.kernels.ir import Value
from convt.kernels.keys import Channels
from convt.target import Target

__all__ = ["emit_products"]

# filters, inputs, sums; tiles; bytes from tile to tile, of inputs and sums; channels, in all and in a chain
_ARGUMENTS = [PTR, PTR, PTR, *[I64] * 5]


def emit_products(module: ir.Module, target: Target, kernel: Channels, vectors: int) -> ir.Function:
    """``products(filters, inputs, sums, tiles, in_bytes, out_bytes, channels, chain)``: one block."""
    name = f"products_{vectors}"
    if name in module.globals:
        return module.globals[name]
    heights = kernel.heights(vectors)
    emitted = {h: _emit_tile(module, target, kernel, h, vectors) for h in heights}
    made = function(module, name, _ARGUMENTS)
    b = Builder(made, fma=target.fma)
    filters, inputs, sums, tiles, in_bytes, out_bytes, *rest = made.args

    def call(height: int, first: Value) -> None:
        first = b.minimum(first, tiles)  # it is no more: see points.py
        left = b.sub(tiles, first)
        arguments = [filters, b.at(inputs, b.mul(first, in_bytes))]
        arguments += [b.at(sums, b.mul(first, out_bytes)), left, in_bytes, out_bytes, *rest]
        b.call(emitted[height], arguments)

    each_tile(b, tiles, heights, call)
    b.ret_void()
    return made


def _emit_tile(
    module: ir.Module, target: Target, kernel: Channels, height: int, vectors: int
) -> ir.Function:
    """One register tile; a surplus repeats the last tile that is left."""
    largest = height == kernel.heights(vectors)[0]
    made = function(module, f"point_{height}x{vectors}", _ARGUMENTS, inline=largest)
    b = Builder(made, fma=target.fma)
    filters, inputs, sums, left, in_bytes, out_bytes, channels, chain = made.args
    tile = Tile(b, kernel, height, vectors)
    size, align = kernel.wide.bytes, kernel.lanes * kernel.wide.bytes
    last = b.sub(left, b.i64(1))
    index = [b.minimum(b.i64(k), last) if k else b.i64(0) for k in range(height)]
    places = [b.at(inputs, b.mul(k, in_bytes)) for k in index]
    zero = ir.constant(tile.kind, 0.0)
    with b.loop(b.i64(0), channels, chain) as first:
        for row in tile.sums:
            for total in row:
                total.set(zero)
        offset = b.mul(first, b.i64(size))
        here = b.at(filters, b.mul(offset, b.i64(vectors * kernel.lanes)))
        count = b.minimum(chain, b.sub(channels, first))
        tile.sweep([b.at(place, offset) for place in places], here, count)
        results = [
            (total, b.at(sums, b.add(b.mul(k, out_bytes), step)))
            for k, row in zip(index, tile.sums, strict=True)
            for total, step in zip(row, tile.steps, strict=True)
        ]
        with b.if_then(b.icmp_signed(">", first, b.i64(0))):
            for total, place in results:
                total.set(b.fadd(b.load(place, typ=tile.kind, align=align), total.get()))
        for total, place in results:
            b.store(total.get(), place, align=align)
    b.ret_void()
    return made
