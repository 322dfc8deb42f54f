"""Pictures: the slices shown are those asked for, turned the same way before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from convt.volumes import Volume, apply, draw
from convt.volumes.preview import picture

FLIPPED = np.array([[0, -2.0, 0, 9], [0, 0, 1.5, -4], [-3, 0, 0, 7], [0, 0, 0, 1]])
CUBE = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)


def images(figure: Any) -> list[Any]:
    return [axes.images[0] for axes in figure.axes[:6]]


def test_arrays_are_shown_as_stored() -> None:
    figure = picture(CUBE, apply(CUBE, "nearest", 2), at=(1, 2, 3))
    shown = [image.get_array().data for image in images(figure)]
    for got, expected in zip(shown, (CUBE[1], CUBE[:, 2], CUBE[:, :, 3]), strict=False):
        np.testing.assert_array_equal(got, expected)
    assert [got.shape for got in shown[3:]] == [(10, 12), (8, 12), (8, 10)]
    np.testing.assert_array_equal(shown[3], CUBE[1].repeat(2, 0).repeat(2, 1))
    titles = [axes.get_title() for axes in figure.axes[:6]]
    assert titles[:3] == [
        "across depth, slice 1",
        "across height, slice 2",
        "across width, slice 3",
    ]
    assert (
        figure.axes[3].get_ylabel()
        == "after\n8 \N{MULTIPLICATION SIGN} 10 \N{MULTIPLICATION SIGN} 12"
    )


def test_volumes_are_turned_to_the_world() -> None:
    """Depth runs down z, height down x, width up y; each panel's low corner is bottom left."""
    before = Volume(CUBE, FLIPPED)
    after = apply(before, "nearest", 2)
    figure = picture(before, after, at=(1, 2, 3))
    axial, coronal, sagittal = (image.get_array().data for image in images(figure)[:3])
    np.testing.assert_array_equal(axial, CUBE[1, ::-1].T)
    np.testing.assert_array_equal(coronal, CUBE[::-1, ::-1, 3])
    np.testing.assert_array_equal(sagittal, CUBE[::-1, 2])
    again = [image.get_array().data for image in images(figure)[3:]]
    np.testing.assert_array_equal(again[0], axial.repeat(2, 0).repeat(2, 1))
    titles = [axes.get_title() for axes in figure.axes[:3]]
    assert titles == ["axial, slice 2", "coronal, slice 3", "sagittal, slice 2"]
    x = " \N{MULTIPLICATION SIGN} "
    assert (
        figure.axes[0].get_ylabel()
        == f"before\n{x.join('456')}\nvoxels {x.join(['3', '2', '1.5'])} mm"
    )


@pytest.mark.parametrize("affine", [None, FLIPPED])
def test_before_and_after_cover_the_same_space(affine: Any) -> None:
    before = Volume(CUBE, affine)
    figure = picture(before, apply(before, "trilinear", (2, 3, 1)))
    extents = [image.get_extent() for image in images(figure)]
    np.testing.assert_allclose(extents[:3], extents[3:])
    width, height = np.ptp(extents[0][:2]), np.ptp(extents[0][2:])
    assert (width, height) == ((6, 5) if affine is None else (10, 9))  # sizes in the world


def test_a_result_that_grew_at_one_side_is_shown_there() -> None:
    before = Volume(CUBE, np.eye(4))
    figure = picture(before, apply(before, np.ones((1, 1, 3)), 1, "VALID"))
    first, second = (images(figure)[row].get_extent() for row in (1, 4))
    assert second[2] == first[2] - 1  # width runs along z, up: one voxel more on either side
    assert second[3] == first[3] + 1


def test_first_channel_and_odd_values() -> None:
    data = np.stack([CUBE, CUBE * 0], axis=3)
    data[0, 0, 0] = np.nan
    data[0, 0, 1] = np.inf
    figure = picture(data, data, at=(0, 0, 0))
    got = images(figure)[0].get_array()
    np.testing.assert_array_equal(got.data[1:], CUBE[0, 1:])
    low, high = images(figure)[0].get_clim()
    assert np.isfinite([low, high]).all()
    assert low < high
    assert images(picture(data * np.nan, data * np.nan))[0].get_clim() == (0, 1)
    flat = np.full((2, 2, 2), 5.0)
    assert images(picture(flat, flat))[0].get_clim() == (5, 6)


@pytest.mark.slow
def test_draw_writes_a_png(tmp_path: Path) -> None:
    path = tmp_path / "slices.png"
    draw(path, CUBE, apply(CUBE, "nearest", 2))
    pixels = imread(path)
    assert pixels.shape[1] == 1320
    assert pixels[..., :3].std() > 0.1
    with pytest.raises(FileExistsError, match=r"slices\.png"):
        draw(path, CUBE, CUBE)
    draw(path, CUBE, CUBE, force=True)


def test_empty_volumes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a picture needs voxels, got .* shape \(0, 2, 2\)"):
        picture(np.zeros((0, 2, 2)), CUBE)


class Watched:
    """A volume that is nowhere in memory as a whole."""

    shape = (4, 5, 6, 2)

    def __init__(self) -> None:
        self.read: list[tuple[int, ...]] = []

    def __getitem__(self, index: tuple[int | slice, ...]) -> Any:
        found = CUBE[index[:3]]
        self.read.append(found.shape)
        return found


def test_only_the_slices_are_read() -> None:
    data: Any = Watched()
    figure = picture(Volume(data), CUBE, at=(1, 2, 3))
    assert data.read == [(5, 6), (4, 6), (4, 5)]
    np.testing.assert_array_equal(images(figure)[2].get_array().data, CUBE[:, :, 3])
