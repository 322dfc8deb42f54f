"""NIfTI: values, byte orders and scaling are read as nibabel reads them; headers are carried on."""

from __future__ import annotations

import gzip
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as typed_nibabel
import numpy as np
import pytest

from convt.volumes import Volume, VolumeError, apply, read, write
from convt.volumes.affine import voxel_sizes

nibabel: Any = typed_nibabel  # its types stop at half of its functions
MRI = Path(nibabel.__file__).parent / "tests" / "data" / "anatomical.nii"
AFFINE = np.array([[-2.0, 0, 0.1, 30], [0, 1.5, 0, -40], [0.1, 0, 3, 5], [0, 0, 0, 1]])
CUBE = np.arange(60, dtype=np.int16).reshape(3, 4, 5)


def save(path: Path, data: Any, *, endian: str = "<", **fields: Any) -> None:
    """Write ``data`` with nibabel itself, with header fields as given."""
    header = nibabel.Nifti1Header(endianness=endian)
    header.set_data_dtype(data.dtype)
    image = nibabel.Nifti1Image(data, AFFINE, header)
    for field, value in fields.items():
        image.header[field] = value
    nibabel.save(image, path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("endian", "<>")
@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8"])
def test_stored_values(tmp_path: Path, suffix: str, endian: str, dtype: str) -> None:
    path = tmp_path / f"cube{suffix}"
    save(path, CUBE.astype(dtype), endian=endian)
    volume = read(path)
    assert volume.data.dtype == np.dtype(endian + dtype)
    np.testing.assert_array_equal(volume.data, CUBE)
    assert volume.affine is not None
    np.testing.assert_allclose(volume.affine, AFFINE, rtol=1e-6)


def test_uncompressed_values_stay_in_the_file(tmp_path: Path) -> None:
    save(tmp_path / "cube.nii", CUBE)
    assert isinstance(read(tmp_path / "cube.nii").data, np.memmap)


def patch(path: Path, offset: int, layout: str, *values: float) -> None:
    """Change header fields in the file, where nibabel would set its own."""
    raw = bytearray(path.read_bytes())
    struct.pack_into(layout, raw, offset, *values)
    path.write_bytes(raw)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("endian", "<>")
@pytest.mark.parametrize(
    ("stored", "dtype"), [("i2", "f4"), ("i4", "f4"), ("f4", "f4"), ("f8", "f8")]
)
def test_scaled_values(tmp_path: Path, suffix: str, endian: str, stored: str, dtype: str) -> None:
    path = tmp_path / "scaled.nii"
    save(path, CUBE.astype(stored), endian=endian)
    patch(path, 112, f"{endian}ff", 0.1, -3)  # scl_slope, scl_inter
    if suffix == ".nii.gz":
        path = tmp_path / "scaled.nii.gz"
        path.write_bytes(gzip.compress((tmp_path / "scaled.nii").read_bytes()))
    volume = read(path)
    assert volume.data.dtype == np.dtype(dtype)
    np.testing.assert_allclose(volume.data, CUBE * 0.1 - 3, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_written_volumes_are_read_by_nibabel(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    write(path, Volume(CUBE.astype(np.float32), AFFINE))
    image = nibabel.load(path)
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asarray(image.dataobj), CUBE)
    np.testing.assert_allclose(image.affine, AFFINE, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.bool_])
def test_types_that_nifti_lacks_become_float32(tmp_path: Path, dtype: type) -> None:
    write(tmp_path / "out.nii", (CUBE % 2).astype(dtype))
    data = read(tmp_path / "out.nii").data
    assert data.dtype == np.float32
    np.testing.assert_array_equal(data, CUBE % 2)


def test_equal_volumes_make_equal_files(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        write(tmp_path / name, CUBE)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_the_header_is_carried_on(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii"
    save(path, CUBE, descrip=b"a scan", xyzt_units=10, cal_max=50, slice_code=1, slice_end=4)
    source = nibabel.load(path)
    source.header.set_qform(AFFINE, code=3, strip_shears=True)
    source.header.set_sform(AFFINE, code=4)
    source.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"kept"))
    nibabel.save(nibabel.Nifti1Image(CUBE, None, source.header), path)
    stated = nibabel.load(path)

    write(tmp_path / "fine.nii", apply(path, "trilinear", (2, 1, 3)))
    fine = nibabel.load(tmp_path / "fine.nii")
    header = fine.header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (3, 4)
    assert header.get_xyzt_units() == ("mm", "sec")
    assert (bytes(header["descrip"]).rstrip(b"\0"), float(header["cal_max"])) == (b"a scan", 50)
    assert [extension.get_content() for extension in header.extensions] == [b"kept"]
    assert (int(header["slice_code"]), int(header["slice_end"])) == (0, 0)
    to_input = np.diag([1 / 2, 1, 1 / 3, 1])
    to_input[:3, 3] = (-1 / 4, 0, -1 / 3)
    np.testing.assert_allclose(header.get_sform(), AFFINE @ to_input, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        header.get_qform(), stated.header.get_qform() @ to_input, rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(header.get_zooms(), voxel_sizes(header.get_sform()), rtol=1e-5)


def test_a_header_without_codes_keeps_the_place(tmp_path: Path) -> None:
    path = tmp_path / "bare.nii"
    save(path, CUBE)
    patch(path, 252, "<hh", 0, 0)  # qform_code, sform_code
    stated = nibabel.load(path)
    assert int(stated.header["sform_code"]) == 0
    before = read(path)
    after = apply(before, np.ones((3, 3, 3)), 1, "VALID")
    write(tmp_path / "after.nii", after)
    again = read(tmp_path / "after.nii")
    assert after.affine is not None
    assert again.affine is not None
    np.testing.assert_allclose(again.affine, after.affine, rtol=1e-6)


def test_four_axes_keep_the_repetition_time(tmp_path: Path) -> None:
    series = np.stack([CUBE, CUBE + 1], axis=3).astype(np.float32)
    image = nibabel.Nifti1Image(series, AFFINE)
    image.header.set_zooms((2, 1.5, 3, 0.75))
    nibabel.save(image, tmp_path / "series.nii")
    after = apply(tmp_path / "series.nii", "nearest", 2)
    assert after.data.shape == (6, 8, 10, 2)
    np.testing.assert_array_equal(after.data[::2, ::2, ::2], series)
    write(tmp_path / "fine.nii.gz", after)
    fine = nibabel.load(tmp_path / "fine.nii.gz")
    assert fine.header.get_zooms()[3] == 0.75


def test_axes_longer_than_nifti_1_can_state(tmp_path: Path) -> None:
    save(tmp_path / "line.nii", np.ones((1, 1, 20000), np.float32), descrip=b"long")
    write(tmp_path / "long.nii", apply(tmp_path / "line.nii", "nearest", (1, 1, 2)))
    image = nibabel.load(tmp_path / "long.nii")
    assert isinstance(image, nibabel.Nifti2Image)
    assert image.shape == (1, 1, 40000)
    assert bytes(image.header["descrip"]).rstrip(b"\0") == b"long"
    assert int(image.header["sform_code"]) == 2
    assert read(tmp_path / "long.nii").data.shape == (1, 1, 40000)
    write(tmp_path / "long.nii.gz", read(tmp_path / "long.nii"))
    assert read(tmp_path / "long.nii.gz").data.shape == (1, 1, 40000)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("endian", "<>")
def test_nifti_2_is_read_and_carried_on(tmp_path: Path, suffix: str, endian: str) -> None:
    path, fine = tmp_path / f"wide{suffix}", tmp_path / f"fine{suffix}"
    header = nibabel.Nifti2Header(endianness=endian)
    nibabel.save(nibabel.Nifti2Image(CUBE, AFFINE, header), path)
    np.testing.assert_array_equal(read(path).data, CUBE)
    write(fine, apply(path, "nearest", 2))
    image = nibabel.load(fine)
    assert isinstance(image, nibabel.Nifti2Image)
    assert image.header.endianness == endian
    assert int(image.header["sform_code"]) == 2
    np.testing.assert_array_equal(np.asarray(image.dataobj)[::2, ::2, ::2], CUBE)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("keep", [0, 3, 200, 350, 0.9])
def test_truncated_files_are_named(tmp_path: Path, suffix: str, keep: float) -> None:
    path = tmp_path / f"short{suffix}"
    save(path, np.random.default_rng(0).normal(size=(9, 9, 9)))
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    with pytest.raises(VolumeError, match=f"^{re.escape(str(path))}: can't be read as NIfTI: "):
        read(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_other_files_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"text{suffix}"
    path.write_bytes(b"This is no picture of a head. " * 40)
    with pytest.raises(VolumeError, match=f"^{re.escape(str(path))}: can't be read as NIfTI: "):
        read(path)


def test_a_flipped_bit_in_a_compressed_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "damaged.nii.gz"
    save(tmp_path / "whole.nii", CUBE)
    raw = gzip.compress((tmp_path / "whole.nii").read_bytes(), compresslevel=0)
    at = raw.index(CUBE.tobytes(order="F")) + 7  # stored as it is: only the checksum can tell
    path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
    with pytest.raises(VolumeError, match=f"^{re.escape(str(path))}: .*CRC"):
        read(path)


def test_colours_are_refused(tmp_path: Path) -> None:
    colours = np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    save(tmp_path / "colours.nii", colours)
    with pytest.raises(VolumeError, match=r"colours\.nii: voxels must be real numbers"):
        read(tmp_path / "colours.nii")


def test_complex_values_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "phase.nii", CUBE.astype(np.complex64))
    with pytest.raises(VolumeError, match=r"phase\.nii: voxels must be real numbers.*complex64"):
        read(tmp_path / "phase.nii")


def test_without_nibabel_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['nibabel'] = None; from convt.volumes import read; "
        f"read({str(MRI)!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        'ImportError: NIfTI files need nibabel: pip install "convt[cli]"'
    )


def test_the_mri_that_nibabel_ships_upsampled(tmp_path: Path) -> None:
    """Every voxel of the result has the value found at its world position in the original."""
    write(tmp_path / "fine.nii.gz", apply(MRI, "trilinear", (2, 3, 2)))
    before, after = read(MRI), read(tmp_path / "fine.nii.gz")
    assert before.data.dtype == np.dtype(">i2")
    assert before.affine is not None
    assert after.affine is not None
    assert after.data.shape == (66, 123, 50)
    assert after.data.dtype.newbyteorder("=") == np.float32
    voxels = np.indices(after.data.shape).reshape(3, -1)
    to_before = np.linalg.inv(before.affine) @ after.affine
    places = to_before[:3, :3] @ voxels + to_before[:3, 3:]
    last = np.array(before.data.shape)[:, None] - 1
    inside = ((places >= 0) & (places <= last)).all(axis=0)
    assert inside.mean() > 0.85
    expected = interpolate(before.data.astype(np.float64), places[:, inside])
    got = after.data.reshape(-1)[inside]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-2)


def interpolate(data: Any, places: Any) -> Any:
    """Values at fractional voxel indices: the eight neighbours weighted by their nearness."""
    low = np.minimum(np.floor(places).astype(int), np.array(data.shape)[:, None] - 2)
    part = places - low
    total = np.zeros(places.shape[1])
    for corner in np.ndindex(2, 2, 2):
        step = np.array(corner)[:, None]
        weight = np.where(step, part, 1 - part).prod(axis=0)
        total += weight * data[tuple(low + step)]
    return total
