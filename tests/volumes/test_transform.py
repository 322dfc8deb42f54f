"""`apply`: axes in, axes out, filters in every form, against the definition."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from convt.reference import conv3d_transpose
from convt.volumes import Volume, VolumeError, apply, trilinear, write

RANDOM = np.random.default_rng(0)
CUBE = RANDOM.normal(size=(3, 4, 5)).astype(np.float32)
SERIES = RANDOM.normal(size=(3, 4, 5, 6)).astype(np.float32)


def assert_close(got: Any, expected: Any) -> None:
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_three_axes_are_one_channel() -> None:
    kernel = RANDOM.normal(size=(3, 2, 4, 1, 1)).astype(np.float32)
    expected = conv3d_transpose(CUBE[None, ..., None], kernel, (1, 6, 8, 10, 1), 2)[0, ..., 0]
    assert_close(apply(CUBE, kernel, 2), expected)
    assert_close(apply(CUBE, kernel, 2, data_format="NCDHW"), expected)
    assert_close(apply(CUBE, kernel[..., 0, 0], 2), expected)


def test_three_axes_become_four_with_more_channels_out() -> None:
    kernel = RANDOM.normal(size=(2, 2, 2, 7, 1)).astype(np.float32)
    expected = conv3d_transpose(CUBE[None, ..., None], kernel, (1, 6, 8, 10, 7), 2)[0]
    assert_close(apply(CUBE, kernel, 2), expected)
    first = apply(CUBE, kernel, 2, data_format="NCDHW")
    assert_close(first, np.moveaxis(expected, 3, 0))


def test_four_axes_stay_four_with_one_channel_out() -> None:
    kernel = RANDOM.normal(size=(2, 2, 2, 1, 6)).astype(np.float32)
    expected = conv3d_transpose(SERIES[None], kernel, (1, 6, 8, 10, 1), 2)[0]
    assert_close(apply(SERIES, kernel, 2), expected)
    first = apply(np.moveaxis(SERIES, 3, 0), kernel, 2, data_format="NCDHW")
    assert_close(first, np.moveaxis(expected, 3, 0))


@pytest.mark.parametrize("name", ["trilinear", "nearest"])
@pytest.mark.parametrize("strides", [2, (1, 3, 2), (1, 2, 2, 2, 1)])
def test_named_kernels_treat_channels_alike(name: str, strides: Any) -> None:
    whole = apply(SERIES, name, strides)
    for channel in range(6):
        assert_close(whole[..., channel], apply(SERIES[..., channel], name, strides))
    steps = (1, 1, 2, 2, 2) if isinstance(strides, tuple) and len(strides) == 5 else strides
    first = apply(np.moveaxis(SERIES, 3, 0), name, steps, data_format="NCDHW")
    assert_close(np.moveaxis(first, 0, 3), whole)


def test_all_arguments_reach_the_operation() -> None:
    kernel = RANDOM.normal(size=(3, 3, 3, 4, 3)).astype(np.float32)
    bias = np.arange(4, dtype=np.float32)
    pads = [(1, 0), (0, 1), (2, 2)]
    given: dict[str, Any] = {"padding": pads, "dilations": (1, 2, 1)}
    shape = (1, 6, 11, 13, 4)
    expected = conv3d_transpose(
        SERIES[None], kernel, shape, (2, 2, 3), bias=bias, groups=2, **given
    )[0]
    for sizes in (shape[1:4], shape, (-1, 6, 11, 13, None)):
        got = apply(
            SERIES, kernel, (2, 2, 3), output_shape=sizes, bias=bias, groups=2, threads=1, **given
        )
        assert_close(got, expected)


@pytest.mark.parametrize("dtype", ["uint8", ">i2", "int64", "bool"])
def test_whole_numbers_are_computed_in_float32(dtype: str) -> None:
    volume = (np.arange(60).reshape(3, 4, 5) % 2).astype(dtype)
    got = apply(volume, "trilinear", 2)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, apply(volume.astype(np.float32), "trilinear", 2))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64, ">f4"])
def test_other_floating_points_stay(dtype: Any) -> None:
    got = apply(CUBE.astype(dtype), trilinear(2), 2)
    assert got.dtype == np.dtype(dtype).newbyteorder("=")


def test_filters_and_bias_from_files(tmp_path: Path) -> None:
    kernel = RANDOM.normal(size=(2, 2, 2, 3, 1))
    np.save(tmp_path / "kernel.npy", kernel)
    np.save(tmp_path / "bias.npy", np.arange(3))
    write(tmp_path / "cube.npy", CUBE)
    got = apply(tmp_path / "cube.npy", str(tmp_path / "kernel.npy"), 2, bias=tmp_path / "bias.npy")
    assert isinstance(got, Volume)
    expected = apply(CUBE, kernel.astype(np.float32), 2, bias=np.arange(3, dtype=np.float32))
    np.testing.assert_array_equal(got.data, expected)


def test_kind_in_is_kind_out() -> None:
    assert isinstance(apply(CUBE, "nearest", 2), np.ndarray)
    assert isinstance(apply(Volume(CUBE), "nearest", 2), Volume)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((CUBE[0], "nearest", 2), ValueError, r"volume must have 3 or 4 axes, got shape \(4, 5\)"),
        ((CUBE, CUBE[0], 2), ValueError, r"filters must have 5 axes .* got shape \(4, 5\)"),
        ((CUBE, "sinc", 2), ValueError, "filters must be an array, a .npy file or trilinear"),
        ((CUBE, "nearest", 0), ValueError, "strides.* = 0 must be at least 1"),
        ((CUBE, "nearest", 2.0), TypeError, "strides must be an integer"),
        ((CUBE, "nearest", 2, "same"), ValueError, "padding must be .* got 'same': write \"SAME\""),
        ((CUBE, "nearest", 2, "SAME", (6, 8, 11)), ValueError, r"output_shape\[3\] = 11 \(width\)"),
        ((CUBE, np.ones((1, 1, 1, 1, 2)), 1), ValueError, "filters.*in_channels"),
        ((CUBE.astype(complex), "nearest", 2), TypeError, "volume .*complex128"),
        ((CUBE, np.ones((1, 1, 1), complex), 1), TypeError, "filters: must hold real numbers"),
    ],
)
def test_refused(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        apply(*arguments)


def test_broken_filters_name_their_file(tmp_path: Path) -> None:
    path = tmp_path / "kernel.npy"
    path.write_bytes(b"no array")
    with pytest.raises(VolumeError, match=f"^{re.escape(str(path))}: can't be read as .npy"):
        apply(CUBE, path, 2)
    with pytest.raises(FileNotFoundError, match=r"bias\.npy"):
        apply(CUBE, "nearest", 2, bias=tmp_path / "bias.npy")


def test_nifti_volumes_have_channels_last() -> None:
    with pytest.raises(ValueError, match='data_format of a NIfTI volume must be "NDHWC"'):
        apply(Volume(SERIES, np.eye(4), object()), "nearest", 2, data_format="NCDHW")
