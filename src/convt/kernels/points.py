"""Going to the points of minimal filtering and back: matrices applied to vectors, axis by axis.

Matrices are exact; a coefficient of 1 or -1 costs an addition, another one a multiply-add. This file also
emits the kernel that takes packed filters to the points.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import product

from convt.kernels import ir
from convt.kernels.builder import PTR, Builder
from convt.kernels.driver import Fields, row, tap, tasks
from convt.kernels.elements import number
from convt.kernels.ir import Value
from convt.kernels.keys import Filtering, TransformFilters
from convt.kernels.record import PHASE
from convt.target import Target
from convt.transforms import Matrix, Transform, transform

__all__ = ["Key", "Shape", "Vectors", "apply", "box", "cases", "emit", "phase", "shapes"]

Key = tuple[int, int, int]
Vectors = dict[Key, Value]
Shape = tuple[Transform, Transform, Transform]  # of the depth, the height and the width


def shapes(kernel: Filtering) -> list[Shape]:
    """The transforms that phases use, in the order of their kinds: the width's varies fastest."""
    axes = (kernel.depth, kernel.height, kernel.width)
    return [(transform(*d), transform(*h), transform(*w)) for d, h, w in product(*axes)]


def box(depth: int, height: int, width: int) -> list[Key]:
    """Every place of a block, the width's varying fastest."""
    return list(product(range(depth), range(height), range(width)))


def apply(
    b: Builder, matrices: tuple[Matrix, Matrix, Matrix], read: Callable[[Key], Value]
) -> Vectors:
    """Apply one matrix along each axis of a block of vectors, which `read` loads.

    Plane by plane, and the depth last: few vectors are needed at a time, so most stay in registers.
    """
    depth, height, width = (len(matrix[0]) for matrix in matrices)
    planes: Vectors = {}
    for d in range(depth):
        plane = {(d, h, w): read((d, h, w)) for _, h, w in box(1, height, width)}
        for axis in (2, 1):
            plane = _along(b, axis, matrices[axis], plane)
        planes |= plane
    return _along(b, 0, matrices[0], planes)


def _along(b: Builder, axis: int, matrix: Matrix, vectors: Vectors) -> Vectors:
    result: Vectors = {}
    for line in sorted({(*key[:axis], 0, *key[axis + 1 :]) for key in vectors}):
        places = [(*line[:axis], i, *line[axis + 1 :]) for i in range(len(matrix[0]))]
        values = [vectors[place] for place in places]  # type: ignore[index]
        for i, coefficients in enumerate(matrix):
            key = (*line[:axis], i, *line[axis + 1 :])
            result[key] = _combine(b, coefficients, values)  # type: ignore[index]
    return result


def _combine(b: Builder, coefficients: tuple[Fraction, ...], values: list[Value]) -> Value:
    """The sum of coefficient times value, positive units first."""
    terms = [(c, v) for c, v in zip(coefficients, values, strict=True) if c]
    terms.sort(key=lambda term: term[0] != 1)
    first, value = terms[0]
    total = value if first == 1 else b.fmul(value, _constant(value, first))
    for coefficient, value in terms[1:]:
        if coefficient == 1:
            total = b.fadd(total, value)
        elif coefficient == -1:
            total = b.fsub(total, value)
        else:
            total = b.multiply_add(value, _constant(value, coefficient), total)
    return total


def _constant(like: Value, value: Fraction) -> Value:
    return ir.constant(like.type, float(value))


def phase(b: Builder, fields: Fields, axis: str, index: Value) -> dict[str, Value]:
    """A row of the phase table of `axis`."""
    return row(b, fields.pointer(f"phases_{axis}"), index, PHASE)


# --- the filters --------------------------------------------------------------------------------
def emit(key: TransformFilters, target: Target) -> ir.Module:
    """The kernel that transforms packed filters; a task is one phase and one block of channels."""
    kernel = key.kernel
    module = ir.Module(key.name)
    run = ir.Function(module, "run", [PTR, PTR])
    b = Builder(run, fma=target.fma)
    fields = Fields(b, run.args[0])
    with tasks(b, fields) as index:
        blocks = fields["blocks"]
        block, place = b.srem(index, blocks), b.sdiv(index, blocks)
        base = b.word(b.at(fields.pointer("bases"), b.mul(place, b.i64(8))), 0)
        phases = {}
        for axis in "whd":
            count = fields[f"phase_count_{axis}"]
            phases[axis] = phase(b, fields, axis, b.srem(place, count))
            place = b.sdiv(place, count)
        for shape, chosen in cases(b, kernel, phases):
            with b.if_then(chosen):
                _transform(b, kernel, shape, fields, phases, block, base)
    b.ret_void()
    return module


def cases(
    b: Builder, kernel: Filtering, phases: dict[str, dict[str, Value]]
) -> list[tuple[Shape, Value]]:
    """Every shape that phases may have, and whether these phases have it."""
    kind = b.mul(phases["d"]["kind"], b.i64(len(kernel.height)))
    kind = b.mul(b.add(kind, phases["h"]["kind"]), b.i64(len(kernel.width)))
    kind = b.add(kind, phases["w"]["kind"])
    return [
        (shape, b.icmp_signed("==", kind, b.i64(place)))
        for place, shape in enumerate(shapes(kernel))
    ]


def _transform(
    b: Builder,
    kernel: Filtering,
    shape: Shape,
    fields: Fields,
    phases: dict[str, dict[str, Value]],
    block: Value,
    base: Value,
) -> None:
    """Take one block of the filters of one phase to the points."""
    lanes, size = kernel.lanes, kernel.wide.bytes
    kind = ir.vector(number(kernel.wide), lanes)
    channels, packed = fields["in_channels"], fields["packed_lanes"]
    taps = b.mul(fields["kernel_d"], b.mul(fields["kernel_h"], fields["kernel_w"]))
    first = b.mul(block, b.i64(kernel.block_channels))
    width = b.minimum(b.sub(packed, first), b.i64(kernel.block_channels))
    if kernel.tail * lanes > kernel.block_channels:
        last = b.icmp_signed("==", block, b.sub(fields["blocks"], b.i64(1)))
        width = b.select(last, b.sub(packed, first), width)
    row_bytes = b.mul(width, b.i64(size))
    tap_bytes = b.mul(channels, row_bytes)
    source = b.at(
        fields.pointer("filters"), b.mul(b.mul(first, b.i64(size)), b.mul(channels, taps))
    )
    point_bytes = b.mul(b.mul(packed, channels), b.i64(size))
    target = b.at(fields.pointer("transformed"), base)
    target = b.at(target, b.mul(b.mul(first, channels), b.i64(size)))
    places: Vectors = {}
    for d, h, w in box(*(axis.taps for axis in shape)):
        index = b.i64(0)
        for axis, number_ in zip("dhw", (d, h, w), strict=True):
            # A correlation reads the inputs in order: the taps by falling shift.
            entry = tap(b, fields, axis, b.sub(phases[axis]["tap_end"], b.i64(number_ + 1)))
            index = b.add(b.mul(index, fields[f"kernel_{axis}"]), entry["index"])
        places[d, h, w] = b.at(source, b.mul(index, tap_bytes))
    step = lanes * size
    with b.loop(b.i64(0), tap_bytes, step) as place:
        # It is no more anyway, but as a plain index it costs LLVM a sum of its own for every address.
        offset = b.minimum(place, b.sub(tap_bytes, b.i64(step)))

        def read(key: Key, offset: Value = offset) -> Value:
            return b.load(b.at(places[key], offset), align=lanes * size, typ=kind)

        found = apply(b, (shape[0].filter, shape[1].filter, shape[2].filter), read)
        for i, key in enumerate(sorted(found)):
            place = b.at(target, b.add(offset, b.mul(point_bytes, b.i64(i))))
            b.store(found[key], place, align=lanes * size)
