"""The Shepp-Logan head in three dimensions: a volume to try things on, made from a formula.

Ten ellipsoids add up. Their places, sizes and angles are those of A. C. Kak and M. Slaney,
"Principles of Computerized Tomographic Imaging" (IEEE Press, 1988), table 3.2, which carries
L. A. Shepp and B. F. Logan, "The Fourier reconstruction of a head section" (IEEE Transactions on
Nuclear Science 21, 1974) into three dimensions. Their grey levels differ by one or two per cent
in the brain; ``contrast="high"`` takes those of H. Yu, Y. Ye and G. Wang, "Katsevich-type
algorithms for variable radius spiral cone-beam CT" (SPIE 5535, 2004), which the eye can tell apart.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["shepp_logan"]


class Ellipsoid(NamedTuple):
    """One ellipsoid; lengths are in half sides of the volume, which spans -1 to 1."""

    axes: tuple[float, float, float]  # half axes along x, y, z before the turn
    centre: tuple[float, float, float]  # x, y, z
    angle: float  # degrees, about z
    original: float  # grey level added inside, Kak and Slaney
    high: float  # the same, Yu, Ye and Wang


HEAD = (
    Ellipsoid((0.69, 0.92, 0.9), (0, 0, 0), 0, 2, 1),
    Ellipsoid((0.6624, 0.874, 0.88), (0, 0, 0), 0, -0.98, -0.8),
    Ellipsoid((0.41, 0.16, 0.21), (-0.22, 0, -0.25), 108, -0.02, -0.2),
    Ellipsoid((0.31, 0.11, 0.22), (0.22, 0, -0.25), 72, -0.02, -0.2),
    Ellipsoid((0.21, 0.25, 0.5), (0, 0.35, -0.25), 0, 0.02, 0.2),
    Ellipsoid((0.046, 0.046, 0.046), (0, 0.1, -0.25), 0, 0.02, 0.2),
    Ellipsoid((0.046, 0.023, 0.02), (-0.08, -0.65, -0.25), 0, 0.01, 0.1),
    Ellipsoid((0.046, 0.023, 0.02), (0.06, -0.65, -0.25), 90, 0.01, 0.1),
    Ellipsoid((0.056, 0.04, 0.1), (0.06, -0.105, 0.625), 90, 0.02, 0.2),
    Ellipsoid((0.056, 0.056, 0.1), (0, 0.1, 0.625), 0, -0.02, -0.2),
)


def shepp_logan(size: int = 96, *, contrast: str = "high") -> NDArray[np.float32]:
    """The three-dimensional Shepp-Logan phantom.

    Parameters
    ----------
    size : int
        Voxels along each side.
    contrast : {"high", "original"}
        Grey levels that can be seen (0 to 1), or the original ones (0 to 2, brain near 1.02).

    Returns
    -------
    numpy.ndarray
        float32 of shape ``[size, size, size]``: z (feet to head), y (back to front), x.

    Raises
    ------
    ValueError
        If ``size`` is negative or ``contrast`` is not one of the two.

    Examples
    --------
    >>> head = shepp_logan(16)
    >>> head.shape, float(head[0, 0, 0]), round(float(head[8, 8, 8]), 3)
    ((16, 16, 16), 0.0, 0.2)
    """
    if size < 0:
        raise ValueError(f"size must be at least 0, got {size}")
    if contrast not in ("high", "original"):
        raise ValueError(f'contrast must be "high" or "original", got {contrast!r}')
    head = np.zeros((size, size, size), np.float64)
    for ellipsoid in HEAD:
        head[_inside(ellipsoid, size)] += getattr(ellipsoid, contrast)
    return head.round(6).astype(np.float32) + np.float32(0)  # no rounding dust, no negative zero


def _inside(ellipsoid: Ellipsoid, size: int) -> NDArray[np.bool_]:
    """Mask ``[z, y, x]`` of the voxels whose centre lies in the ellipsoid."""
    centres = (2 * np.arange(size) + 1) / max(size, 1) - 1
    x, y, z = (centres - middle for middle in ellipsoid.centre)
    cos, sin = np.cos(np.radians(ellipsoid.angle)), np.sin(np.radians(ellipsoid.angle))
    along = cos * x + sin * y[:, None]
    across = cos * y[:, None] - sin * x
    a, b, c = ellipsoid.axes
    disc = (along / a) ** 2 + (across / b) ** 2
    return np.asarray(disc + ((z / c) ** 2)[:, None, None] <= 1)
