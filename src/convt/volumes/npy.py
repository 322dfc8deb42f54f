"""``.npy`` files, read and written in place."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convt.volumes.files import BFLOAT16, VolumeError, naming
from convt.volumes.raw import Raw
from convt.volumes.regions import AXES, Region, five_sizes, stored_sizes
from convt.volumes.stores import Sink, Source, Wanted

__all__ = ["FOLDER", "RawSink", "RawSource", "axes_of", "make_sink", "open_source"]

FOLDER = False


@dataclass(frozen=True, eq=False, kw_only=True)
class RawSource(Source):
    """A volume that lies in its file as it does in memory."""

    raw: Raw

    def read(self, region: Region) -> NDArray[Any]:
        return self.raw.read(region)


@dataclass(frozen=True, eq=False, kw_only=True)
class RawSink(Sink):
    """A volume that is written in place, after a header."""

    start: bytes  # what the file begins with
    raw: Raw

    def create(self) -> None:
        Path(self.part).write_bytes(self.start)
        self.raw.reserve()

    def write(self, region: Region, values: NDArray[Any]) -> None:
        self.raw.write(region, values)


def open_source(path: str, data_format: str) -> RawSource:
    """Open a ``.npy`` file of three to five axes."""
    with Path(path).open("rb") as stream, naming(Path(path), "can't be read as .npy"):
        version = np.lib.format.read_magic(stream)
        read: Any = np.lib.format
        header = {(1, 0): read.read_array_header_1_0, (2, 0): read.read_array_header_2_0}
        shape, fortran, dtype = header.get(version, read.read_array_header_2_0)(stream)
        offset = stream.tell()
        if dtype.hasobject:
            raise ValueError("it holds Python objects")
    axes = axes_of(path, shape, data_format)
    stored, order = (shape[::-1], axes[::-1]) if fortran else (shape, axes)
    raw = Raw(path, offset, dtype, tuple(stored), order)
    five = five_sizes(shape, axes)
    return RawSource(
        path=path,
        shape=five,
        dtype=dtype.newbyteorder("="),
        chunks=rows_of(five, order),
        axes=axes,
        raw=raw,
    )


def make_sink(wanted: Wanted) -> RawSink:
    """A ``.npy`` file, in C order."""
    dtype = np.dtype(np.float32) if wanted.dtype == BFLOAT16 else wanted.dtype
    shape = stored_sizes(wanted.shape, wanted.axes)
    start = _header(shape, dtype)
    raw = Raw(f"{wanted.path}.part", len(start), dtype, shape, wanted.axes)
    return RawSink(
        path=wanted.path,
        shape=wanted.shape,
        dtype=dtype,
        axes=wanted.axes,
        grain=(1, 1, 1, 1, wanted.shape[4]),
        order=wanted.axes,
        start=start,
        raw=raw,
    )


def axes_of(path: str, shape: tuple[int, ...], data_format: str) -> str:
    """The axes of an array that does not name them."""
    found = {3: "dhw", 4: "dhwc", 5: "ndhwc"}
    if data_format == "NCDHW":
        found = {3: "dhw", 4: "cdhw", 5: "ncdhw"}
    if len(shape) not in found:
        raise VolumeError(f"{path}: a volume has 3 to 5 axes, got shape {shape}")
    return found[len(shape)]


def rows_of(shape: tuple[int, ...], order: str) -> Any:
    """What lies together in a file of the axes `order`: all of the two fastest."""
    return tuple(size if axis in order[-2:] else 1 for axis, size in zip(AXES, shape, strict=True))


def _header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    stream = BytesIO()
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()
