"""Blocks of an upsampled volume: transposed convolutions of a few voxels more than the block's own.

What lies beyond a face repeats the outermost voxel. It is repeated in the copy of a block that is computed
next, never around the whole volume. Which axes are convolved together depends on kernel and factors
alone, and so does the order of every sum: the same bits come out however the volume is cut.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import convt
from convt import run, target
from convt.api import compiled
from convt.family import Access
from convt.plan import Plan, make_plan
from convt.spec import Spec, make_spec
from convt.threads import share
from convt.volumes.kernels import LINES, REACH
from convt.volumes.stores import round_to

__all__ = ["GROUPINGS", "Interpolation", "Span", "Spans", "each", "work"]

Array = NDArray[Any]
Span = tuple[int, int]  # from the first to one past the last voxel of an axis
Spans = Sequence[Span]
_MOVE = 10  # taps that take as long as reading or writing one voxel, as measured
GROUPINGS: tuple[tuple[tuple[int, ...], ...], ...] = (
    ((0, 1, 2),),
    ((0,), (1, 2)),
    ((0, 1), (2,)),
    ((0,), (1,), (2,)),
)


@dataclass(frozen=True)
class Interpolation:
    """One of the kernels of `LINES`, for three whole factors."""

    kernel: str
    factors: tuple[int, int, int]

    @property
    def passes(self) -> tuple[tuple[int, ...], ...]:
        """Axes that are convolved together: the grouping of least counted work."""
        return _passes(self)

    def computed_in(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """The dtype of the sums of a volume of `dtype`; nearest voxels are moved as they are."""
        if self.kernel == "nearest":
            return dtype
        return np.dtype(np.float64 if dtype == np.float64 else np.float32)

    def reads(self, outputs: Spans, size: Sequence[int]) -> list[Span]:
        """The voxels of a volume of `size`, along each axis, that the block `outputs` needs."""
        return [
            (max(start, 0), min(stop, end))
            for (start, stop), end in zip(self._wanted(outputs), size, strict=True)
        ]

    def __call__(
        self,
        block: Array,
        outputs: Spans,
        size: Sequence[int],
        *,
        out: Array | None = None,
        threads: int | None = None,
    ) -> Array:
        """Compute the block `outputs`, ``[depth, height, width, channels]``, from what it `reads`.

        The result is in the dtype that the block is computed in, in `out` if that is given.
        """
        if self.kernel == "nearest":
            return self._nearest(block, outputs, out, threads)
        wanted = self._wanted(outputs)
        beyond = [
            (max(-start, 0), max(stop - end, 0))
            for (start, stop), end in zip(wanted, size, strict=True)
        ]
        dtype = self.computed_in(block.dtype)
        result = _extended(np.moveaxis(block, 3, 0), beyond, dtype, threads)
        last = None if out is None else np.moveaxis(out, 3, 0)
        for number, axes in enumerate(self.passes):
            place = last if number + 1 == len(self.passes) else None
            result = self._convolve(result, axes, outputs, wanted, place, threads)
        return np.moveaxis(result, 0, 3)

    def fill(
        self,
        out: Array,
        block: Array,
        outputs: Spans,
        size: Sequence[int],
        *,
        threads: int | None = None,
    ) -> None:
        """Compute the block `outputs` in `out`, rounded to its dtype."""
        if out.dtype == self.computed_in(block.dtype.newbyteorder("=")):
            self(block, outputs, size, out=out, threads=threads)
        else:
            _cast(self(block, outputs, size, threads=threads), out, threads)

    def _wanted(self, outputs: Spans) -> list[Span]:
        """The voxels that a block needs, also those beyond the faces."""
        reach = [REACH[self.kernel] if factor > 1 else 0 for factor in self.factors]
        return [
            (start // factor - more, -(-stop // factor) + more)
            for (start, stop), factor, more in zip(outputs, self.factors, reach, strict=True)
        ]

    def _convolve(
        self,
        block: Array,
        axes: Sequence[int],
        outputs: Spans,
        wanted: Spans,
        out: Array | None,
        threads: int | None,
    ) -> Array:
        """Bring a block up along some axes, cropped there to `outputs`."""
        kernel, strides, pads = np.ones((1, 1, 1)), [1, 1, 1], [(0, 0)] * 3
        for axis in axes:
            factor = strides[axis] = self.factors[axis]
            line = LINES[self.kernel](factor)
            kernel = kernel * np.expand_dims(line, [other for other in range(3) if other != axis])
            (start, stop), (first, end) = outputs[axis], wanted[axis]
            middle = (len(line) - factor) // 2
            before = start - first * factor + middle
            pads[axis] = (before, (end - first - 1) * factor + len(line) - (stop - start) - before)
        return _convolved(block, kernel, strides, pads, out, threads)

    def _nearest(
        self, block: Array, outputs: Spans, out: Array | None, threads: int | None
    ) -> Array:
        """Move every voxel to its places: one tap of weight 1 reaches each, and there is no sum."""
        planes, rows, columns = (
            np.arange(start, stop) // factor - start // factor
            for (start, stop), factor in zip(outputs, self.factors, strict=True)
        )
        shape = (len(planes), len(rows), len(columns), block.shape[3])
        result = np.empty(shape, block.dtype) if out is None else out

        def move(plane: int) -> None:
            first, end = np.searchsorted(planes, (plane, plane + 1))
            result[first] = block[plane].take(columns, 1).take(rows, 0)
            result[first + 1 : end] = result[first]

        each(move, len(block), threads)
        return result


@lru_cache(maxsize=64)
def _passes(interpolation: Interpolation) -> tuple[tuple[int, ...], ...]:
    active = [axis for axis in range(3) if interpolation.factors[axis] > 1]
    groupings = {
        tuple(kept for axes in grouping if (kept := tuple(a for a in axes if a in active)))
        for grouping in GROUPINGS
    }
    count = partial(work, interpolation)
    return min(sorted(groupings - {()}), key=count, default=((2,),))


def work(interpolation: Interpolation, grouping: Sequence[Sequence[int]]) -> float:
    """Taps, and voxels moved in units of taps, that each voxel of a volume costs."""
    total, voxels = 0.0, 1.0
    for axes in grouping:
        before, products = voxels, 1.0
        for axis in axes:
            factor = interpolation.factors[axis]
            voxels *= factor
            products *= len(LINES[interpolation.kernel](factor)) / factor
        total += voxels * products + _MOVE * (before + voxels)
    return total


def _convolved(
    block: Array,
    kernel: Array,
    strides: Sequence[int],
    pads: Sequence[tuple[int, int]],
    out: Array | None,
    threads: int | None,
) -> Array:
    """`conv3d_transpose` of a batch of channels, by a kernel family that does not depend on their size.

    Families add up in different orders, so a choice by size would show in the last bits.
    """
    x, filters = block[..., None], kernel.astype(block.dtype)[..., None, None]
    y = None if out is None else out[..., None]
    if not compiled():
        defined = convt.conv3d_transpose(x, filters, None, strides, pads, out=y)
        return np.asarray(defined[..., 0])
    spec = make_spec(
        input_shape=x.shape,
        input_dtype=x.dtype,
        filters_shape=filters.shape,
        filters_dtype=x.dtype,
        output_shape=None,
        strides=strides,
        padding=pads,
        data_format=None,
        dilations=None,
    )
    result = run.empty_output(spec.output_shape, spec.dtype) if y is None else y
    access = Access.of(spec, x, filters, result)
    plan = _plan(spec, access, convt.get_num_threads() if threads is None else threads)
    packed = run.pack_filters(plan, filters, 1, once=True)
    run.execute(plan, x, packed, None, result)
    return np.asarray(result[..., 0])


def _plan(spec: Spec, access: Access, threads: int) -> Plan:
    """Lanes over the width if its taps fit into them, else lanes over the one channel."""
    try:
        return make_plan(spec, target.host(), access, threads, family="rows")
    except ValueError:
        return make_plan(spec, target.host(), access, threads, family="channels")


def each(action: Callable[[int], None], count: int, threads: int | None) -> None:
    """``action(0)`` to ``action(count - 1)``, shared by threads."""
    left = deque(range(count))

    def work() -> None:
        while left:
            try:
                number = left.popleft()
            except IndexError:  # another thread was faster
                return
            action(number)

    most = convt.get_num_threads() if threads is None else threads
    share(work, max(min(most, count), 1))


def _cast(block: Array, out: Array, threads: int | None) -> None:
    """Move `block` to `out`, and lose it; as whole numbers it is rounded, ties to even, and clipped."""

    def plane(number: int) -> None:
        values = block[number]
        if out.dtype.kind in "iu" and out.dtype.itemsize <= 2:  # float32 has all of them
            np.rint(values, out=values)
            np.clip(values, np.iinfo(out.dtype).min, np.iinfo(out.dtype).max, out=values)
            out[number] = values
        else:
            out[number] = round_to(values, out.dtype)

    each(plane, len(block), threads)


def _extended(
    block: Array, beyond: Sequence[tuple[int, int]], dtype: np.dtype[Any], threads: int | None
) -> Array:
    """Channels of a block as `dtype`, their outermost voxels repeated `beyond` each end of each axis."""
    if block.dtype == dtype and not any(map(any, beyond)):
        return block
    channels, *size = block.shape
    shape = [n + sum(more) for n, more in zip(size, beyond, strict=True)]
    result = np.empty((channels, *shape), dtype)
    (front, _), (above, below), (left, right) = beyond

    def plane(number: int) -> None:
        place = result[:, number]
        rows = place[:, above : shape[1] - below]
        rows[:, :, left : shape[2] - right] = block[:, min(max(number - front, 0), size[0] - 1)]
        rows[:, :, :left] = rows[:, :, left : left + 1]
        rows[:, :, shape[2] - right :] = rows[:, :, shape[2] - right - 1 : shape[2] - right]
        place[:, :above] = rows[:, :1]
        place[:, shape[1] - below :] = rows[:, -1:]

    each(plane, shape[0], threads)
    return result
