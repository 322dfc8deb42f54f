"""Volumes on disk: NumPy ``.npy``, and NIfTI ``.nii`` and ``.nii.gz``.

Reading maps the file into memory where the format allows, so that only the voxels that are used
are read; whatever is wrong with a file becomes one `VolumeError` that names it. Writing goes to a
temporary file beside the target, which takes the target's name only when it is complete: a reader
never sees half a file, and nothing remains after a failure.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Volume",
    "VolumeError",
    "check_target",
    "naming",
    "read",
    "replacing",
    "suffix_of",
    "write",
]

SUFFIXES = (".npy", ".nii", ".nii.gz")
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


class VolumeError(ValueError):
    """A file can't be read or written as a volume; the message starts with its path."""


class StreamError(VolumeError):
    """A file failed while a volume was streamed from or to it; the message starts with its path."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume and its place in the world."""

    data: NDArray[Any]  # [D, H, W] or [D, H, W, C]; may be memory-mapped and read-only
    affine: NDArray[np.float64] | None = None  # [4, 4], voxel indices -> world; None: no world
    header: Any = None  # NIfTI header that a NIfTI result carries on; None for .npy


def read(path: str | os.PathLike[str]) -> Volume:
    """Read a volume from a ``.npy``, ``.nii`` or ``.nii.gz`` file.

    Parameters
    ----------
    path : path
        Files of three axes hold one channel, files of four hold channels last (NIfTI) or in
        the order that you will state (``.npy``).

    Returns
    -------
    Volume
        The values as stored, memory-mapped where the format allows; scaled NIfTI integers
        (``scl_slope``) as float32. A ``.npy`` file has no affine.

    Raises
    ------
    VolumeError
        If the name has another suffix, or the file is damaged or holds something else.
    OSError
        If the file can't be opened.
    ImportError
        If a NIfTI file is named and nibabel is not installed.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(f"{folder}/cube.npy", np.zeros((2, 3, 4), np.float32))
    ...     read(f"{folder}/cube.npy").data.shape
    (2, 3, 4)
    """
    path = Path(path)
    if suffix_of(path) == ".npy":
        volume = Volume(read_array(path))
    else:
        path.open("rb").close()  # a missing file raises the system's own error, which names it
        with naming(path, "can't be read as NIfTI"):
            volume = _nifti().read(path)
    if volume.data.ndim not in (3, 4):
        raise VolumeError(f"{path}: a volume has 3 or 4 axes, got shape {volume.data.shape}")
    if volume.data.dtype.kind not in "biuf":
        raise VolumeError(f"{path}: voxels must be real numbers, got dtype {volume.data.dtype}")
    return volume


def read_array(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Memory-map the array in a ``.npy`` file, read-only; nothing is ever unpickled."""
    path = Path(path)
    with path.open("rb") as stream, naming(path, "can't be read as .npy"):
        try:
            mapped: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
        except ValueError:  # damaged, or an array without elements, which can't be mapped
            mapped = np.lib.format.read_array(stream, allow_pickle=False)
    return mapped


def write(
    path: str | os.PathLike[str], volume: Volume | NDArray[Any], *, force: bool = False
) -> None:
    """Write a volume as ``.npy``, ``.nii`` or ``.nii.gz``, all of it or nothing.

    Parameters
    ----------
    path : path
        The suffix chooses the format. The folder must exist.
    volume : Volume or array
        ``[D, H, W]`` or ``[D, H, W, C]``. Types that the format lacks are written as float32:
        bfloat16, and float16 in NIfTI.
    force : bool
        Replace an existing file.

    Raises
    ------
    VolumeError
        If the name has another suffix, or the format can't hold the volume.
    FileExistsError
        If the file exists and ``force`` is false.
    OSError
        If the folder is missing or can't be written, or the disk is full.
    ImportError
        If a NIfTI file is named and nibabel is not installed.
    """
    path = Path(path)
    suffix = suffix_of(path)
    if not isinstance(volume, Volume):
        volume = Volume(np.asarray(volume))
    if volume.data.ndim not in (3, 4):
        raise VolumeError(f"{path}: a volume has 3 or 4 axes, got shape {volume.data.shape}")
    write_to = _write_npy if suffix == ".npy" else _nifti().write
    with replacing(path, force=force) as stream, naming(path, f"can't be written as {suffix}"):
        write_to(stream, volume, suffix)


def suffix_of(path: str | os.PathLike[str]) -> str:
    """``.npy``, ``.nii`` or ``.nii.gz``; a `VolumeError` for any other name."""
    name = os.fspath(path).lower()
    for suffix in SUFFIXES:
        if name.endswith(suffix):
            return suffix
    raise VolumeError(f"{os.fspath(path)}: the name must end in .npy, .nii or .nii.gz")


def check_target(path: str | os.PathLike[str], *, force: bool, folder: bool = False) -> Path:
    """The file that writing to ``path`` would create or replace; refuses what would fail.

    ``folder`` says that the format is a folder of files.
    """
    target = Path(os.path.realpath(path))  # through links: replace the file, not the link
    if target.is_dir() and not folder:
        raise IsADirectoryError(errno.EISDIR, "is a folder", os.fspath(path))
    if target.exists() and not force:
        raise FileExistsError(errno.EEXIST, "exists already (force replaces it)", os.fspath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", os.fspath(Path(path).parent))
    if not os.access(target.parent, os.W_OK):
        raise PermissionError(errno.EACCES, "folder can't be written", os.fspath(Path(path).parent))
    return target


@contextmanager
def replacing(path: str | os.PathLike[str], *, force: bool) -> Iterator[IO[bytes]]:
    """Open a stream whose bytes become the file ``path`` when the block ends without an error."""
    target = check_target(path, force=force)
    part = target.with_name(f".convt-{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as stream:
            yield stream
        check_target(path, force=force)  # may have appeared meanwhile
        part.replace(target)
    except OSError as error:
        if error.filename not in (None, os.fspath(part)):
            raise
        raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from error
    finally:
        part.unlink(missing_ok=True)


def _write_npy(stream: IO[bytes], volume: Volume, suffix: str) -> None:
    data = volume.data
    np.save(stream, data.astype(np.float32) if data.dtype == BFLOAT16 else data)


def _nifti() -> Any:
    try:
        from convt.volumes import nifti
    except ModuleNotFoundError as error:
        raise ImportError(f'NIfTI files need {error.name}: pip install "convt[cli]"') from error
    return nifti


@contextmanager
def naming(path: Path, failure: str) -> Iterator[None]:
    """Turn what a parser raises on foreign bytes, which can be anything, into a `VolumeError`."""
    try:
        yield
    except (MemoryError, ImportError):
        raise
    except OSError as error:
        if error.errno is not None:  # the system's: missing, forbidden, full
            raise
        raise VolumeError(f"{path}: {failure}: {_first_line(error)}") from error
    except Exception as error:
        raise VolumeError(f"{path}: {failure}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
