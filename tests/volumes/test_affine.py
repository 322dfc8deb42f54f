"""Affines: a bright voxel is found at the same place of the world after any convolution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from convt.volumes import Volume, apply
from convt.volumes.affine import index_map, result_affine, voxel_sizes

OBLIQUE = np.array(
    [[0.9, -0.6, 0.3, -20.0], [0.5, 1.4, 0.2, 7.0], [-0.4, 0.1, 2.5, 3.0], [0, 0, 0, 1]]
)


def centroid(volume: Volume) -> NDArray[np.float64]:
    """The world position of the middle of what a volume shows."""
    assert volume.affine is not None
    where = np.argwhere(volume.data)
    weights = volume.data[volume.data != 0]
    middle = (where * weights[:, None]).sum(axis=0) / weights.sum()
    return np.asarray(volume.affine @ [*middle, 1])[:3]


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [(1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 5, 2)])
@pytest.mark.parametrize("strides", [(1, 1, 1), (2, 2, 2), (3, 1, 2)])
@pytest.mark.parametrize("dilations", [(1, 1, 1), (2, 1, 3)])
@pytest.mark.parametrize("padding", ["SAME", "VALID", [(1, 0), (0, 2), (1, 1)]])
def test_a_bright_voxel_stays_in_place(
    kernel: tuple[int, int, int],
    strides: tuple[int, int, int],
    dilations: tuple[int, int, int],
    padding: Any,
) -> None:
    data = np.zeros((12, 13, 14), np.float32)
    data[5, 6, 7] = 1
    before = Volume(data, OBLIQUE)
    block = np.ones(kernel, np.float32)
    after = apply(before, block, strides, padding, dilations=dilations)
    assert np.count_nonzero(after.data) == np.prod(kernel)  # nothing was cropped
    np.testing.assert_allclose(centroid(after), centroid(before), atol=1e-9)


def test_output_shape_moves_nothing() -> None:
    data = np.zeros((6, 6, 6), np.float32)
    data[3, 2, 3] = 1
    before = Volume(data, OBLIQUE)
    for size in (11, 12):
        after = apply(before, np.ones((3, 3, 3)), 2, output_shape=(size, 12, 12))
        assert after.data.shape == (size, 12, 12)
        np.testing.assert_allclose(centroid(after), centroid(before), atol=1e-9)


def test_trilinear_puts_voxels_where_half_pixels_are() -> None:
    matrix = index_map(
        kernel=(4, 4, 4), strides=(2, 2, 2), dilations=(1, 1, 1), pad_before=(1, 1, 1)
    )
    np.testing.assert_array_equal(matrix @ [1, 1, 1, 1], [0.25, 0.25, 0.25, 1])


def test_no_affine_counts_voxels_of_the_input() -> None:
    matrix = np.diag([0.5, 0.5, 0.5, 1])
    np.testing.assert_array_equal(result_affine(None, matrix), matrix)
    np.testing.assert_array_equal(result_affine(OBLIQUE, matrix), OBLIQUE @ matrix)


def test_voxel_sizes_are_lengths_of_columns() -> None:
    sizes = voxel_sizes(OBLIQUE)
    assert sizes == pytest.approx(np.linalg.norm(OBLIQUE[:3, :3], axis=0))
    assert voxel_sizes(OBLIQUE @ np.diag([0.5, 0.25, 1, 1])) == pytest.approx(
        np.multiply(sizes, (0.5, 0.25, 1))
    )
