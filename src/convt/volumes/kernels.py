"""Interpolation kernels for whole-number factors, as filters of a transposed convolution.

A kernel is the separable product of one line per axis, so it is small and built on every call.
With stride = factor and ``SAME`` padding each of them gives exactly ``size * factor`` outputs and
leaves every structure where it was: output voxel ``o`` lies at input position
``(o + 0.5) / factor - 0.5``, the convention of ``align_corners=False``. Nothing lies outside a
volume, so within half a factor of its faces ``trilinear`` fades towards zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["INTERPOLATIONS", "nearest", "per_channel", "trilinear"]


def trilinear(factors: int | Sequence[int]) -> NDArray[np.float64]:
    """Kernel of linear interpolation along three axes.

    Per axis it is a triangle as wide as two input voxels: ``2 * factor`` taps for an even factor,
    ``2 * factor - 1`` for an odd one, so that it is centred for both.

    Parameters
    ----------
    factors : int or three ints
        Output voxels per input voxel along depth, height and width.

    Returns
    -------
    numpy.ndarray
        float64 of shape ``[depth, height, width]``. The taps that reach one output add up to 1.

    Raises
    ------
    ValueError
        If a factor is below 1, or their number is neither 1 nor 3.

    Examples
    --------
    >>> trilinear((1, 1, 2)).tolist()
    [[[0.25, 0.75, 0.75, 0.25]]]
    """
    return _outer(_triangle, factors)


def nearest(factors: int | Sequence[int]) -> NDArray[np.float64]:
    """Kernel that repeats every voxel: a block of ones as large as the factors.

    Parameters
    ----------
    factors : int or three ints
        Output voxels per input voxel along depth, height and width.

    Returns
    -------
    numpy.ndarray
        float64 of shape ``[depth, height, width]``.

    Raises
    ------
    ValueError
        If a factor is below 1, or their number is neither 1 nor 3.

    Examples
    --------
    >>> nearest((1, 2, 3)).shape
    (1, 2, 3)
    """
    return _outer(np.ones, factors)


INTERPOLATIONS: dict[str, Callable[[int | Sequence[int]], NDArray[np.float64]]] = {
    "trilinear": trilinear,
    "nearest": nearest,
}


def per_channel(kernel: NDArray[Any], channels: int, dtype: DTypeLike) -> NDArray[Any]:
    """Filters that apply one kernel to every channel on its own, with ``groups=channels``.

    Parameters
    ----------
    kernel : array of shape ``[depth, height, width]``
    channels : int
        Channels in, and out.
    dtype : dtype
        The volume's dtype.

    Returns
    -------
    numpy.ndarray
        Filters of shape ``[depth, height, width, channels, 1]``.

    Examples
    --------
    >>> per_channel(nearest(2), 3, "float32").shape
    (2, 2, 2, 3, 1)
    """
    filters = np.empty((*kernel.shape, channels, 1), dtype)
    filters[...] = kernel[..., None, None]
    return filters


def _triangle(factor: int) -> NDArray[np.float64]:
    width = 2 * factor - factor % 2
    distance = np.abs(np.arange(width) - (width - 1) / 2)
    return np.asarray(1 - distance / factor, np.float64)


def _outer(
    line: Callable[[int], NDArray[np.float64]], factors: int | Sequence[int]
) -> NDArray[np.float64]:
    depth, height, width = (line(factor) for factor in _three(factors))
    return depth[:, None, None] * height[:, None] * width


def _three(factors: int | Sequence[int]) -> tuple[int, int, int]:
    given = [factors] * 3 if isinstance(factors, int) else [int(factor) for factor in factors]
    if len(given) == 1:
        given *= 3
    if len(given) != 3 or min(given) < 1:
        raise ValueError(f"factors must be 1 or 3 whole numbers of at least 1, got {factors!r}")
    return given[0], given[1], given[2]
