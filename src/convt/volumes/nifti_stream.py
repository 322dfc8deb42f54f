"""NIfTI volumes piece by piece: ``.nii`` in place, ``.nii.gz`` by way of an unpacked copy.

Nothing in a packed file can be found but by reading all before it. So a packed source is unpacked once, to
a temporary file that goes with it, and a packed result is written unpacked and packed when it is complete.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as typed_nibabel
import numpy as np
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from convt.volumes import nifti
from convt.volumes.files import Volume, VolumeError, naming
from convt.volumes.npy import RawSink, RawSource, rows_of
from convt.volumes.raw import Raw
from convt.volumes.regions import Region, five_sizes, stored_sizes
from convt.volumes.stores import Wanted
from convt.volumes.units import parse_unit

__all__ = ["FOLDER", "make_sink", "open_source"]

FOLDER = False
nibabel: Any = typed_nibabel  # its types stop at half of its functions


@dataclass(frozen=True, eq=False, kw_only=True)
class NiftiSource(RawSource):
    """A NIfTI volume, scaled as its header says."""

    slope: float
    intercept: float
    unpacked: str | None = None  # the temporary file that is read in place of a packed one

    def read(self, region: Region) -> NDArray[Any]:
        found = self.raw.read(region)
        if (self.slope, self.intercept) == (1.0, 0.0):
            return found
        # As nibabel scales whole images, so that blocks have the same bits.
        scales: list[Any] = [np.asanyarray(value) for value in (self.slope, self.intercept)]
        for place, value in enumerate(scales):
            if np.can_cast(value, self.dtype):
                scales[place] = value.astype(self.dtype)
        return np.asarray(apply_read_scaling(found, *scales)).astype(self.dtype, copy=False)

    def close(self) -> None:
        if self.unpacked is not None:
            Path(self.unpacked).unlink(missing_ok=True)


@dataclass(frozen=True, eq=False, kw_only=True)
class PackedSink(RawSink):
    """A NIfTI volume that is packed when it is complete."""

    def complete(self) -> None:
        packed = Path(f"{self.part}.gz")
        # A fixed time stamp makes equal volumes equal files; level 1 as for volumes written at once.
        try:
            with (
                packed.open("wb") as stream,
                Path(self.part).open("rb") as whole,
                gzip.GzipFile("", "wb", compresslevel=1, fileobj=stream, mtime=0) as target,
            ):
                shutil.copyfileobj(whole, target, 1 << 20)
            packed.replace(self.path)
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), self.path) from error
        finally:
            packed.unlink(missing_ok=True)
        Path(self.part).unlink()


def open_source(path: str, data_format: str) -> NiftiSource:
    """Open a NIfTI volume, whose channels are always last."""
    Path(path).open("rb").close()  # a missing file raises the system's own error, which names it
    if not path.lower().endswith(".gz"):
        return _checked(_opened(path, path, None), data_format)
    with tempfile.NamedTemporaryFile(prefix="convt-", suffix=".nii", delete=False) as room:
        try:
            with naming(Path(path), "can't be read as NIfTI"), gzip.open(path) as stream:
                shutil.copyfileobj(stream, room, 1 << 20)
            room.flush()
            source = _checked(_opened(path, room.name, room.name), data_format)
        except BaseException:
            Path(room.name).unlink(missing_ok=True)
            raise
    weakref.finalize(source, Path(room.name).unlink, missing_ok=True)
    return source


def _checked(source: NiftiSource, data_format: str) -> NiftiSource:
    if "c" in source.axes and data_format != "NDHWC":
        raise ValueError(f'data_format of a NIfTI volume must be "NDHWC", got "{data_format}"')
    return source


def _opened(path: str, place: str, unpacked: str | None) -> NiftiSource:
    with naming(Path(path), "can't be read as NIfTI"):
        image = nibabel.load(place)
        proxy, header = image.dataobj, image.header
        shape = tuple(int(size) for size in proxy.shape)
        stored = np.dtype(proxy.dtype)
        offset, slope, intercept = int(proxy.offset), float(proxy.slope), float(proxy.inter)
    if len(shape) not in (3, 4):
        raise VolumeError(f"{path}: a volume has 3 or 4 axes, got shape {shape}")
    raw = Raw(place, offset, stored, shape[::-1], "dhwc"[: len(shape)][::-1])
    if Path(place).stat().st_size < offset + raw.size:
        raise VolumeError(f"{path}: can't be read as NIfTI: it ends before its last voxel")
    plain = (slope, intercept) == (1.0, 0.0)
    narrow = stored.kind in "iu" or stored.itemsize <= 4
    axes = "dhwc"[: len(shape)]
    five = five_sizes(shape, axes)
    return NiftiSource(
        path=path,
        shape=five,
        dtype=stored.newbyteorder("=") if plain else np.dtype(np.float32 if narrow else np.float64),
        chunks=rows_of(five, raw.axes),
        axes=axes,
        affine=np.asarray(image.affine, np.float64),
        unit=parse_unit(header.get_xyzt_units()[0]),
        header=header,
        raw=raw,
        slope=slope,
        intercept=intercept,
        unpacked=unpacked,
    )


def make_sink(wanted: Wanted) -> RawSink:
    """A NIfTI volume, with the header of the one it is like."""
    if wanted.shape[0] > 1:
        raise VolumeError(f"{wanted.path}: NIfTI has no axis for a batch of {wanted.shape[0]}")
    axes = "dhwc" if "c" in wanted.axes else "dhw"
    header = None if wanted.like is None else wanted.like.header
    if header is not None:
        header = nifti.carry_header(header, wanted.to_input, len(axes))
    shape = stored_sizes(wanted.shape, axes)
    nowhere = np.broadcast_to(np.zeros((), wanted.dtype), shape)
    with naming(Path(wanted.path), "can't be written as NIfTI"):
        start, dtype = nifti.header_bytes(Volume(nowhere, wanted.affine, header))
    raw = Raw(f"{wanted.path}.part", len(start), dtype, shape[::-1], axes[::-1])
    packed = wanted.path.lower().endswith(".gz")
    sink = RawSink(
        path=wanted.path,
        shape=wanted.shape,
        dtype=dtype.newbyteorder("="),
        axes=axes,
        grain=(1, 1, 1, 1, wanted.shape[4]),
        order=axes[::-1],
        start=start,
        raw=raw,
    )
    return PackedSink(**vars(sink)) if packed else sink
