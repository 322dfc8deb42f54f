"""Interpolation kernels: as filters of a transposed convolution they interpolate, exactly."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from convt.reference import conv3d_transpose
from convt.volumes import nearest, trilinear
from convt.volumes.kernels import per_channel


def upsample(
    volume: NDArray[np.float64], kernel: NDArray[np.float64], factors: tuple[int, int, int]
) -> NDArray[np.float64]:
    shape = [1, *np.multiply(volume.shape, factors).tolist(), 1]
    result = conv3d_transpose(volume[None, ..., None], kernel[..., None, None], shape, factors)
    return np.asarray(result[0, ..., 0])


def interpolated(volume: NDArray[np.float64], factors: tuple[int, int, int]) -> NDArray[np.float64]:
    """Linear interpolation one axis after the other, held constant beyond the outermost voxels."""
    for axis, factor in enumerate(factors):
        size = volume.shape[axis]
        at = (np.arange(size * factor) + 0.5) / factor - 0.5
        lines = np.moveaxis(volume, axis, -1)
        rows = [np.interp(at, np.arange(size), line) for line in lines.reshape(-1, size)]
        volume = np.moveaxis(np.reshape(rows, (*lines.shape[:-1], at.size)), -1, axis)
    return volume


@pytest.mark.parametrize(
    "factors", [(1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 5, 2), (1, 2, 3), (7, 1, 6)]
)
def test_trilinear_is_linear_interpolation_in_the_interior(factors: tuple[int, int, int]) -> None:
    volume = np.random.default_rng(0).normal(size=(4, 5, 6))
    got = upsample(volume, trilinear(factors), factors)
    assert got.shape == tuple(np.multiply(volume.shape, factors))
    inside = tuple(
        slice(factor // 2, size * factor - factor // 2)
        for size, factor in zip(volume.shape, factors, strict=True)
    )
    np.testing.assert_allclose(got[inside], interpolated(volume, factors)[inside], atol=1e-13)


def test_trilinear_fades_at_the_faces() -> None:
    got = upsample(np.ones((3, 3, 3)), trilinear((1, 1, 4)), (1, 1, 4))
    fading = [0.625, 0.875, 1, 1, 1, 1, 1, 1, 1, 1, 0.875, 0.625]
    np.testing.assert_array_equal(got[1, 1], fading)


def test_trilinear_taps_are_triangles() -> None:
    assert trilinear((1, 1, 2)).ravel().tolist() == [0.25, 0.75, 0.75, 0.25]
    np.testing.assert_allclose(trilinear((1, 3, 1)).ravel(), np.array([1, 2, 3, 2, 1]) / 3)
    assert trilinear(2).shape == (4, 4, 4)
    assert trilinear([3]).shape == (5, 5, 5)


@pytest.mark.parametrize("factors", [(2, 2, 2), (3, 1, 4)])
def test_nearest_repeats_voxels(factors: tuple[int, int, int]) -> None:
    volume = np.random.default_rng(1).normal(size=(3, 4, 5))
    expected = volume
    for axis, factor in enumerate(factors):
        expected = expected.repeat(factor, axis)
    np.testing.assert_array_equal(upsample(volume, nearest(factors), factors), expected)


@pytest.mark.parametrize("kernel", [trilinear, nearest])
def test_factors_that_are_refused(kernel: type) -> None:
    with pytest.raises(ValueError, match=r"factors must be 1 or 3 .* at least 1, got \(2, 0, 2\)"):
        kernel((2, 0, 2))
    with pytest.raises(ValueError, match=r"factors must be 1 or 3 .* got \(2, 2\)"):
        kernel((2, 2))


def test_per_channel_keeps_channels_apart() -> None:
    kernel = np.arange(8.0).reshape(2, 2, 2)
    filters = per_channel(kernel, 3, np.float32)
    assert filters.shape == (2, 2, 2, 3, 1)
    assert filters.dtype == np.float32
    for channel in range(3):
        np.testing.assert_array_equal(filters[..., channel, 0], kernel)
