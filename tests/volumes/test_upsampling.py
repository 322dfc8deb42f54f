"""Upsampling: against other libraries where they agree on what it is, else against the definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import convt
from convt.reference import conv3d_transpose
from convt.volumes import Volume, VolumeError, read, upsample, upsampling, write
from convt.volumes.kernels import INTERPOLATIONS, REACH

Array = NDArray[Any]
KERNELS = tuple(INTERPOLATIONS)
SMOOTH = tuple(kernel for kernel in KERNELS if kernel != "nearest")
SHAPES = [(4, 5, 6), (1, 1, 1), (2, 1, 17)]
FACTORS = [(2, 2, 2), (3, 3, 3), (1, 2, 5), (4, 1, 9)]


def random(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random(shape).astype(dtype)


def by_definition(volume: Array, factors: tuple[int, int, int], kernel: str) -> Array:
    """The whole volume padded with its faces, convolved at once, in float64."""
    reach = REACH[kernel]
    padded = np.pad(volume.astype(np.float64), reach, "edge")
    shape = [1, *np.multiply(padded.shape, factors).tolist(), 1]
    weights = INTERPOLATIONS[kernel](factors)[..., None, None]
    result = conv3d_transpose(padded[None, ..., None], weights, shape, factors)[0, ..., 0]
    inner = [slice(reach * f, -reach * f or None) for f in factors]
    return np.asarray(result[tuple(inner)])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize("shape", SHAPES)
def test_against_the_definition(
    shape: tuple[int, int, int], factors: tuple[int, int, int], kernel: str
) -> None:
    volume = random(shape)
    expected = by_definition(volume, factors, kernel)
    got = upsample(volume, factors, kernel)
    assert got.dtype == np.float32
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)
    wide = upsample(volume.astype(np.float64), factors, kernel)
    assert wide.dtype == np.float64
    np.testing.assert_allclose(wide, expected, rtol=0, atol=4e-15)


@pytest.mark.parametrize("mode", ["trilinear", "nearest"])
@pytest.mark.parametrize("factors", FACTORS)
def test_against_torch(factors: tuple[int, int, int], mode: str) -> None:
    torch = pytest.importorskip("torch")
    volume = random((9, 8, 17), np.float64)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(volume)[None, None],
        scale_factor=tuple(map(float, factors)),
        mode=mode,
        align_corners=False if mode == "trilinear" else None,
    )[0, 0].numpy()
    error = 0 if mode == "nearest" else 4e-15
    np.testing.assert_allclose(upsample(volume, factors, mode), expected, rtol=0, atol=error)
    if mode == "trilinear":
        got = upsample(volume.astype(np.float32), factors)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", [2, 4])
def test_against_torch_in_float32(factor: int) -> None:
    torch = pytest.importorskip("torch")  # whose own positions are exact for powers of two only
    volume = random((6, 7, 9))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(volume)[None, None], scale_factor=factor, mode="trilinear"
    )
    np.testing.assert_allclose(upsample(volume, factor), expected[0, 0].numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kernel", ["cubic", "lanczos3"])
@pytest.mark.parametrize("factor", [2, 3, 5])
def test_inside_as_pillow_does(factor: int, kernel: str) -> None:
    image = random(
        (12, 15)
    )  # Pillow leaves out what lies beyond a face, so only the inside is the same
    how = {"cubic": Image.Resampling.BICUBIC, "lanczos3": Image.Resampling.LANCZOS}[kernel]
    expected = np.asarray(Image.fromarray(image).resize((15 * factor, 12 * factor), how))
    inner = (slice(3 * factor, -3 * factor),) * 2
    got = upsample(image[None], (1, factor, factor), kernel)[0]
    np.testing.assert_allclose(got[inner], expected[inner], rtol=0, atol=1e-6)


def test_cubic_gives_quadratics_back() -> None:
    factor, inner = 4, slice(8, -8)
    at = (np.arange(12 * factor) + 0.5) / factor - 0.5
    line = np.arange(12.0) ** 2 - 3 * np.arange(12.0)
    got = upsample(line[None, None], (1, 1, factor), "cubic")[0, 0]
    np.testing.assert_allclose(got[inner], (at**2 - 3 * at)[inner], rtol=1e-13)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("factor", [2, 3, 7])
def test_constants_stay_constant_up_to_the_faces(factor: int, kernel: str) -> None:
    got = upsample(np.full((3, 2, 4), 3.0, np.float32), factor, kernel)
    np.testing.assert_allclose(got, 3, rtol=1e-6)


# --- dtypes -------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["u1", "i2", "f2", "i4", "f4", "f8", "u8"])
def test_nearest_moves_every_bit_pattern(dtype: str) -> None:
    # A NaN's payload is no number that two arrays could be compared by.
    raw = np.random.default_rng(3).integers(0, 256, (2, 3, 4, np.dtype(dtype).itemsize), np.uint8)
    got = upsample(raw.view(dtype)[..., 0], (2, 1, 3), "nearest")
    assert got.dtype == dtype
    expected = raw.repeat(2, 0).repeat(3, 2)
    np.testing.assert_array_equal(got[..., None].view(np.uint8), expected)


def test_nearest_keeps_bools_and_whole_numbers() -> None:
    mask = random((3, 3, 3)) > 0.5
    got = upsample(mask, 2, "nearest")
    assert got.dtype == np.bool_
    np.testing.assert_array_equal(got, mask.repeat(2, 0).repeat(2, 1).repeat(2, 2))


@pytest.mark.parametrize("kernel", SMOOTH)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_halves_are_rounded_once(dtype: Any, kernel: str) -> None:
    volume = random((4, 5, 6), dtype)
    got = upsample(volume, (2, 3, 2), kernel)
    assert got.dtype == dtype
    expected = upsample(volume.astype(np.float32), (2, 3, 2), kernel).astype(dtype)
    np.testing.assert_array_equal(got.view(np.uint16), expected.view(np.uint16))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64])
def test_whole_numbers_become_float32_or_are_rounded_back(dtype: Any) -> None:
    bounds = np.iinfo(dtype)
    volume = np.random.default_rng(4).integers(0, 200, (4, 5, 6)).astype(dtype)
    volume[:2, :2, :2], volume[2:, 2:, 2:] = bounds.min, bounds.max  # cubic shoots past both
    wide = upsample(volume, 2, "cubic")
    assert wide.dtype == np.float32
    np.testing.assert_array_equal(wide, upsample(volume.astype(np.float32), 2, "cubic"))
    kept = upsample(volume, 2, "cubic", keep_dtype=True)
    assert kept.dtype == dtype
    exact = np.clip(np.rint(wide.astype(np.float64)), bounds.min, bounds.max)
    assert wide.max() > bounds.max
    clipped = exact >= bounds.max  # which of 32 bits and more a float64 may not have
    np.testing.assert_array_equal(kept[~clipped].astype(np.float64), exact[~clipped])
    assert clipped.any()
    assert (kept[clipped] == bounds.max).all()


def test_halves_of_whole_numbers_go_to_even() -> None:
    got = upsample(np.array([[[0, 2, 4, 6]]], np.uint8), (1, 1, 2), keep_dtype=True)
    assert got.tolist() == [[[0, 0, 2, 2, 4, 4, 6, 6]]]  # of 0, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6


def test_bools_are_rounded_back() -> None:
    got = upsample(np.array([[[False, True]]]), (1, 1, 4), keep_dtype=True)
    assert got.dtype == np.bool_
    assert got.tolist() == [[[False] * 4 + [True] * 4]]


# --- arrays as they come ------------------------------------------------------------------------
@pytest.mark.parametrize("kernel", KERNELS)
def test_arrays_of_any_make(kernel: str, tmp_path: Path) -> None:
    volume = random((4, 5, 6))
    expected = upsample(volume, 2, kernel)
    np.save(tmp_path / "volume.npy", volume)
    mapped = np.load(tmp_path / "volume.npy", mmap_mode="r")
    wide = np.zeros((4, 10, 12), np.float32)
    wide[:, ::2, ::-2] = volume
    for given in (volume.astype(">f4"), np.asfortranarray(volume), mapped, wide[:, ::2, ::-2]):
        got = upsample(given, 2, kernel)
        assert got.dtype == np.float32
        assert got.dtype.isnative
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("channels", [1, 3, 16])
def test_channels_are_upsampled_by_themselves(channels: int, kernel: str) -> None:
    volume = random((3, 4, 5, channels))
    single = [upsample(volume[..., c], (2, 1, 3), kernel) for c in range(channels)]
    last = upsample(volume, (2, 1, 3), kernel)
    np.testing.assert_array_equal(last, np.stack(single, -1))
    first = upsample(np.moveaxis(volume, -1, 0), (2, 1, 3), kernel, "NCDHW")
    assert first.flags.c_contiguous
    np.testing.assert_array_equal(np.moveaxis(first, 0, -1), last)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_same_bits_from_any_blocks_and_threads(
    kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = random((9, 10, 33))
    expected = upsample(volume, (2, 3, 2), kernel, threads=1)
    for block in (1 << 22, 1 << 14, 1):
        monkeypatch.setattr(upsampling, "_BLOCK", block)
        got = upsample(volume, (2, 3, 2), kernel, threads=3)
        np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("shape", [(0, 3, 3), (3, 0, 3), (3, 3, 3, 0)])
def test_volumes_without_voxels(shape: tuple[int, ...]) -> None:
    assert upsample(np.zeros(shape), 2).shape == tuple(
        np.multiply(shape, [2, 2, 2, 1][: len(shape)])
    )


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_within_reach(value: float, kernel: str) -> None:
    volume = random((9, 9, 9))
    expected = upsample(volume, 2, kernel)
    volume[4, 4, 4] = value
    got = upsample(volume, 2, kernel)
    reached = np.zeros(got.shape, bool)
    edge = slice(
        2 * (4 - REACH[kernel]) + (REACH[kernel] > 0), 2 * (5 + REACH[kernel]) - (REACH[kernel] > 0)
    )
    reached[edge, edge, edge] = True
    assert not np.isfinite(got[reached]).any()
    np.testing.assert_array_equal(got[~reached], expected[~reached])


# --- place in the world -------------------------------------------------------------------------
def test_faces_stay_where_they_were() -> None:
    affine = np.array([[0, 0, 2.0, 5], [0, -3, 0, 1], [0.5, 0.1, 0, -7], [0, 0, 0, 1]])
    volume = Volume(random((4, 5, 6)), affine)
    got = upsample(volume, (2, 3, 1))
    assert got.affine is not None
    for corner, size, sizes in ((0, 0, 0), (1, (4, 5, 6), (8, 15, 6))):
        before = affine @ [*(np.multiply(corner, size) - 0.5 + np.zeros(3)), 1]
        after = got.affine @ [*(np.multiply(corner, sizes) - 0.5 + np.zeros(3)), 1]
        np.testing.assert_allclose(after, before, atol=1e-12)


def test_nifti_files_keep_header_and_place(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    write(path, Volume(random((4, 5, 6)), np.diag([2.0, 3.0, 4.0, 1.0])))
    got = upsample(path, 2)
    assert got.header.get_zooms() == (1.0, 1.5, 2.0)
    np.testing.assert_array_equal(got.data, upsample(read(path).data, 2))
    write(tmp_path / "fine.nii", got)
    again = read(tmp_path / "fine.nii")
    assert again.affine is not None
    assert got.affine is not None
    np.testing.assert_allclose(again.affine, got.affine)


# --- what is refused ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"factor": 0}, ValueError, "factor = 0 must be"),
        ({"factor": (2, 2)}, ValueError, "factor"),
        ({"factor": 1.5}, TypeError, "factor must be an integer, .* got 1.5"),
        ({"kernel": "linear"}, ValueError, "trilinear, nearest, cubic, lanczos3, got 'linear'"),
        ({"kernel": ["cubic"]}, ValueError, "kernel must be"),
        ({"volume": np.zeros((2, 2))}, ValueError, r"3 or 4 axes, got shape \(2, 2\)"),
        ({"volume": np.zeros((2, 2, 2), complex)}, TypeError, "volume"),
        ({"volume": np.zeros((2, 2, 2), object)}, TypeError, "volume"),
        ({"data_format": "NDWHC"}, ValueError, "data_format"),
        ({"threads": 0}, ValueError, "threads = 0"),
    ],
)
def test_arguments_that_are_refused(
    arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    given: dict[str, Any] = {"volume": np.zeros((2, 2, 2), np.float32), "factor": 2} | arguments
    with pytest.raises(error, match=text):
        upsample(**given)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.npy"
    path.write_bytes(b"no array")
    with pytest.raises(VolumeError, match=r"broken\.npy"):
        upsample(path, 2)


def test_upsampling_is_a_transposed_convolution() -> None:
    volume = random((4, 5, 6))
    padded = np.pad(volume, 1, "edge")[None, ..., None]
    weights = INTERPOLATIONS["trilinear"](2).astype(np.float32)[..., None, None]
    crop = [(3, 3)] * 3
    expected = convt.conv3d_transpose(padded, weights, None, 2, crop, algorithm="direct")
    np.testing.assert_array_equal(upsample(volume, 2), expected[0, ..., 0])
