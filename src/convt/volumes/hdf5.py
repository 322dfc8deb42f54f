"""HDF5 datasets: in place where they are stored plainly, else through h5py, chunk by chunk.

A file is ``volume.h5``, or ``volume.h5:/group/dataset`` where it has several. A result of a chunked dataset
is written plainly, and takes over chunks and compression when it is complete: an HDF5 file whose writer is
killed can be damaged, and bytes at fixed places cannot.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import h5py as untyped_h5py  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from convt.volumes.affine import voxel_sizes
from convt.volumes.files import BFLOAT16, naming
from convt.volumes.npy import RawSource, axes_of, rows_of
from convt.volumes.raw import Raw
from convt.volumes.regions import (
    Region,
    five_axes,
    five_sizes,
    grid,
    slices,
    stored_axes,
    stored_sizes,
)
from convt.volumes.stores import Sink, Source, Wanted, parted
from convt.volumes.units import micrometers

__all__ = ["FOLDER", "make_sink", "open_source"]

FOLDER = False
h5py: Any = untyped_h5py
_NAME = "volume"  # of a new dataset
_SIZES = "element_size_um"  # the attribute that holds depth, height and width of a voxel
_lock = Lock()  # the library serves one thread at a time


@dataclass(frozen=True, eq=False, kw_only=True)
class ChunkSource(Source):
    """A dataset that is packed."""

    file: str
    name: str
    carried: dict[str, Any]  # chunks, compression and attributes

    def read(self, region: Region) -> NDArray[Any]:
        with _lock, naming(Path(self.path), "can't be read as HDF5"), h5py.File(self.file) as file:
            found = np.asarray(file[self.name][slices(region, self.axes)])
        return five_axes(found, self.axes).astype(self.dtype, copy=False)


@dataclass(frozen=True, eq=False, kw_only=True)
class PlainSource(RawSource):
    """A dataset that lies in its file as it does in memory."""

    name: str
    carried: dict[str, Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class Hdf5Sink(Sink):
    """A dataset that is written in place, and packed when it is complete."""

    name: str
    attributes: dict[str, Any]
    packing: dict[str, Any]  # as h5py takes it; none: it stays plain
    held: dict[str, Any] = field(default_factory=dict, repr=False)

    def create(self) -> None:
        shape = stored_sizes(self.shape, self.axes)
        with _lock, h5py.File(self.part, "w") as file:
            made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            made.set_layout(h5py.h5d.CONTIGUOUS)
            made.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            made.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            linked = h5py.h5p.create(h5py.h5p.LINK_CREATE)
            linked.set_create_intermediate_group(True)
            kind = h5py.h5t.py_create(self.dtype, logical=True)
            space = h5py.h5s.create_simple(shape)
            h5py.h5d.create(file.id, self.name.encode(), kind, space, made, linked)
            file[self.name].attrs.update(self.attributes)
        self._raw().reserve()

    def write(self, region: Region, values: NDArray[Any]) -> None:
        self._raw().write(region, values)

    def complete(self) -> None:
        if self.packing:
            self._pack()
        super().complete()

    def _raw(self) -> Raw:
        """Where the part's voxels are."""
        if "raw" not in self.held:
            with _lock, h5py.File(self.part) as file:
                self.held["raw"] = _raw(self.part, file[self.name], self.axes)
        found: Raw = self.held["raw"]
        return found

    def _pack(self) -> None:
        """Put a packed part in the place of the plain one."""
        packed, plain = Path(f"{self.part}.packed"), self._raw()
        shape = stored_sizes(self.shape, self.axes)
        step = (1, *(-(-size // 4) for size in self.shape[1:4]), self.shape[4])
        chunks = five_sizes(self.packing["chunks"], self.axes)
        block = tuple(-(-size // c) * c for size, c in zip(step, chunks, strict=True))
        try:
            with _lock, h5py.File(packed, "w") as file:
                made = file.create_dataset(self.name, shape, self.dtype, **self.packing)
                made.attrs.update(self.attributes)
                for region in grid(self.shape, block):
                    made[slices(region, self.axes)] = stored_axes(plain.read(region), self.axes)
            packed.replace(self.part)
        finally:
            packed.unlink(missing_ok=True)


def open_source(path: str, data_format: str) -> Source:
    """Open a dataset of three to five axes."""
    where, name = parted(path)
    Path(where).open("rb").close()  # a missing file raises the system's own error, which names it
    with naming(Path(path), "can't be read as HDF5"), _lock, h5py.File(where) as file:
        name = name or _only(file)
        data = file[name]
        shape, dtype = tuple(int(size) for size in data.shape), np.dtype(data.dtype)
        chunks, offset = data.chunks, data.id.get_offset()
        carried = {
            "chunks": chunks,
            "compression": data.compression,
            "compression_opts": data.compression_opts,
            "shuffle": data.shuffle,
            "fletcher32": data.fletcher32,
            "attributes": dict(data.attrs),
        }
    axes = axes_of(path, shape, data_format)
    five, sizes = five_sizes(shape, axes), carried["attributes"].get(_SIZES)
    affine = None
    if sizes is not None and np.shape(sizes) == (3,):
        affine = np.diag([*np.asarray(sizes, np.float64), 1.0])[[2, 1, 0, 3]]
    common: dict[str, Any] = {
        "path": path,
        "shape": five,
        "dtype": dtype.newbyteorder("="),
        "axes": axes,
        "affine": affine,
        "unit": None if affine is None else "micrometer",
        "name": name,
        "carried": carried,
    }
    if offset is not None and chunks is None:
        raw = Raw(where, int(offset), dtype, shape, axes)
        return PlainSource(raw=raw, chunks=rows_of(five, axes), **common)
    room = rows_of(five, axes) if chunks is None else five_sizes(chunks, axes)
    return ChunkSource(file=where, chunks=room, **common)


def make_sink(wanted: Wanted) -> Hdf5Sink:
    """A dataset like the source's, where that is one."""
    dtype = np.dtype(np.float32) if wanted.dtype == BFLOAT16 else wanted.dtype
    where, name = parted(wanted.path)
    axes, like = wanted.axes, wanted.like
    attributes: dict[str, Any] = {}
    packing: dict[str, Any] = {}
    grain = (1, 1, 1, 1, wanted.shape[4])
    if isinstance(like, (ChunkSource, PlainSource)):
        name = name or like.name
        attributes = dict(like.carried["attributes"])
        packing = {k: v for k, v in like.carried.items() if k != "attributes"}
        if packing["chunks"] is None:
            packing = {}
        else:
            channels = like.chunks[4] if "c" in like.axes else wanted.shape[4]
            wished = zip((*like.chunks[:4], channels), wanted.shape, strict=True)
            packing["chunks"] = stored_sizes([min(a, b) for a, b in wished], axes)
    if wanted.placed:
        attributes[_SIZES] = np.asarray(voxel_sizes(wanted.affine)) * micrometers(wanted.unit)
    return Hdf5Sink(
        path=where,
        shape=wanted.shape,
        dtype=dtype,
        axes=axes,
        grain=grain,
        order=axes,
        name=name or _NAME,
        attributes=attributes,
        packing=packing,
    )


def _raw(path: str, data: Any, axes: str) -> Raw:
    return Raw(path, int(data.id.get_offset()), np.dtype(data.dtype), tuple(data.shape), axes)


def _only(file: Any) -> str:
    """The one dataset that can be a volume."""
    found: list[str] = []

    def look(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.ndim in (3, 4, 5) and node.dtype.kind in "biuf":
            found.append(name)

    file.visititems(look)
    if len(found) != 1:
        names = ", ".join(found) or "none"
        raise ValueError(f"it must have one volume, or FILE:/NAME must say which; it has {names}")
    return found[0]
