"""The Shepp-Logan phantom: grey levels at places that the table states."""

from __future__ import annotations

import numpy as np
import pytest

from convt.volumes import shepp_logan


def at(volume: np.ndarray, x: float, y: float, z: float) -> float:
    """The voxel at a place in the cube from -1 to 1."""
    size = volume.shape[0]
    i, j, k = (int((place + 1) / 2 * size) for place in (z, y, x))
    return float(volume[i, j, k])


@pytest.mark.parametrize(
    ("place", "grey"),
    [
        ((0, 0, 0.99), 0.0),  # air
        ((0, 0.9, 0), 2.0),  # skull
        ((0, -0.3, 0.2), 1.02),  # brain
        ((0.22, 0.05, -0.25), 1.0),  # right ventricle
        ((-0.25, -0.1, -0.25), 1.0),  # left ventricle, turned by 108 degrees
        ((0, 0.4, -0.25), 1.04),  # the large bright body
        ((0, 0.1, 0.625), 1.0),  # the small dark one above
    ],
)
def test_original_grey_levels(place: tuple[float, float, float], grey: float) -> None:
    head = shepp_logan(96, contrast="original")
    assert head.dtype == np.float32
    assert at(head, *place) == pytest.approx(grey, abs=1e-6)


def test_ventricles_lean_apart() -> None:
    head = shepp_logan(96)
    assert at(head, -0.33, 0.25, -0.25) == 0  # the far end of the left one
    assert at(head, -0.11, 0.25, -0.25) > 0  # its mirror image would reach here


def test_high_contrast_spans_zero_to_one() -> None:
    head = shepp_logan(48)
    assert (head.shape, head.min(), head.max()) == ((48, 48, 48), 0, 1)
    assert not np.signbit(head).any()


def test_any_size() -> None:
    assert shepp_logan(0).shape == (0, 0, 0)
    assert shepp_logan(1).item() == pytest.approx(0.2)


def test_refused() -> None:
    with pytest.raises(ValueError, match="size must be at least 0, got -1"):
        shepp_logan(-1)
    with pytest.raises(ValueError, match='contrast must be "high" or "original", got \'low\''):
        shepp_logan(8, contrast="low")
