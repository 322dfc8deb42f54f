"""Regions: a grid covers every voxel once, and axes go to a file's order and back."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convt.volumes.raw import Raw
from convt.volumes.regions import (
    AXES,
    along,
    count,
    five_axes,
    five_sizes,
    grid,
    inside,
    slices,
    stored_axes,
    stored_sizes,
)
from problems import examples

SIZES = st.tuples(*[st.integers(1, 5)] * 5)


@given(shape=SIZES, block=SIZES, start=SIZES)
@examples(30)
def test_every_voxel_is_in_one_block(shape: Any, block: Any, start: Any) -> None:
    seen = np.zeros(shape, int)
    regions = list(grid(shape, block))
    for region in regions:
        seen[slices(region, AXES)] += 1
    assert (seen == 1).all()
    assert len(regions) == count(shape, block)
    part: Any = tuple((min(a, size) - 1, size) for a, size in zip(start, shape, strict=True))
    found: Any = np.zeros([b - a for a, b in part], int)
    for piece in along(part, block):
        found[slices(inside(piece, part), AXES)] += 1
        edges = zip(piece, block, strict=True)
        assert all(a // step == (b - 1) // step for (a, b), step in edges)
    assert (found == 1).all()


@pytest.mark.parametrize(
    "axes", ["dhw", "whd", "cdhw", "ndhwc", *map("".join, permutations("dhwc"))]
)
def test_axes_go_there_and_back(axes: str) -> None:
    shape = tuple("ndhwc".index(axis) + 2 for axis in axes)
    array = np.arange(np.prod(shape)).reshape(shape)
    five = five_axes(array, axes)
    assert five.shape == five_sizes(shape, axes)
    assert stored_sizes(five.shape, axes) == shape
    np.testing.assert_array_equal(stored_axes(five, axes), array)


@pytest.mark.parametrize("axes", ["dhw", "whd", "cwhd", "dchw"])
@pytest.mark.parametrize("dtype", ["<f4", ">i2", "u1"])
def test_regions_in_place(axes: str, dtype: str, tmp_path: Path) -> None:
    shape = tuple("ndhwc".index(axis) + 2 for axis in axes)
    path = tmp_path / "raw"
    path.write_bytes(b"header")
    raw = Raw(str(path), 6, np.dtype(dtype), shape, axes)
    raw.reserve()
    assert path.stat().st_size == 6 + raw.size
    values = np.random.default_rng(0).integers(0, 99, five_sizes(shape, axes))
    for region in grid(values.shape, (1, 2, 3, 2, 6)):
        raw.write(region, values[slices(region, AXES)])
    stored = np.frombuffer(path.read_bytes()[6:], dtype).reshape(shape)
    np.testing.assert_array_equal(five_axes(stored, axes), values)
    for region in grid(values.shape, (1, 3, 2, 5, 4)):
        np.testing.assert_array_equal(raw.read(region), values[slices(region, AXES)])
