"""Files: what is read is what was written, damage is named, and nothing is left half-written."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from convt.volumes import Volume, VolumeError, read, write
from convt.volumes.files import check_target, replacing, suffix_of

CUBE = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def named(path: Path) -> str:
    return re.escape(str(path))


@pytest.mark.parametrize("dtype", ["float16", ">f4", "<f8", "int16", ">u4", "bool"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_round_trip(tmp_path: Path, dtype: str, order: Any) -> None:
    data = np.asarray(CUBE, dtype, order=order)
    write(tmp_path / "cube.npy", data)
    volume = read(tmp_path / "cube.npy")
    assert volume.data.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(volume.data, data)
    assert (volume.affine, volume.header) == (None, None)


def test_npy_is_mapped_read_only(tmp_path: Path) -> None:
    write(tmp_path / "cube.npy", CUBE)
    data = read(tmp_path / "cube.npy").data
    assert isinstance(data, np.memmap)
    assert not data.flags.writeable


def test_npy_without_voxels(tmp_path: Path) -> None:
    write(tmp_path / "none.npy", np.zeros((0, 3, 4, 2)))
    assert read(tmp_path / "none.npy").data.shape == (0, 3, 4, 2)


def test_bfloat16_is_written_as_float32(tmp_path: Path) -> None:
    write(tmp_path / "cube.npy", CUBE.astype(ml_dtypes.bfloat16))
    data = read(tmp_path / "cube.npy").data
    assert data.dtype == np.float32
    np.testing.assert_array_equal(data, CUBE)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "can't be read as .npy"),
        (b"not an array at all", "can't be read as .npy: .*magic string"),
        (b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4'}", "can't be read as .npy"),
    ],
)
def test_a_broken_npy_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "broken.npy"
    path.write_bytes(content)
    with pytest.raises(VolumeError, match=f"^{named(path)}: {reason}"):
        read(path)


@pytest.mark.parametrize("missing", [1, 50, 96])
def test_a_truncated_npy_is_named(tmp_path: Path, missing: int) -> None:
    path = tmp_path / "short.npy"
    write(path, CUBE)
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(VolumeError, match=f"^{named(path)}: can't be read as .npy: "):
        read(path)


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "objects.npy"
    np.save(path, np.full((2, 2, 2), None), allow_pickle=True)
    with pytest.raises(VolumeError, match=f"^{named(path)}: .*allow_pickle=False"):
        read(path)


@pytest.mark.parametrize("shape", [(), (3,), (3, 4), (1, 2, 3, 4, 5)])
def test_other_ranks_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "rank.npy"
    np.save(path, np.zeros(shape))
    message = f"^{named(path)}: a volume has 3 or 4 axes, got shape {re.escape(str(shape))}"
    with pytest.raises(VolumeError, match=message):
        read(path)
    path.unlink()
    with pytest.raises(VolumeError, match=message):
        write(path, np.zeros(shape))
    assert list(tmp_path.iterdir()) == []


def test_complex_voxels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "phase.npy"
    np.save(path, CUBE.astype(np.complex64))
    with pytest.raises(VolumeError, match="voxels must be real numbers, got dtype complex64"):
        read(path)


def test_missing_and_unreadable_files_name_themselves(tmp_path: Path) -> None:
    for name in ("none.npy", "none.nii", "none.nii.gz"):
        with pytest.raises(FileNotFoundError, match=named(tmp_path / name)):
            read(tmp_path / name)
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(IsADirectoryError, match=r"folder\.npy"):
        read(tmp_path / "folder.npy")


@pytest.mark.parametrize("name", ["scan.dcm", "scan", "scan.gz", "npy"])
def test_other_suffixes_are_refused(name: str) -> None:
    with pytest.raises(VolumeError, match=rf"^{name}: the name must end in \.npy, \.nii or"):
        read(name)
    with pytest.raises(VolumeError, match=rf"^{name}: the name must end in \.npy, \.nii or"):
        write(name, CUBE)


def test_suffixes_in_any_case() -> None:
    assert suffix_of("A.NII.GZ") == ".nii.gz"
    assert suffix_of(Path("b.Npy")) == ".npy"


def test_existing_files_are_kept_without_force(tmp_path: Path) -> None:
    path = tmp_path / "cube.npy"
    write(path, CUBE)
    with pytest.raises(FileExistsError, match=named(path)):
        write(path, CUBE + 1)
    np.testing.assert_array_equal(read(path).data, CUBE)
    write(path, CUBE + 1, force=True)
    np.testing.assert_array_equal(read(path).data, CUBE + 1)


def test_a_file_may_replace_the_one_it_was_read_from(tmp_path: Path) -> None:
    path = tmp_path / "cube.npy"
    write(path, CUBE)
    write(path, read(path), force=True)
    np.testing.assert_array_equal(read(path).data, CUBE)


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "link.npy").symlink_to(tmp_path / "real.npy")
    write(tmp_path / "link.npy", CUBE)
    assert (tmp_path / "link.npy").is_symlink()
    np.testing.assert_array_equal(read(tmp_path / "real.npy").data, CUBE)


def test_folders_that_cant_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=f"no such folder: '{named(tmp_path / 'none')}'"):
        write(tmp_path / "none" / "cube.npy", CUBE)
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder"):
        write(tmp_path / "folder.npy", CUBE, force=True)
    # The superuser may write anywhere, so the system's answer is stated here.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match=f"folder can't be written: '{named(tmp_path)}'"):
        check_target(tmp_path / "cube.npy", force=False)


@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]
)
def test_nothing_remains_after_a_failure(tmp_path: Path, failure: BaseException) -> None:
    path = tmp_path / "old.npy"
    path.write_bytes(b"old")

    def fail_halfway() -> None:
        with replacing(path, force=True) as stream:
            stream.write(b"half")
            raise failure

    match = f"No space left on device: '{named(path)}'" if isinstance(failure, OSError) else None
    with pytest.raises(type(failure), match=match):
        fail_halfway()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "late.npy"

    def write_late() -> None:
        with replacing(path, force=False) as stream:
            stream.write(b"mine")
            path.write_bytes(b"theirs")

    with pytest.raises(FileExistsError, match=named(path)):
        write_late()
    assert path.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [path]


def test_new_files_have_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write(tmp_path / "cube.npy", Volume(CUBE))
    assert (tmp_path / "cube.npy").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_importing_volumes_imports_none_of_the_extra() -> None:
    code = (
        "import sys, convt.volumes;"
        "print({'matplotlib', 'nibabel', 'rich', 'typer', 'llvmlite'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
