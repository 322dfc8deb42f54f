"""A two-dimensional strided copy that widens, rounds, swaps bytes and transposes.

Every kernel packs and unpacks with it. Along rows that are dense on both sides it moves whole vectors;
where source and destination are dense along different axes it transposes square blocks in registers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from convt.kernels import ir
from convt.kernels.builder import I64, PTR, Builder, function
from convt.kernels.elements import load, store
from convt.kernels.ir import Value
from convt.kernels.keys import Element
from convt.target import Target

__all__ = ["add_lanes", "deinterleave", "emit_copy", "interleave", "transpose"]

_AHEAD = 1024  # bytes: where rows lie one after the other, memory is asked for those to come
_FEW = (2, 3, 4)  # channels that are copied side by side


def emit_copy(
    module: ir.Module,
    target: Target,
    source: Element,
    destination: Element,
    *,
    few: Sequence[int] = _FEW,
) -> ir.Function:
    """``copy(source, si, sj, destination, di, dj, ni, nj)``: destination[i, j] = source[i, j].

    Strides are in bytes. One function a pair of element types; asking again returns it. `few` are the
    numbers of dense channels that are copied side by side.
    """
    name = f"copy_{source.name}_{destination.name}"
    if name in module.globals:
        return module.globals[name]
    made = function(module, name, [PTR, I64, I64, PTR, I64, I64, I64, I64])
    b = Builder(made, fma=target.fma)
    lanes = target.lanes(source.wide.bytes)
    src, si, sj, dst, di, dj, ni, nj = made.args
    # Dense in the destination along j: swap the axes where it is i.
    swap = b.and_(
        b.icmp_signed("==", di, b.i64(destination.bytes)),
        b.or_(b.icmp_signed("!=", dj, b.i64(destination.bytes)), b.icmp_signed("==", nj, b.i64(1))),
    )
    si, sj = b.select(swap, sj, si), b.select(swap, si, sj)
    di, dj = b.select(swap, dj, di), b.select(swap, di, dj)
    ni, nj = b.select(swap, nj, ni), b.select(swap, ni, nj)
    places = (src, si, sj, dst, di, dj)
    copy = _Copy(b, target.half, source, destination, lanes, few, *places)
    dense = b.icmp_signed("==", dj, b.i64(destination.bytes))
    rows = b.and_(dense, b.icmp_signed("==", sj, b.i64(source.bytes)))
    columns = b.and_(dense, b.icmp_signed("==", si, b.i64(source.bytes)))
    with b.if_else(rows) as (along, otherwise):
        with along:
            copy.rows(ni, nj)
        with otherwise, b.if_else(columns) as (across, scattered):
            with across:
                copy.columns(ni, nj)
            with scattered:
                copy.scalars(b.i64(0), ni, b.i64(0), nj)
    b.ret_void()
    return made


class _Copy:
    def __init__(
        self,
        b: Builder,
        half: bool,
        source: Element,
        destination: Element,
        lanes: int,
        few: Sequence[int],
        *places: Value,
    ) -> None:
        self.b, self.half, self.lanes, self.few = b, half, lanes, few
        self.places = places
        self.source, self.destination = source, destination
        self.src, self.si, self.sj, self.dst, self.di, self.dj = places

    def _from(self, i: Value, j: Value) -> Value:
        return self.b.at(self.src, self.b.dot((i, self.si), (j, self.sj)))

    def _to(self, i: Value, j: Value) -> Value:
        return self.b.at(self.dst, self.b.dot((i, self.di), (j, self.dj)))

    def _move(self, i: Value, j: Value, lanes: int) -> None:
        value = load(self.b, self.source, self._from(i, j), lanes, half=self.half)
        store(self.b, self.destination, value, self._to(i, j), lanes, half=self.half)

    def _whole(self, count: Value) -> Value:
        """`count` rounded down to whole vectors."""
        return self.b.and_(count, self.b.i64(-self.lanes))

    def scalars(self, i0: Value, i1: Value, j0: Value, j1: Value) -> None:
        """One element at a time, by a function that all corners share."""
        name = f"{self.b.function.name}_scalars"
        module = self.b.module
        if name not in module.globals:
            made = function(module, name, [PTR, I64, I64, PTR, *[I64] * 6])
            b = Builder(made, fma=False)
            *places, first, end, left, right = made.args
            inner = _Copy(b, self.half, self.source, self.destination, 1, (), *places)
            with b.loop(first, end) as i, b.loop(left, right) as j:
                inner._move(i, j, 1)
            b.ret_void()
        self.b.call(module.globals[name], [*self.places, i0, i1, j0, j1])

    @contextmanager
    def _vectors(self, count: Value) -> Iterator[Value]:
        """Where each vector of at least one begins: what the last one shares is moved twice."""
        with self.b.loop(self.b.i64(0), count, self.lanes) as first:
            yield self.b.minimum(first, self.b.sub(count, self.b.i64(self.lanes)))

    def rows(self, ni: Value, nj: Value) -> None:
        b, zero = self.b, self.b.i64(0)
        with b.if_else(b.icmp_signed(">=", nj, b.i64(self.lanes))) as (wide, narrow):
            with wide, b.loop(zero, ni) as i, self._vectors(nj) as j:
                b.prefetch(b.at(self._from(i, j), b.i64(_AHEAD)))
                self._move(i, j, self.lanes)
            with narrow, b.loop(zero, ni) as i, b.loop(zero, nj) as j:
                self._move(i, j, 1)

    def blocks(self, ni: Value, nj: Value) -> None:
        b, zero = self.b, self.b.i64(0)
        fits = b.icmp_signed(">=", b.minimum(ni, nj), b.i64(self.lanes))
        with b.if_else(fits) as (wide, narrow):
            with wide, self._vectors(ni) as i, self._vectors(nj) as j:
                self._block(i, j)
            with narrow:
                self.scalars(zero, ni, zero, nj)

    def columns(self, ni: Value, nj: Value) -> None:
        """Source dense along i: a few dense channels are (de)interleaved, else blocks transposed."""
        b, done = self.b, self.b.label("copied")
        for few in self.few:
            count = b.i64(few)
            dense = b.icmp_signed("==", self.di, b.i64(few * self.destination.bytes))
            with b.if_then(b.and_(b.icmp_signed("==", nj, count), dense)):
                self._join(few, ni)
                b.branch(done)
            dense = b.icmp_signed("==", self.sj, b.i64(few * self.source.bytes))
            with b.if_then(b.and_(b.icmp_signed("==", ni, count), dense)):
                self._part(few, nj)
                b.branch(done)
        self.blocks(ni, nj)
        b.begin(done)

    def _join(self, few: int, ni: Value) -> None:
        """Rows of a few channels -> pixels."""
        b, whole, zero = self.b, self._whole(ni), self.b.i64(0)
        with b.loop(zero, whole, self.lanes) as i:
            rows = [
                load(b, self.source, self._from(i, b.i64(j)), self.lanes, half=self.half)
                for j in range(few)
            ]
            place = self._to(i, zero)
            for vector in interleave(b, rows):
                lanes = vector.type.count
                store(b, self.destination, vector, place, lanes, half=self.half)
                place = b.at(place, b.i64(lanes * self.destination.bytes))
        self.scalars(whole, ni, zero, b.i64(few))

    def _part(self, few: int, nj: Value) -> None:
        """Pixels of a few channels -> rows."""
        b, whole, zero = self.b, self._whole(nj), self.b.i64(0)
        with b.loop(zero, whole, self.lanes) as j:
            vectors = []
            for k in range(few):
                place = b.at(self._from(zero, j), b.i64(k * self.lanes * self.source.bytes))
                vectors.append(load(b, self.source, place, self.lanes, half=self.half))
            for i, row in enumerate(deinterleave(b, vectors)):
                store(b, self.destination, row, self._to(b.i64(i), j), self.lanes, half=self.half)
        self.scalars(zero, b.i64(few), whole, nj)

    def _block(self, i: Value, j: Value) -> None:
        b, half = self.b, self.half
        place, rows = self._from(i, j), []
        for _ in range(self.lanes):
            rows.append(load(b, self.source, place, self.lanes, half=half))
            place = b.at(place, self.sj)
        place = self._to(i, j)
        for row in transpose(b, rows):
            store(b, self.destination, row, place, self.lanes, half=half)
            place = b.at(place, self.di)


def transpose(b: Builder, rows: list[Value]) -> list[Value]:
    """Turn n vectors of n lanes about the diagonal: log2(n) rounds of two-input shuffles."""
    lanes = len(rows)
    step = lanes // 2
    while step:
        turned = list(rows)
        low = [x if not x & step else x - step + lanes for x in range(lanes)]
        high = [x + step if not x & step else x + lanes for x in range(lanes)]
        for i in range(lanes):
            if not i & step:
                turned[i] = b.shuffle(rows[i], rows[i + step], low)
                turned[i + step] = b.shuffle(rows[i], rows[i + step], high)
        rows, step = turned, step // 2
    return rows


def add_lanes(b: Builder, vectors: list[Value]) -> Value:
    """One vector, of the sum of the lanes of each of up to as many vectors as they have lanes."""
    lanes, step = vectors[0].type.count, 1
    while step < lanes:
        low = [x if not x & step else x - step + lanes for x in range(lanes)]
        high = [x + step if not x & step else x + lanes for x in range(lanes)]
        pairs = [
            (vectors[i], vectors[min(i + 1, len(vectors) - 1)]) for i in range(0, len(vectors), 2)
        ]
        vectors = [b.fadd(b.shuffle(*pair, low), b.shuffle(*pair, high)) for pair in pairs]
        step *= 2
    return vectors[0]


def interleave(b: Builder, vectors: list[Value]) -> list[Value]:
    """N vectors -> vectors in which the elements of all alternate, by two-input shuffles."""
    count = len(vectors)
    if count == 1:
        return vectors
    lanes = vectors[0].type.count
    if count == 2 and vectors[0].type.bytes == 32:
        return _interleave_halves(b, vectors)
    result = []
    for part in range(count):
        wanted = [divmod(part * lanes + lane, count) for lane in range(lanes)]  # (lane, vector)
        value = b.shuffle(vectors[0], vectors[1], [lane + lanes * (of == 1) for lane, of in wanted])
        for extra in range(2, count):
            picks = [lanes + lane if of == extra else i for i, (lane, of) in enumerate(wanted)]
            value = b.shuffle(value, vectors[extra], picks)
        result.append(value)
    return result


def _interleave_halves(b: Builder, vectors: list[Value]) -> list[Value]:
    """Four halves of two vectors of 256 bits, whose halves some processors exchange slowly."""
    lanes = vectors[0].type.count
    quarter = lanes // 4
    mixed = []
    for first in (0, quarter):  # within each half of the vectors
        picks = [half + first + k for half in (0, lanes // 2) for k in range(quarter)]
        picks = [pick + lanes * of for pick in picks for of in (0, 1)]
        mixed.append(b.shuffle(vectors[0], vectors[1], picks))
    halves = (range(lanes // 2), range(lanes // 2, lanes))
    return [b.shuffle(vector, vector, half) for half in halves for vector in mixed]


def deinterleave(b: Builder, vectors: list[Value]) -> list[Value]:
    """The inverse of `interleave`."""
    count, lanes = len(vectors), vectors[0].type.count
    result = []
    for part in range(count):
        wanted = [divmod(lane * count + part, lanes) for lane in range(lanes)]  # (vector, lane)
        value = vectors[0]
        for of in range(count):
            picks = [lanes + lane if v == of else i for i, (v, lane) in enumerate(wanted)]
            value = b.shuffle(value, vectors[of], picks)
        result.append(value)
    return result
