"""Boxes of voxels, and the axes of files: plain integers and views, no file is touched.

Every stored array is seen with five axes, batch, depth, height, width and channels, named by the letters
``ndhwc``, whatever the order in its file. A region is a range on each of the five.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "AXES",
    "Five",
    "Region",
    "along",
    "around",
    "count",
    "five_axes",
    "five_sizes",
    "grid",
    "inside",
    "sizes_of",
    "slices",
    "stored_axes",
    "stored_sizes",
]

AXES = "ndhwc"
Five: TypeAlias = tuple[int, int, int, int, int]
Range: TypeAlias = tuple[int, int]  # from first to one past the last
Region: TypeAlias = tuple[Range, Range, Range, Range, Range]


def sizes_of(region: Region) -> Five:
    """The lengths of a region.

    Examples
    --------
    >>> sizes_of(((0, 1), (2, 4), (0, 3), (0, 3), (0, 1)))
    (1, 2, 3, 3, 1)
    """
    n, d, h, w, c = (stop - start for start, stop in region)
    return n, d, h, w, c


def five_sizes(sizes: Sequence[int], axes: str) -> Five:
    """The five sizes of an array that is stored with `axes`; 1 where an axis is not stored.

    Examples
    --------
    >>> five_sizes((3, 10, 20, 30), "cdhw")
    (1, 10, 20, 30, 3)
    """
    found = dict(zip(axes, sizes, strict=True))
    n, d, h, w, c = (int(found.get(axis, 1)) for axis in AXES)
    return n, d, h, w, c


def stored_sizes(five: Sequence[int], axes: str) -> tuple[int, ...]:
    """The sizes of an array of five axes in the order that it is stored in."""
    return tuple(five[AXES.index(axis)] for axis in axes)


def slices(region: Region, axes: str) -> tuple[slice, ...]:
    """The index of a region in an array that is stored with `axes`."""
    return tuple(slice(*region[AXES.index(axis)]) for axis in axes)


def five_axes(array: NDArray[Any], axes: str) -> NDArray[Any]:
    """An array that is stored with `axes`, viewed with five."""
    order = [axes.index(axis) for axis in AXES if axis in axes]
    missing = tuple(place for place, axis in enumerate(AXES) if axis not in axes)
    return np.expand_dims(array.transpose(order), missing)


def stored_axes(array: NDArray[Any], axes: str) -> NDArray[Any]:
    """An array of five axes, viewed as it is stored; axes that are not stored have one element."""
    whole = array.transpose(
        [AXES.index(axis) for axis in (*axes, *(a for a in AXES if a not in axes))]
    )
    return whole.reshape(whole.shape[: len(axes)])


def grid(shape: Sequence[int], block: Sequence[int]) -> Iterator[Region]:
    """The blocks of an array, the last axis fastest; the last ones of an axis may be shorter.

    Examples
    --------
    >>> [region[1] for region in grid((1, 5, 1, 1, 1), (1, 2, 1, 1, 1))]
    [(0, 2), (2, 4), (4, 5)]
    """
    ranges = (
        [(start, min(start + step, size)) for start in range(0, size, step)]
        for size, step in zip(shape, block, strict=True)
    )
    yield from product(*ranges)


def along(region: Region, chunks: Sequence[int]) -> Iterator[Region]:
    """A region cut where chunks begin.

    Examples
    --------
    >>> [piece[1] for piece in along(((0, 1), (3, 9), (0, 1), (0, 1), (0, 1)), (1, 4, 1, 1, 1))]
    [(3, 4), (4, 8), (8, 9)]
    """
    ranges = []
    for (start, stop), step in zip(region, chunks, strict=True):
        edges = sorted({start, *range(-(-start // step) * step, stop, step), stop})
        ranges.append(list(pairwise(edges)))
    yield from product(*ranges)


def around(piece: Region, chunks: Sequence[int], shape: Sequence[int]) -> Region:
    """The chunk of an array of `shape` that a region within one chunk lies in.

    Examples
    --------
    >>> around(((0, 1), (5, 6), (0, 1), (0, 1), (0, 1)), (1, 4, 1, 1, 1), (1, 7, 1, 1, 1))[1]
    (4, 7)
    """
    n, d, h, w, c = (
        (start - start % step, min(start - start % step + step, size))
        for (start, _), step, size in zip(piece, chunks, shape, strict=True)
    )
    return n, d, h, w, c


def inside(piece: Region, region: Region) -> Region:
    """A part of a region, counted from where the region begins."""
    n, d, h, w, c = (
        (a - first, b - first) for (a, b), (first, _) in zip(piece, region, strict=True)
    )
    return n, d, h, w, c


def count(shape: Sequence[int], block: Sequence[int]) -> int:
    """How many blocks `grid` gives."""
    return prod(-(-size // step) for size, step in zip(shape, block, strict=True))
