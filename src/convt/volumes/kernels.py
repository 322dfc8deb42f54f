"""Interpolation kernels for whole-number factors, as filters of a transposed convolution.

A kernel is the separable product of one line per axis, so it is small and built on every call.
With stride = factor and ``SAME`` padding each of them gives exactly ``size * factor`` outputs and
leaves every structure where it was: output voxel ``o`` lies at input position
``(o + 0.5) / factor - 0.5``, the convention of ``align_corners=False``. Nothing lies outside a
volume, so near its faces every kernel but ``nearest`` fades towards zero; `convt.volumes.upsample`
repeats the outermost voxels instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = [
    "INTERPOLATIONS",
    "LINES",
    "REACH",
    "cubic",
    "lanczos3",
    "nearest",
    "per_channel",
    "trilinear",
]

Line = Callable[[int], NDArray[np.float64]]


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


def cubic(factors: int | Sequence[int]) -> NDArray[np.float64]:
    """Kernel of cubic convolution along three axes, after Keys [1]_.

    Per axis it is his cubic with ``a = -0.5``, four input voxels wide. This `a` alone gives back quadratics
    exactly; PyTorch's and OpenCV's "bicubic" have -0.75, which overshoots more.

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

    References
    ----------
    .. [1] R. Keys, "Cubic convolution interpolation for digital image processing", IEEE Trans. Acoustics,
       Speech, and Signal Processing 29 (1981).

    Examples
    --------
    >>> (128 * cubic((1, 1, 2))).ravel().tolist()
    [-3.0, -9.0, 29.0, 111.0, 111.0, 29.0, -9.0, -3.0]
    """
    return _outer(_cubic, factors)


def lanczos3(factors: int | Sequence[int]) -> NDArray[np.float64]:
    """Kernel of a sinc under the main lobe of a three times wider one, along three axes.

    Six input voxels wide. The taps that reach one output are divided by their sum, so that constants stay
    constant.

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
    >>> lanczos3((1, 1, 2)).shape
    (1, 1, 12)
    """
    return _outer(_lanczos, factors)


INTERPOLATIONS: dict[str, Callable[[int | Sequence[int]], NDArray[np.float64]]] = {
    "trilinear": trilinear,
    "nearest": nearest,
    "cubic": cubic,
    "lanczos3": lanczos3,
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
    return _sampled(lambda distance: 1 - distance, 1, factor)


def _cubic(factor: int) -> NDArray[np.float64]:
    def weight(x: NDArray[np.float64]) -> NDArray[np.float64]:
        inner = (1.5 * x - 2.5) * x * x + 1
        outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
        return np.where(x <= 1, inner, outer)

    return _sampled(weight, 2, factor)


def _lanczos(factor: int) -> NDArray[np.float64]:
    def weight(x: NDArray[np.float64]) -> NDArray[np.float64]:
        # At other voxels than its own a sinc is 0, which rounding of pi would miss.
        return np.where((x % 1 == 0) & (x > 0), 0, np.sinc(x) * np.sinc(x / 3))

    line = _sampled(weight, 3, factor)
    for phase in range(factor):
        line[phase::factor] /= line[phase::factor].sum()
    return line


def _sampled(
    weight: Callable[[NDArray[np.float64]], NDArray[np.float64]], reach: int, factor: int
) -> NDArray[np.float64]:
    """`weight` of the distance, in input voxels, of every tap from the middle."""
    if factor == 1:
        return np.ones(1)  # the taps that lie on other voxels have no weight
    width = 2 * reach * factor - factor % 2
    return np.asarray(weight(np.abs(np.arange(width) - (width - 1) / 2) / factor), np.float64)


LINES: dict[str, Line] = {  # one axis of each kernel
    "trilinear": _triangle,
    "nearest": np.ones,
    "cubic": _cubic,
    "lanczos3": _lanczos,
}
REACH = {"trilinear": 1, "nearest": 0, "cubic": 2, "lanczos3": 3}  # input voxels to either side


def _outer(line: Line, factors: int | Sequence[int]) -> NDArray[np.float64]:
    depth, height, width = (line(factor) for factor in _three(factors))
    return depth[:, None, None] * height[:, None] * width


def _three(factors: int | Sequence[int]) -> tuple[int, int, int]:
    given = [factors] * 3 if isinstance(factors, int) else [int(factor) for factor in factors]
    if len(given) == 1:
        given *= 3
    if len(given) != 3 or min(given) < 1:
        raise ValueError(f"factors must be 1 or 3 whole numbers of at least 1, got {factors!r}")
    return given[0], given[1], given[2]
