"""TIFF and BigTIFF stacks: in place where voxels are stored plainly, else page by page.

A result is stored plainly, with the sizes of its voxels as OME-TIFF (``.ome.tif``) or in the description
that tifffile reads and writes; neither has a place for where the first voxel is.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile as typed_tifffile
from numpy.typing import NDArray

from convt.volumes.affine import voxel_sizes
from convt.volumes.files import BFLOAT16, VolumeError, naming
from convt.volumes.npy import RawSource, rows_of
from convt.volumes.raw import Raw
from convt.volumes.regions import Region, five_axes, five_sizes, slices, stored_sizes
from convt.volumes.stores import Sink, Source, Wanted
from convt.volumes.units import parse_unit, symbol

__all__ = ["FOLDER", "make_sink", "open_source"]

FOLDER = False
tifffile: Any = typed_tifffile  # its types promise less than it gives
_LETTERS = {"T": "n", "Z": "d", "C": "c", "S": "c", "Y": "h", "X": "w"}
_STORED = {"n": "T", "d": "Z", "c": "C", "h": "Y", "w": "X"}
_CLASSIC = 1 << 31  # bytes up to which any reader of TIFF will do


@dataclass(frozen=True, eq=False, kw_only=True)
class PageSource(Source):
    """A stack whose pages are packed, or lie apart."""

    stored: tuple[int, ...]
    page_axes: int  # the last so many axes are within a page

    def read(self, region: Region) -> NDArray[Any]:
        index = slices(region, self.axes)
        lead = len(self.stored) - self.page_axes
        found = np.zeros([s.stop - s.start for s in index], self.dtype)
        numbers = np.arange(int(np.prod(self.stored[:lead]))).reshape(self.stored[:lead])
        wanted = numbers[index[:lead]]
        with naming(Path(self.path), "can't be read as TIFF"), tifffile.TiffFile(self.path) as file:
            pages = file.series[0].pages
            for place in np.ndindex(wanted.shape):
                page = pages[int(wanted[place])]
                if page is not None:
                    values = page.asarray().reshape(self.stored[lead:])
                    found[place] = values[index[lead:]]
        return five_axes(found, self.axes)


@dataclass(frozen=True, eq=False, kw_only=True)
class TiffSink(Sink):
    """A stack that is written in place."""

    settings: dict[str, Any]
    held: dict[str, Any] = field(default_factory=dict, repr=False)

    def create(self) -> None:
        tifffile.memmap(self.part, **self.settings)._mmap.close()
        self._raw().reserve()

    def write(self, region: Region, values: NDArray[Any]) -> None:
        self._raw().write(region, values)

    def _raw(self) -> Raw:
        """Where the part's voxels are."""
        if "raw" not in self.held:
            with tifffile.TiffFile(self.part) as file:
                series = file.series[0]
                dtype = np.dtype(series.dtype).newbyteorder(file.byteorder)
                shape, offset = tuple(series.shape), int(series.dataoffset)
            self.held["raw"] = Raw(self.part, offset, dtype, shape, self.axes)
        found: Raw = self.held["raw"]
        return found


def open_source(path: str, data_format: str) -> Source:
    """Open the first series of a TIFF file."""
    Path(path).open("rb").close()  # a missing file raises the system's own error, which names it
    with naming(Path(path), "can't be read as TIFF"), tifffile.TiffFile(path) as file:
        series = file.series[0]
        shape, names = tuple(int(size) for size in series.shape), str(series.axes)
        offset, byteorder = series.dataoffset, file.byteorder
        dtype, page_axes = np.dtype(series.dtype), len(series.keyframe.shape)
        sizes, unit = _sizes(file), _unit(file)
    axes = _axes(path, names, shape)
    five = five_sizes(shape, axes)
    affine = None if sizes is None else np.diag([*sizes, 1.0])[[2, 1, 0, 3]]
    common: dict[str, Any] = {
        "path": path,
        "shape": five,
        "dtype": dtype.newbyteorder("="),
        "chunks": rows_of(five, axes),
        "axes": axes,
        "affine": affine,
        "unit": unit,
    }
    if offset is not None:
        raw = Raw(path, int(offset), dtype.newbyteorder(byteorder), shape, axes)
        return RawSource(raw=raw, **common)
    return PageSource(stored=shape, page_axes=page_axes, **common)


def make_sink(wanted: Wanted) -> TiffSink:
    """A stack of plain pages, a BigTIFF where it is large."""
    dtype = np.dtype(np.float32) if wanted.dtype == BFLOAT16 else wanted.dtype
    axes = "".join(axis for axis in "ndchw" if axis in wanted.axes)
    shape = stored_sizes(wanted.shape, axes)
    if 0 in shape:
        raise VolumeError(f"{wanted.path}: TIFF can't hold a volume without voxels, {shape}")
    ome = wanted.path.lower().endswith((".ome.tif", ".ome.tiff"))
    metadata: dict[str, Any] = {"axes": "".join(_STORED[axis] for axis in axes)}
    if wanted.placed:
        z, y, x = voxel_sizes(wanted.affine)
        if ome:
            metadata |= {
                f"PhysicalSize{name}": size for name, size in zip("ZYX", (z, y, x), strict=True)
            }
            if wanted.unit is not None:
                metadata |= {f"PhysicalSize{name}Unit": symbol(wanted.unit) for name in "ZYX"}
        else:
            metadata["spacing"] = [z, y, x]
            metadata |= {} if wanted.unit is None else {"unit": wanted.unit}
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    return TiffSink(
        path=wanted.path,
        shape=wanted.shape,
        dtype=dtype,
        axes=axes,
        grain=(1, 1, 1, 1, wanted.shape[4]),
        order=axes,
        settings={
            "shape": shape,
            "dtype": dtype,
            "bigtiff": size > _CLASSIC,
            "ome": ome,
            "metadata": metadata,
            "photometric": "minisblack",
        },
    )


def _axes(path: str, names: str, shape: tuple[int, ...]) -> str:
    """The letters of a series' axes; one of an unknown kind is the depth."""
    letters = [_LETTERS.get(name, "?") for name in names]
    if "d" not in letters and "?" in letters:
        letters[letters.index("?")] = "d"
    found = "".join(letters)
    if "?" in found or len(set(found)) < len(found) or not set("dhw") <= set(found):
        raise VolumeError(f"{path}: a volume has three axes of space, this has {names} of {shape}")
    return found


def _sizes(file: Any) -> tuple[float, float, float] | None:
    """Depth, height and width of a voxel, where the file says something of them."""
    if file.is_ome:
        root = ElementTree.fromstring(file.ome_metadata)
        pixels = next(node for node in root.iter() if node.tag.endswith("Pixels"))
        given = [pixels.get(f"PhysicalSize{name}") for name in "ZYX"]
        if any(given):
            z, y, x = (float(size or 1) for size in given)
            return z, y, x
        return None
    if file.shaped_metadata and "spacing" in file.shaped_metadata[0]:
        z, y, x = (float(size) for size in file.shaped_metadata[0]["spacing"])
        return z, y, x
    if file.imagej_metadata and "spacing" in file.imagej_metadata:
        across = [_resolution(file, f"{name}Resolution") for name in "YX"]
        return float(file.imagej_metadata["spacing"]), across[0], across[1]
    return None


def _unit(file: Any) -> str | None:
    """The unit of these sizes, if the file says which and all have the same."""
    if file.is_ome:
        root = ElementTree.fromstring(file.ome_metadata)
        pixels = next(node for node in root.iter() if node.tag.endswith("Pixels"))
        first, *others = [pixels.get(f"PhysicalSize{name}Unit", "um") for name in "ZYX"]
        return parse_unit(first) if others == [first, first] else None
    given = (file.shaped_metadata or [file.imagej_metadata or {}])[0]
    return parse_unit(given.get("unit"))


def _resolution(file: Any, name: str) -> float:
    """The length of a pixel, of which a tag says how many a unit has."""
    tag = file.pages[0].tags.get(name)
    return tag.value[1] / tag.value[0] if tag is not None and tag.value[0] else 1.0
