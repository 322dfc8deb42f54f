"""What volumes are read from and written to piece by piece, and what all formats of them share.

A source gives any region of a volume. A sink takes regions in any order, each voxel once, and several
processes may write different regions at once. Until it is complete a result is a part beside its place,
``OUT.part``, with a journal of finished blocks; only `Sink.finish` gives it its name. Formats are modules
of their own, loaded when a file asks for one. Sources and sinks can be pickled; they open files where they
are used.
"""

from __future__ import annotations

import errno
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convt.arguments import parse_data_format
from convt.volumes.affine import result_affine
from convt.volumes.files import Volume, VolumeError, check_target
from convt.volumes.regions import AXES, Five, Region, stored_axes, stored_sizes

__all__ = ["SUFFIXES", "Sink", "Source", "create_sink", "open_source", "parted", "round_to"]

_FORMATS = {
    ".npy": "npy",
    ".nii": "nifti_stream",
    ".nii.gz": "nifti_stream",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".zarr": "zarr_store",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
}
SUFFIXES = tuple(_FORMATS)


@dataclass(frozen=True, eq=False, kw_only=True)
class Source(ABC):
    """A stored volume, of which any region can be read."""

    path: str
    shape: Five  # batch, depth, height, width, channels
    dtype: np.dtype[Any]  # of what is read, in native byte order
    chunks: Five  # what is read together at no extra cost
    axes: str  # those that are stored, in order, by the letters of `regions.AXES`
    affine: NDArray[np.float64] | None = None  # [4, 4], (d, h, w, 1) -> world (x, y, z, 1)
    unit: str | None = None  # of the world, by its name in `units`, where the file says it
    header: Any = None  # NIfTI header, of a NIfTI file

    @abstractmethod
    def read(self, region: Region) -> NDArray[Any]:
        """The voxels of a region, with five axes."""

    def keep(self, size: int) -> None:  # noqa: B027  # most read in place
        """Keep up to `size` bytes of what is read for the regions to come, where that saves work."""

    def close(self) -> None:  # noqa: B027  # most have nothing to remove
        """Remove what was made for reading."""

    def volume(self) -> Volume:
        """A `Volume` of three or four axes, channels last, whose voxels are read when asked for."""
        axes = "dhw" if self.shape[4] == 1 and "c" not in self.axes else "dhwc"
        return Volume(_Lazy(self, axes), self.affine, self.header)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False, kw_only=True)
class Sink(ABC):
    """A volume that is being written."""

    path: str  # where it will be when it is complete
    shape: Five
    dtype: np.dtype[Any]
    axes: str
    grain: Five  # blocks start at multiples of it, so that no two write the same chunk
    order: str = (
        AXES  # axes from the slowest in the file to the fastest; "" where cubes are as good
    )

    @property
    def part(self) -> str:
        """Where the unfinished volume is."""
        return f"{self.path}.part"

    @property
    def journal(self) -> str:
        """Where finished blocks are recorded."""
        return f"{self.part}.journal"

    @abstractmethod
    def create(self) -> None:
        """Make an empty part."""

    @abstractmethod
    def write(self, region: Region, values: NDArray[Any]) -> None:
        """Write the voxels of a region, which has five axes and the sink's dtype."""

    def complete(self) -> None:
        """Give the part, all of it written, its name."""
        _remove(Path(self.path))
        Path(self.part).replace(self.path)

    def finish(self) -> None:
        """Complete the volume, and forget how it was made."""
        self.complete()
        Path(self.journal).unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the part and its journal."""
        for path in (self.part, self.journal):
            _remove(Path(path))


@dataclass(frozen=True, eq=False, kw_only=True)
class Wanted:
    """What a sink is made for."""

    path: str
    shape: Five
    dtype: np.dtype[Any]
    axes: str  # as they would be stored in the order of the source
    like: Source | None
    affine: NDArray[
        np.float64
    ]  # of the result; counts voxels of the source where that has no place
    placed: bool  # whether the source has a place in the world
    unit: str | None  # of that world
    to_input: NDArray[np.float64]  # voxel indices of the result to those of the source


def open_source(path: str | os.PathLike[str], data_format: str | None = "NDHWC") -> Source:
    """Open a volume for reading regions of it.

    Parameters
    ----------
    path : path
        ``.npy``, ``.nii``, ``.nii.gz``, ``.tif``, ``.tiff``, a folder ``.zarr`` (v2 or v3, an array or an
        OME-Zarr image, or as ``image.zarr/1`` what is within) or ``.h5``, ``.hdf5``, then as
        ``file.h5:/dataset`` where there are several.
    data_format : {"NDHWC", "NCDHW"} or None
        The order of four or five axes in files that do not name them.

    Raises
    ------
    VolumeError
        If the file is of no such format, damaged, or holds no volume.
    OSError
        If it can't be opened.
    ImportError
        If the format's library is not installed.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/cube.npy", np.arange(24.0).reshape(2, 3, 4))
    ...     source = open_source(f"{folder}/cube.npy")
    ...     source.shape, source.read(((0, 1), (1, 2), (0, 1), (0, 4), (0, 1))).ravel().tolist()
    ((1, 2, 3, 4, 1), [12.0, 13.0, 14.0, 15.0])
    """
    module = _format(_store(os.fspath(path)))
    source: Source = module.open_source(os.fspath(path), parse_data_format(data_format))
    if source.dtype.kind not in "biuf":
        raise VolumeError(f"{path}: voxels must be real numbers, got dtype {source.dtype}")
    if 0 in source.shape:
        sizes = stored_sizes(source.shape, source.axes)
        raise VolumeError(f"{path}: a volume without voxels, its shape is {sizes}")
    return source


def create_sink(
    path: str | os.PathLike[str],
    *,
    shape: Sequence[int],
    dtype: Any,
    like: Source | None = None,
    axes: str | None = None,
    to_input: NDArray[np.float64] | None = None,
    force: bool = False,
    resume: bool = False,
) -> Sink:
    """Prepare a volume that is written region by region; nothing is made before `Sink.create`.

    Parameters
    ----------
    path : path
        As for `open_source`; the suffix chooses the format.
    shape : five ints
        Batch, depth, height, width, channels.
    dtype : dtype
        Of the voxels; what a format lacks becomes float32.
    like : Source, optional
        Whose axes, metadata, chunks, shards and compression are carried on where the format has them.
    axes : str, optional
        The axes to store, in order, by the letters ``ndhwc``; default: those of `like`.
    to_input : array of shape ``[4, 4]``, optional
        Voxel indices of the result to those of `like` (`convt.volumes.affine.index_map`), from which the
        place in the world follows.
    force : bool
        Replace a volume that exists, and an unfinished one.
    resume : bool
        Go on with an unfinished one.

    Raises
    ------
    VolumeError
        If the format can't hold the volume.
    FileExistsError
        If it exists, or a part of it, and neither `force` nor `resume` is given; in any case if `like`
        lies within it.
    OSError
        If the folder is missing or can't be written.
    """
    where = os.fspath(path)
    module = _format(where)
    n, d, h, w, c = (int(size) for size in shape)
    stored = axes if axes is not None else like.axes if like is not None else "dhw"
    for axis, size in (("n", n), ("c", c)):
        if axis not in stored and size > 1:
            stored = axis + stored if axis == "n" else stored + axis
    to_input = np.eye(4) if to_input is None else to_input
    left = Path(f"{parted(where)[0].rstrip('/')}.part")
    going_on = resume and left.exists()
    target = check_target(parted(where)[0], force=force or going_on, folder=module.FOLDER)
    if like is not None and target in Path(os.path.realpath(parted(like.path)[0])).parents:
        raise FileExistsError(errno.EEXIST, "holds the source, which would go with it", where)
    wanted = Wanted(
        path=where,
        shape=(n, d, h, w, c),
        dtype=np.dtype(dtype),
        axes=stored,
        like=like,
        affine=result_affine(None if like is None else like.affine, to_input),
        placed=like is not None and like.affine is not None,
        unit=None if like is None else like.unit,
        to_input=to_input,
    )
    sink: Sink = module.make_sink(wanted)
    if left.exists() and not (force or resume):
        text = "is left of an unfinished run (resume goes on with it, force starts anew)"
        raise FileExistsError(errno.EEXIST, text, os.fspath(left))
    return sink


def parted(path: str) -> tuple[str, str]:
    """A file, and the dataset in it that a path names after a colon.

    Examples
    --------
    >>> parted("scan.h5:/raw")
    ('scan.h5', '/raw')
    """
    for suffix in (".h5", ".hdf5"):
        where, colon, name = path.partition(f"{suffix}:")
        if colon:
            return where + suffix, name
    return path, ""


def round_to(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Values as whole numbers of `dtype`: rounded half to even, clipped; NaN becomes 0.

    Examples
    --------
    >>> round_to(np.array([-3.0, 2.5, 300.0, np.nan]), np.dtype(np.uint8)).tolist()
    [0, 2, 255, 0]
    """
    dtype = np.dtype(dtype)
    if dtype.kind not in "iub":
        return values.astype(dtype, copy=False)
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    whole = np.rint(values)
    wide = whole.dtype.type
    # The largest integers of 32 and 64 bits lie between floats: what reaches beyond is set apart.
    above, below = whole >= wide(high), whole <= wide(low)
    whole[above | below | np.isnan(whole)] = 0
    found: NDArray[Any] = whole.astype(dtype)
    found[above], found[below] = high, low
    return found


class _Lazy:
    """The voxels of a source like an array: what is indexed is read, and nothing else."""

    def __init__(self, source: Source, axes: str) -> None:
        self._source, self._axes = source, axes
        self.shape = tuple(source.shape[AXES.index(axis)] for axis in axes)
        self.ndim, self.dtype = len(axes), source.dtype

    def __getitem__(self, index: tuple[int | slice, ...]) -> NDArray[Any]:
        region = [(0, 1)] * 5
        kept = []
        for axis, size, chosen in zip(self._axes, self.shape, index, strict=True):
            step = slice(chosen, chosen + 1) if isinstance(chosen, int) else chosen
            region[AXES.index(axis)] = (step.start or 0, size if step.stop is None else step.stop)
            kept.append(slice(None) if isinstance(chosen, slice) else 0)
        n, d, h, w, c = region
        found = stored_axes(self._source.read((n, d, h, w, c)), self._axes)
        picked: NDArray[Any] = found[tuple(kept)]
        return picked


def _store(path: str) -> str:
    """The Zarr store that a path without a suffix of its own leads into, or the path."""
    if parted(path)[0].lower().rstrip("/").endswith(SUFFIXES):
        return path
    stores = (os.fspath(p) for p in Path(path).parents if p.name.lower().endswith(".zarr"))
    return next(stores, path)


def _format(path: str | os.PathLike[str]) -> Any:
    """The module that serves a path, by its suffix."""
    name = parted(os.fspath(path))[0].lower().rstrip("/")
    for suffix in sorted(_FORMATS, key=len, reverse=True):
        if name.endswith(suffix):
            module = f"convt.volumes.{_FORMATS[suffix]}"
            try:
                return import_module(module)
            except ModuleNotFoundError as error:
                if error.name is not None and error.name.startswith("convt"):
                    raise
                text = f'{suffix} files need {error.name}: pip install "convt[files]"'
                raise ImportError(text) from error
    raise VolumeError(
        f"{os.fspath(path)}: the name must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
    )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
