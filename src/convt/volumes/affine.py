"""Where the voxels of a result lie in the world: plain 4x4 matrices, no files.

A transposed convolution sends tap ``t`` of input voxel ``i`` to output voxel
``stride * i + dilation * t - pad_before``. A structure stays where it was when the middle of the
kernel, ``centre = (taps - 1) * dilation / 2``, lies on the voxel it came from. So output voxel
``o`` lies at input position ``(o + pad_before - centre) / stride`` on every axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["index_map", "result_affine", "voxel_sizes"]


def index_map(
    *,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pad_before: Sequence[int],
) -> NDArray[np.float64]:
    """Matrix from voxel indices of the output to (fractional) voxel indices of the input.

    Parameters
    ----------
    kernel, strides, dilations : three ints each
        Taps, steps and tap distances along depth, height and width.
    pad_before : three ints
        Elements that the forward convolution pads before each axis.

    Returns
    -------
    numpy.ndarray
        float64 of shape ``[4, 4]``, homogeneous.

    Examples
    --------
    >>> half = dict(kernel=(2, 2, 2), strides=(2, 2, 2), dilations=(1, 1, 1), pad_before=(0, 0, 0))
    >>> index_map(**half)[0].tolist()
    [0.5, 0.0, 0.0, -0.25]
    """
    taps, step, spread, before = (
        np.asarray(axis, np.float64) for axis in (kernel, strides, dilations, pad_before)
    )
    centre = (taps - 1) * spread / 2
    matrix = np.diag([*(1 / step), 1.0])
    matrix[:3, 3] = (before - centre) / step
    return matrix


def result_affine(
    affine: NDArray[np.float64] | None, to_input: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Affine of a result, from that of its input and the `index_map` between them.

    Parameters
    ----------
    affine : array of shape ``[4, 4]``, or None
        Voxel indices of the input to world coordinates; None counts voxels of the input.
    to_input : array of shape ``[4, 4]``
        As `index_map` gives it.

    Returns
    -------
    numpy.ndarray
        float64 of shape ``[4, 4]``.
    """
    return to_input if affine is None else np.asarray(affine, np.float64) @ to_input


def voxel_sizes(affine: NDArray[np.float64]) -> tuple[float, float, float]:
    """Length of a step along each voxel axis, in the unit of the world.

    Examples
    --------
    >>> voxel_sizes(np.diag([-2.0, 3.0, 0.5, 1.0]))
    (2.0, 3.0, 0.5)
    """
    depth, height, width = np.sqrt((np.asarray(affine)[:3, :3] ** 2).sum(axis=0))
    return float(depth), float(height), float(width)
