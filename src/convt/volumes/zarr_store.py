"""Zarr volumes of format 2 and 3, and OME-Zarr images (NGFF 0.4 and 0.5), in folders.

Of an image with several resolutions the finest is read, or the one that the path leads to; a result has
one, with its scale and translation.
A chunk that is not there holds the fill value, so a store that vanishes would read as empty: each read
looks whether the store is still there. Chunks are read and written one at a time: of several, zarr would
go on with the others after one has failed. All threads wait for the one in which zarr works, so what can be
done outside of it is: decoded chunks are kept, and those that hold the fill value alone are left out, here.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import zarr as typed_zarr
from numpy.typing import NDArray

from convt.memory import empty_output
from convt.volumes.affine import voxel_sizes
from convt.volumes.chunks import Chunks
from convt.volumes.files import BFLOAT16, VolumeError, naming
from convt.volumes.npy import axes_of
from convt.volumes.regions import (
    AXES,
    Region,
    along,
    around,
    five_axes,
    five_sizes,
    inside,
    sizes_of,
    slices,
    stored_axes,
    stored_sizes,
)
from convt.volumes.stores import Sink, Source, Wanted
from convt.volumes.units import parse_unit

__all__ = ["FOLDER", "ZarrSink", "ZarrSource", "make_sink", "open_source"]

FOLDER = True
zarr: Any = typed_zarr  # its types promise less than it gives
_CHUNK = 128  # voxels along each side of a new store's chunks
_WORLD = {"x": 0, "y": 1, "z": 2}


@dataclass(frozen=True, eq=False, kw_only=True)
class ZarrSource(Source):
    """An array in a Zarr store."""

    array: str  # where the array is in the store; "" for the root
    image: dict[str, Any] | None  # NGFF metadata of the image; None for a plain array
    held: dict[str, Any] = field(default_factory=dict, repr=False)
    kept: Chunks = field(default_factory=Chunks, repr=False)

    def opened(self) -> Any:
        """The array."""
        if "array" not in self.held:
            self.held["array"] = _open(self.path, self.array)
        return self.held["array"]

    def keep(self, size: int) -> None:
        if not self.opened().shards:  # of which zarr reads what is asked for, and not all
            self.kept.limit = size

    def read(self, region: Region) -> NDArray[Any]:
        with naming(Path(self.path), "can't be read as Zarr"):
            found = np.empty(sizes_of(region), self.dtype)
            for piece in along(region, self.chunks):
                found[slices(inside(piece, region), AXES)] = self._piece(piece)
        there = Path(self.path, self.array)
        if not ((there / "zarr.json").exists() or (there / ".zarray").exists()):
            raise FileNotFoundError(errno.ENOENT, "is gone", self.path)
        return found

    def _piece(self, piece: Region) -> NDArray[Any]:
        """The voxels of a region within one chunk, with five axes."""
        chunk = around(piece, self.chunks, self.shape)
        size = prod(sizes_of(chunk)) * self.dtype.itemsize
        if size > self.kept.limit:
            return self._stored(piece)
        whole = self.kept.get(chunk, size, lambda: self._stored(chunk))
        return whole[slices(inside(piece, chunk), AXES)]

    def _stored(self, region: Region) -> NDArray[Any]:
        return five_axes(np.asarray(self.opened()[slices(region, self.axes)]), self.axes)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "held": {}}


@dataclass(frozen=True, eq=False, kw_only=True)
class ZarrSink(Sink):
    """An array in a Zarr store that is being written."""

    array: str
    settings: dict[str, Any]  # of the array, as zarr.create_array takes them
    attributes: dict[str, Any]  # of the group around it, or of the array where there is none
    held: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def journal(self) -> str:
        return os.fspath(Path(self.part, ".convt-journal"))

    def create(self) -> None:
        version = self.settings["zarr_format"]
        if self.array:
            zarr.create_group(self.part, zarr_format=version, attributes=self.attributes)
            zarr.create_array(self.part, name=self.array, **self.settings)
        else:
            zarr.create_array(self.part, attributes=self.attributes, **self.settings)

    def write(self, region: Region, values: NDArray[Any]) -> None:
        if "array" not in self.held:
            array = zarr.open_array(self.part, path=self.array, mode="r+")
            if not array.shards:  # their chunks are zarr's to leave out
                array = array.with_config({"write_empty_chunks": True})
            self.held["array"] = array
        array = self.held["array"]
        for piece in along(region, self.grain):
            part = stored_axes(values[slices(inside(piece, region), AXES)], self.axes)
            if array.shards or not _filled(part, array.fill_value):
                array[slices(piece, self.axes)] = _dense(part)

    def complete(self) -> None:
        for begun in Path(self.part).rglob("*.partial"):  # by zarr in a process that was killed
            begun.unlink()
        super().complete()
        Path(self.path, ".convt-journal").unlink(missing_ok=True)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "held": {}}


def open_source(path: str, data_format: str) -> ZarrSource:
    """Open a Zarr array or an OME-Zarr image."""
    if not Path(path).is_dir():
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
    with naming(Path(path), "can't be read as Zarr"):
        image, name = _found(path)
        node = _open(path, name)
        shape = tuple(int(size) for size in node.shape)
        grain = node.shards or node.chunks
    axes = axes_of(path, shape, data_format) if image is None else _axes(path, image)
    return ZarrSource(
        path=path,
        shape=five_sizes(shape, axes),
        dtype=np.dtype(node.dtype).newbyteorder("="),
        chunks=five_sizes(grain, axes),
        axes=axes,
        affine=None if image is None else _affine(image, axes),
        unit=None if image is None else _unit(image),
        array=name,
        image=image,
    )


def make_sink(wanted: Wanted) -> ZarrSink:
    """An array like the source's, or an image where the volume has a place in the world."""
    dtype = np.dtype(np.float32) if wanted.dtype == BFLOAT16 else wanted.dtype
    axes, like = wanted.axes, wanted.like
    if wanted.placed and axes.endswith("c"):  # NGFF has channels before space
        axes = axes.replace("c", "").replace("d", "cd")
    shape = stored_sizes(wanted.shape, axes)
    settings: dict[str, Any] = {"shape": shape, "dtype": dtype, "zarr_format": 3}
    image, attributes = None, {}
    if isinstance(like, ZarrSource):
        settings |= _like(like.opened(), axes, like.axes, shape, dtype)
        image = like.image
        attributes = {} if image else dict(like.opened().attrs)
    if "chunks" not in settings:
        room = stored_sizes((1, _CHUNK, _CHUNK, _CHUNK, wanted.shape[4]), axes)
        settings["chunks"] = tuple(max(min(a, b), 1) for a, b in zip(shape, room, strict=True))
    if wanted.placed:
        described = _described(image, axes, wanted, settings["zarr_format"])
        attributes, settings["dimension_names"] = described
    return ZarrSink(
        path=wanted.path.rstrip("/"),
        shape=wanted.shape,
        dtype=dtype,
        axes=axes,
        grain=five_sizes(settings.get("shards") or settings["chunks"], axes),
        order="",
        array="0" if wanted.placed else "",
        settings=settings,
        attributes=attributes,
    )


def _open(path: str, name: str) -> Any:
    return zarr.open_array(path, path=name, mode="r")


def _filled(values: NDArray[Any], fill: Any) -> bool:
    """Whether all values are the fill value, bit by bit: such a chunk need not be there."""
    if fill is None:
        return False
    bits = np.dtype(f"u{values.dtype.itemsize}")
    wanted = np.asarray(fill, values.dtype).view(bits)
    return all((plane == wanted).all() for plane in values.view(bits))


def _dense(values: NDArray[Any]) -> NDArray[Any]:
    """The values in C order, where they are so already or in kept memory."""
    if values.flags.c_contiguous:
        return values
    found = empty_output(values.shape, values.dtype)
    found[...] = values
    return found


# --- what a result takes over ---------------------------------------------------------------------
def _like(
    array: Any, axes: str, stored: str, shape: Sequence[int], dtype: np.dtype[Any]
) -> dict[str, Any]:
    """Settings that carry on an array's chunks, shards and compression."""
    same = np.dtype(array.dtype) == dtype
    version = array.metadata.zarr_format

    def sizes(given: Sequence[int]) -> tuple[int, ...]:
        five = dict(zip(stored, given, strict=True))
        return tuple(five.get(axis, size) for axis, size in zip(axes, shape, strict=True))

    found: dict[str, Any] = {
        "zarr_format": version,
        "chunks": sizes(array.chunks),
        "compressors": tuple(_fitting(codec) for codec in array.compressors) or None,
    }
    if array.shards:
        found["shards"] = sizes(array.shards)
    if same:
        found["fill_value"] = array.fill_value
        found["filters"] = array.filters or None
    if version == 3 and array.metadata.dimension_names and axes == stored:
        found["dimension_names"] = array.metadata.dimension_names
    if version == 2:
        found["chunk_key_encoding"] = {
            "name": "v2",
            "separator": array.metadata.dimension_separator,
        }
    return found


def _fitting(codec: Any) -> Any:
    """A codec for voxels of any size: Blosc's shuffle looks at them."""
    if isinstance(codec, zarr.codecs.BloscCodec):
        return zarr.codecs.BloscCodec(
            cname=codec.cname, clevel=codec.clevel, shuffle=codec.shuffle, blocksize=codec.blocksize
        )
    return codec


# --- NGFF -----------------------------------------------------------------------------------------
def _found(path: str) -> tuple[dict[str, Any] | None, str]:
    """The metadata of the image that a path leads to, if it is one, and where its first array is."""
    node = zarr.open(path, mode="r")
    if not isinstance(node, zarr.Group):
        return _image_of(Path(path)), ""
    image = _image(node)
    return image, str(image["datasets"][0]["path"])


def _images(group: Any) -> list[dict[str, Any]]:
    """The metadata of the images in a group."""
    attributes = dict(group.attrs)
    return [dict(image) for image in attributes.get("ome", attributes).get("multiscales") or []]


def _image(group: Any) -> dict[str, Any]:
    """The metadata of the first image in a group."""
    images = _images(group)
    if not images:
        names = sorted(name for name, _ in group.arrays())
        here = f"it has the arrays {', '.join(names)}: name one" if names else "it has no array"
        raise ValueError(f"a group without an OME-Zarr image; {here}")
    return images[0]


def _image_of(path: Path) -> dict[str, Any] | None:
    """The metadata of the image that an array is a resolution of, with no other resolution."""
    for folder in path.parents:
        if any((folder / name).exists() for name in ("zarr.json", ".zgroup")):
            place = path.relative_to(folder).as_posix()
            for image in _images(zarr.open(folder, mode="r")):
                for dataset in image["datasets"]:
                    if dataset["path"] == place:
                        return {**image, "datasets": [dataset]}
    return None


def _axes(path: str, image: dict[str, Any]) -> str:
    """The letters of an image's axes."""
    space, found = iter("dhw"), ""
    for axis in image["axes"]:
        name = axis if isinstance(axis, str) else str(axis["name"])
        kind = "space" if isinstance(axis, str) else axis.get("type", "space")
        letter = {"t": "n", "c": "c"}.get(name) or {"time": "n", "channel": "c"}.get(str(kind))
        found += letter or next(space, "?")
    if sorted(letter for letter in found if letter in "dhw") != list("dhw") or "?" in found:
        raise VolumeError(f"{path}: a volume has three axes of space, the image has {found}")
    return found


def _affine(image: dict[str, Any], axes: str) -> NDArray[np.float64]:
    """Voxel indices to world coordinates, by the transforms of the first resolution and of all."""
    scale, shift = np.ones(len(axes)), np.zeros(len(axes))
    steps = [*image["datasets"][0].get("coordinateTransformations", ())]
    for step in [*steps, *image.get("coordinateTransformations", ())]:
        if step["type"] == "scale":
            scale, shift = scale * step["scale"], shift * step["scale"]
        elif step["type"] == "translation":
            shift = shift + step["translation"]
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    rows = _rows(dict(zip(axes, image["axes"], strict=True)))
    for place, axis in enumerate(axes):
        if axis in rows:
            affine[rows[axis], "dhw".index(axis)] = scale[place]
            affine[rows[axis], 3] = shift[place]
    return affine


def _unit(image: dict[str, Any]) -> str | None:
    """The unit of the axes of space, if it is one."""
    axes = [axis for axis in image["axes"] if isinstance(axis, dict)]
    units = {axis.get("unit") for axis in axes if axis.get("type") == "space"}
    return parse_unit(units.pop()) if len(units) == 1 else None


def _rows(known: dict[str, Any]) -> dict[str, int]:
    """The world axis that each axis of space runs along, by its name."""
    names = {a: v if isinstance(v, str) else str(v["name"]) for a, v in known.items() if a in "dhw"}
    if sorted(names.values()) == sorted(_WORLD):
        return {axis: _WORLD[name] for axis, name in names.items()}
    return {"d": 2, "h": 1, "w": 0}


def _described(
    image: dict[str, Any] | None, axes: str, wanted: Wanted, version: int
) -> tuple[dict[str, Any], list[str] | None]:
    """What NGFF says of an image of one resolution, and the names of its axes for Zarr 3.

    Of a rotated volume it can state the voxels' sizes and the first one's place, and no more.
    """
    affine, known = wanted.affine, dict[str, Any]()
    if image is not None:
        known = dict(zip(_axes("", image), image["axes"], strict=True))
    rows = _rows(known) if known else dict(zip("dhw", _along(affine), strict=True))
    letters = {row: name for name, row in _WORLD.items()}
    other = {"n": {"name": "t", "type": "time"}, "c": {"name": "c", "type": "channel"}}
    unit = {} if wanted.unit is None else {"unit": wanted.unit}
    other |= {a: {"name": letters[rows[a]], "type": "space", **unit} for a in rows}
    named = [known.get(axis, other[axis]) for axis in axes]
    sizes = voxel_sizes(affine)
    scale = [sizes["dhw".index(axis)] if axis in rows else 1.0 for axis in axes]
    shift = [float(affine[rows[axis], 3]) if axis in rows else 0.0 for axis in axes]
    steps = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": shift}]
    given: dict[str, Any] = image or {}
    kept = {key: value for key, value in given.items() if key in ("name", "type", "metadata")}
    dataset = {"path": "0", "coordinateTransformations": steps}
    described: dict[str, Any] = {**kept, "axes": named, "datasets": [dataset]}
    if version == 2:
        return {"multiscales": [{"version": "0.4", **described}]}, None
    names = [axis if isinstance(axis, str) else str(axis["name"]) for axis in named]
    return {"ome": {"version": "0.5", "multiscales": [described]}}, names


def _along(affine: NDArray[np.float64]) -> list[int]:
    """The world axis that depth, height and width run along most nearly, each another."""
    rest = np.abs(affine[:3, :3]) / np.asarray(voxel_sizes(affine))
    found = [0, 0, 0]
    for _ in range(3):
        row, column = np.unravel_index(int(rest.argmax()), rest.shape)
        found[int(column)] = int(row)
        rest[row, :] = rest[:, column] = -1
    return found
