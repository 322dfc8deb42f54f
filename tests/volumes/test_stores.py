"""Every format against the library that owns it: regions in, regions out, and the place in the world."""

from __future__ import annotations

import errno
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as typed_nibabel
import numpy as np
import pytest

from convt.volumes import Volume, VolumeError, apply, write
from convt.volumes.affine import index_map
from convt.volumes.regions import Region, grid, slices
from convt.volumes.stores import Source, create_sink, open_source, round_to

h5py: Any = pytest.importorskip("h5py")
tifffile: Any = pytest.importorskip("tifffile")
zarr: Any = pytest.importorskip("zarr")
nibabel: Any = typed_nibabel

RANDOM = np.random.default_rng(0)
CUBE = RANDOM.integers(0, 60000, (11, 9, 13)).astype(np.uint16)
MRI = Path(nibabel.__file__).parent / "tests" / "data" / "anatomical.nii"
SCALE, SHIFT = [3.0, 0.5, 0.25], [10.0, 20.0, 30.0]  # z, y, x
SPACE = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
HALF = index_map(
    kernel=(2, 2, 2), strides=(2, 2, 2), dilations=(1, 1, 1), pad_before=(0, 0, 0)
)  # twice as fine


def whole(source: Any) -> Region:
    n, d, h, w, c = ((0, size) for size in source.shape)
    return n, d, h, w, c


def placed(*, shift: bool) -> Any:
    """Voxels (d, h, w) to the world (x, y, z)."""
    affine = np.diag([*SCALE, 1.0])[[2, 1, 0, 3]]
    affine[:3, 3] = SHIFT[::-1] if shift else [0, 0, 0]
    return affine


def ome(version: str, steps: list[dict[str, Any]], axes: Any = SPACE) -> dict[str, Any]:
    datasets = [
        {"path": "fine", "coordinateTransformations": steps},
        {"path": "coarse", "coordinateTransformations": [{"type": "scale", "scale": [9, 9, 9]}]},
    ]
    image = {"name": "cells", "axes": axes, "datasets": datasets}
    if version == "0.4":
        return {"multiscales": [{"version": "0.4", **image}]}
    return {"ome": {"version": version, "multiscales": [image]}}


STEPS = [{"type": "scale", "scale": SCALE}, {"type": "translation", "translation": SHIFT}]


# --- files of every kind, made by the libraries that own the formats ------------------------------
def npy(path: Path) -> None:
    np.save(path, CUBE)


def npy_fortran(path: Path) -> None:
    np.save(path, np.asfortranarray(CUBE.astype(">u2")))


def nifti(path: Path) -> None:
    image = nibabel.Nifti1Image(CUBE.astype(np.int32), placed(shift=True), dtype=np.int32)
    nibabel.save(image, path)


def tiff(path: Path, **options: Any) -> None:
    tifffile.imwrite(path, CUBE, **options)


def big_tiff(path: Path) -> None:
    tiff(path, bigtiff=True, byteorder=">")


def packed_tiff(path: Path) -> None:
    tiff(path, compression="zlib")


def imagej_tiff(path: Path) -> None:
    tiff(path, imagej=True, resolution=(4, 2), metadata={"spacing": 3.0, "axes": "ZYX"})


def ome_tiff(path: Path) -> None:
    sizes = {f"PhysicalSize{name}": size for name, size in zip("ZYX", SCALE, strict=True)}
    tiff(path, ome=True, metadata={"axes": "ZYX", **sizes})


def hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["group/volume"] = CUBE
        file["group/volume"].attrs["element_size_um"] = SCALE
        file["other"] = np.arange(5)


def packed_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("volume", data=CUBE, chunks=(4, 5, 6), compression="gzip", shuffle=True)


def zarr_2(path: Path) -> None:
    zarr.create_array(path, data=CUBE, chunks=(4, 5, 6), zarr_format=2, attributes={"a": 1})


def zarr_3(path: Path) -> None:
    names = ["z", "y", "x"]
    zarr.create_array(path, data=CUBE, chunks=(4, 5, 6), attributes={"a": 1}, dimension_names=names)


def sharded_zarr(path: Path) -> None:
    codec = zarr.codecs.BloscCodec(cname="lz4", clevel=3, shuffle="shuffle")
    zarr.create_array(path, data=CUBE, chunks=(2, 3, 4), shards=(4, 6, 8), compressors=codec)


def ome_zarr_4(path: Path) -> None:
    group = zarr.create_group(path, zarr_format=2, attributes=ome("0.4", STEPS))
    group.create_array("fine", data=CUBE, chunks=(4, 5, 6))


def ome_zarr_5(path: Path) -> None:
    group = zarr.create_group(path, attributes=ome("0.5", STEPS))
    group.create_array("fine", data=CUBE, chunks=(4, 5, 6))


FILES: dict[str, tuple[str, Callable[[Path], None], Any]] = {
    "npy": ("a.npy", npy, None),
    "npy, Fortran order, foreign bytes": ("a.npy", npy_fortran, None),
    "nifti": ("a.nii", nifti, placed(shift=True)),
    "nifti, packed": ("a.nii.gz", nifti, placed(shift=True)),
    "tiff": ("a.tif", tiff, None),
    "tiff, big": ("a.tiff", big_tiff, None),
    "tiff, packed": ("a.tif", packed_tiff, None),
    "tiff of ImageJ": ("a.tif", imagej_tiff, placed(shift=False)),
    "ome-tiff": ("a.ome.tif", ome_tiff, placed(shift=False)),
    "hdf5": ("a.h5", hdf5, placed(shift=False)),
    "hdf5, packed": ("a.hdf5", packed_hdf5, None),
    "zarr 2": ("a.zarr", zarr_2, None),
    "zarr 3": ("a.zarr", zarr_3, None),
    "zarr 3, sharded": ("a.zarr", sharded_zarr, None),
    "ome-zarr 0.4": ("a.zarr", ome_zarr_4, placed(shift=True)),
    "ome-zarr 0.5": ("a.zarr", ome_zarr_5, placed(shift=True)),
}


@pytest.mark.parametrize("kind", FILES)
def test_regions_of_every_kind(kind: str, tmp_path: Path) -> None:
    name, make, affine = FILES[kind]
    make(tmp_path / name)
    source = open_source(tmp_path / name)
    assert (source.shape, source.dtype.isnative) == ((1, 11, 9, 13, 1), True)
    copy = pickle.loads(pickle.dumps(source))  # as another process reads
    for region in [whole(source), *grid(source.shape, (1, 4, 9, 5, 1))]:
        expected = CUBE[None, ..., None][slices(region, "ndhwc")]
        np.testing.assert_array_equal(source.read(region), expected)
        np.testing.assert_array_equal(copy.read(region), expected)
    assert (source.affine is None) == (affine is None)
    if source.affine is not None:
        np.testing.assert_allclose(source.affine, affine)
    source.close()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".npy", ".nii", ".nii.gz", ".tif", ".ome.tif", ".h5", ".zarr"])
@pytest.mark.parametrize("kind", FILES)
def test_every_kind_to_every_format(kind: str, suffix: str, tmp_path: Path) -> None:
    name, make, affine = FILES[kind]
    make(tmp_path / name)
    source = open_source(tmp_path / name)
    values = RANDOM.normal(size=(1, 22, 18, 26, 1)).astype(np.float32)
    sink = create_sink(
        tmp_path / f"out{suffix}", shape=values.shape, dtype=np.float32, like=source, to_input=HALF
    )
    sink.create()
    copy = pickle.loads(pickle.dumps(sink))  # as another process writes
    sizes = zip(sink.shape, sink.grain, strict=True)
    block = [-(-size // grain // 2) * grain for size, grain in sizes]
    for number, region in enumerate(grid(sink.shape, block)):
        (sink if number % 2 else copy).write(region, values[slices(region, "ndhwc")])
    assert not (tmp_path / f"out{suffix}").exists()
    sink.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"out{suffix}"])
    result = open_source(tmp_path / f"out{suffix}")
    np.testing.assert_array_equal(result.read(whole(result)), values)
    if affine is not None and result.affine is not None:
        expected = affine @ HALF
        if suffix not in (".nii", ".nii.gz", ".zarr"):
            expected[:3, 3] = 0  # these have no place for it
        np.testing.assert_allclose(result.affine, expected, atol=1e-6)
    placeless = suffix == ".npy" or (affine is None and not suffix.startswith(".nii"))
    assert (result.affine is None) == placeless


# --- what is carried on ---------------------------------------------------------------------------
def result_of(tmp_path: Path, name: str, output: str, **options: Any) -> Any:
    apply(tmp_path / name, "nearest", 2, output=tmp_path / output, **options)
    return tmp_path / output


@pytest.mark.slow
def test_zarr_keeps_chunks_shards_compression_and_attributes(tmp_path: Path) -> None:
    for make in (zarr_2, zarr_3, sharded_zarr):
        make(tmp_path / "in.zarr")
        before = zarr.open_array(tmp_path / "in.zarr")
        after = zarr.open_array(result_of(tmp_path, "in.zarr", "out.zarr", force=True))
        assert after.metadata.zarr_format == before.metadata.zarr_format
        assert (after.chunks, after.shards) == (before.chunks, before.shards)
        assert dict(after.attrs) == dict(before.attrs)
        names = [type(codec).__name__ for codec in before.compressors]
        assert [type(codec).__name__ for codec in after.compressors] == names
        if make is zarr_3:
            assert after.metadata.dimension_names == ("z", "y", "x")
        if make is sharded_zarr:
            (codec,) = after.compressors
            assert (codec.cname.value, codec.clevel, codec.typesize) == ("lz4", 3, 4)
        shutil.rmtree(tmp_path / "in.zarr")


@pytest.mark.parametrize(("make", "version"), [(ome_zarr_4, "0.4"), (ome_zarr_5, "0.5")])
def test_ome_zarr_scale_and_translation(make: Any, version: str, tmp_path: Path) -> None:
    make(tmp_path / "in.zarr")
    group = zarr.open_group(result_of(tmp_path, "in.zarr", "out.zarr"))
    attributes = dict(group.attrs)
    assert attributes.get("ome", {"version": "0.4"})["version"] == version
    (image,) = attributes.get("ome", attributes)["multiscales"]
    assert (image["name"], image["axes"]) == ("cells", SPACE)
    (dataset,) = image["datasets"]
    assert group[dataset["path"]].shape == (22, 18, 26)
    scale, translation = dataset["coordinateTransformations"]
    assert scale == {"type": "scale", "scale": [1.5, 0.25, 0.125]}
    # The first of two voxels in place of one lies a quarter of it before its middle.
    expected = [at - size / 4 for at, size in zip(SHIFT, SCALE, strict=True)]
    assert translation == {"type": "translation", "translation": expected}


def test_ome_zarr_transforms_add_up(tmp_path: Path) -> None:
    attributes = ome("0.5", [{"type": "scale", "scale": [1, 2, 4]}, STEPS[1]])
    outer = [{"type": "scale", "scale": [10, 10, 10]}]
    attributes["ome"]["multiscales"][0]["coordinateTransformations"] = outer
    group = zarr.create_group(tmp_path / "in.zarr", attributes=attributes)
    group.create_array("fine", data=CUBE, chunks=(4, 5, 6))
    affine = open_source(tmp_path / "in.zarr").affine
    assert affine is not None
    world = affine @ [1, 1, 1, 1]
    assert world.tolist() == [10 * (4 + 30), 10 * (2 + 20), 10 * (1 + 10), 1]


@pytest.mark.parametrize("suffix", [".zarr", ".ome.tif", ".tif", ".h5"])
@pytest.mark.parametrize("unit", ["mm", "micron", "unknown"])
def test_the_unit_of_the_world_is_carried_on(unit: str, suffix: str, tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(CUBE.astype(np.int16), placed(shift=False))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii")
    after: Any = open_source(result_of(tmp_path, "a.nii", f"b{suffix}"))
    name = {"mm": "millimeter", "micron": "micrometer", "unknown": None}[unit]
    sizes = np.abs(after.affine[:3, :3]).max(0)
    if suffix == ".h5":  # its attribute is of micrometers
        assert after.unit == "micrometer"
        assert sizes.tolist() == [size / 2 * (1000 if unit == "mm" else 1) for size in SCALE]
        return
    assert sizes.tolist() == [size / 2 for size in SCALE]
    # OME's default is the micrometer.
    assert after.unit == (name or "micrometer" if suffix == ".ome.tif" else name)
    if suffix == ".zarr":
        (image,) = _multiscales(tmp_path / "b.zarr")
        assert [axis.get("unit") for axis in image["axes"]] == [name] * 3
    if suffix == ".ome.tif":
        assert open_source(result_of(tmp_path, "b.ome.tif", "c.zarr")).unit == after.unit


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_named_resolution_of_an_image(version: str, tmp_path: Path) -> None:
    attributes = ome(version, STEPS)
    image = attributes.get("ome", attributes)["multiscales"][0]
    image["datasets"][1]["path"] = "more/coarse"
    image["datasets"][1]["coordinateTransformations"].append(STEPS[1])
    image["coordinateTransformations"] = [{"type": "scale", "scale": [2, 2, 2]}]
    fine = zarr.create_group(
        tmp_path / "in.zarr", zarr_format=2 if version == "0.4" else 3, attributes=attributes
    )
    fine.create_array("fine", data=CUBE, chunks=(4, 5, 6))
    fine.create_array("more/coarse", data=CUBE[::2, ::2, ::2].copy(), chunks=(4, 5, 6))
    fine.create_array("mask", data=CUBE, chunks=(4, 5, 6))
    assert open_source(tmp_path / "in.zarr" / "mask").affine is None
    source = open_source(f"{tmp_path}/in.zarr/more/coarse/")
    assert (source.read(whole(source)) == CUBE[None, ::2, ::2, ::2, None]).all()
    affine = source.affine
    assert affine is not None
    assert (affine @ [1, 1, 1, 1]).tolist() == [2 * (9 + at) for at in SHIFT[::-1]] + [1]
    apply(
        tmp_path / "in.zarr" / "more" / "coarse", "nearest", 2, output=tmp_path / "out.zarr",
        padding="VALID",
    )  # fmt: skip
    after = open_source(tmp_path / "out.zarr")
    assert after.affine is not None
    np.testing.assert_allclose(after.affine @ [0.5, 0.5, 0.5, 1], affine @ [0, 0, 0, 1])
    (written,) = _multiscales(tmp_path / "out.zarr")
    assert (written["name"], len(written["datasets"])) == ("cells", 1)
    with pytest.raises(VolumeError, match=r"in\.zarr/9: the name must end in"):
        create_sink(tmp_path / "in.zarr" / "9", shape=(1, 2, 2, 2, 1), dtype=np.float32, force=True)
    with pytest.raises(FileNotFoundError):
        open_source(tmp_path / "in.zarr" / "9")
    with pytest.raises(FileExistsError, match="holds the source, which would go with it"):
        apply(
            tmp_path / "in.zarr" / "more" / "coarse", "nearest", 2, output=tmp_path / "in.zarr",
            force=True,
        )  # fmt: skip


def _multiscales(path: Path) -> Any:
    attributes = dict(zarr.open_group(path).attrs)
    return attributes.get("ome", attributes)["multiscales"]


@pytest.mark.slow
def test_ome_zarr_with_time_and_channels(tmp_path: Path) -> None:
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}, *SPACE]
    steps = [{"type": "scale", "scale": [1, 1, *SCALE]}]
    group = zarr.create_group(tmp_path / "in.zarr", attributes=ome("0.5", steps, axes))
    values = RANDOM.normal(size=(2, 3, 4, 5, 6)).astype(np.float32)
    group.create_array("fine", data=values, chunks=(1, 1, 4, 5, 6))
    source = open_source(tmp_path / "in.zarr")
    assert (source.axes, source.shape) == ("ncdhw", (2, 4, 5, 6, 3))
    path = result_of(tmp_path, "in.zarr", "out.zarr")
    found = zarr.open_group(path)["0"][:]
    for time in range(2):
        for channel in range(3):
            np.testing.assert_array_equal(
                found[time, channel], apply(values[time, channel], "nearest", 2)
            )
    (image,) = zarr.open_group(path).attrs["ome"]["multiscales"]
    scale = image["datasets"][0]["coordinateTransformations"][0]["scale"]
    assert scale == [1, 1, 1.5, 0.25, 0.125]


@pytest.mark.slow
def test_channels_that_a_result_gets_come_where_its_format_has_them(tmp_path: Path) -> None:
    kernel = RANDOM.normal(size=(2, 2, 2, 3, 1))
    expected = apply(CUBE, kernel, 2)
    for name, make in (("a.npy", npy), ("a.zarr", ome_zarr_5), ("a.tif", tiff), ("a.nii", nifti)):
        make(tmp_path / name)
        for suffix, axes in ((".npy", "dhwc"), (".zarr", None), (".tif", "dchw"), (".nii", "dhwc")):
            output = tmp_path / f"out{suffix}"
            apply(tmp_path / name, kernel, 2, output=output, force=True)
            source = open_source(output)
            assert axes in (None, source.axes)
            np.testing.assert_array_equal(source.read(whole(source))[0], expected)
        stored = open_source(tmp_path / "out.zarr").axes
        assert stored == ("dhwc" if name in ("a.npy", "a.tif") else "cdhw")
        shutil.rmtree(tmp_path / "out.zarr")


def test_hdf5_keeps_name_attributes_chunks_and_compression(tmp_path: Path) -> None:
    packed_hdf5(tmp_path / "in.h5")
    with h5py.File(result_of(tmp_path, "in.h5", "out.h5")) as file:
        data = file["volume"]
        assert (data.chunks, data.compression, data.shuffle) == ((4, 5, 6), "gzip", True)
    hdf5(tmp_path / "plain.h5")
    with h5py.File(result_of(tmp_path, "plain.h5", "fine.h5")) as file:
        assert file["group/volume"].chunks is None
        assert file["group/volume"].attrs["element_size_um"].tolist() == [1.5, 0.25, 0.125]


def test_hdf5_with_several_volumes_asks_which(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["a"], file["b"] = CUBE, CUBE[:5]
    with pytest.raises(VolumeError, match="FILE:/NAME must say which; it has a, b"):
        open_source(tmp_path / "in.h5")
    assert open_source(f"{tmp_path}/in.h5:/b").shape == (1, 5, 9, 13, 1)
    apply(f"{tmp_path}/in.h5:/b", "nearest", 2, output=f"{tmp_path}/out.h5:/c")
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["c"].shape == (10, 18, 26)


def test_nifti_is_scaled_as_nibabel_scales_it(tmp_path: Path) -> None:
    raw, data = tmp_path / "scaled.nii", MRI.read_bytes()
    header = nibabel.Nifti1Header(data[:348])
    header["scl_slope"], header["scl_inter"] = 0.1, -3
    raw.write_bytes(header.binaryblock + data[348:])
    source = open_source(raw)
    expected = np.asarray(nibabel.load(raw).dataobj, np.float32)
    assert source.dtype == np.float32
    assert (
        source.read(whole(source))[0, ..., 0].tobytes() == np.ascontiguousarray(expected).tobytes()
    )


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".npy"])
def test_a_streamed_file_is_the_file_that_is_written_at_once(suffix: str, tmp_path: Path) -> None:
    apply(MRI, "trilinear", 2, output=tmp_path / f"streamed{suffix}")
    write(tmp_path / f"once{suffix}", apply(MRI, "trilinear", 2))
    once = (tmp_path / f"once{suffix}").read_bytes()
    assert (tmp_path / f"streamed{suffix}").read_bytes() == once


# --- what is refused ------------------------------------------------------------------------------
def test_names_and_axes(tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match=r"a\.mha: the name must end in \.npy, .* or \.hdf5"):
        open_source("a.mha")
    np.save(tmp_path / "flat.npy", CUBE[0])
    with pytest.raises(VolumeError, match=r"a volume has 3 to 5 axes, got shape \(9, 13\)"):
        open_source(tmp_path / "flat.npy")
    np.save(tmp_path / "complex.npy", CUBE.astype(complex))
    with pytest.raises(VolumeError, match="voxels must be real numbers, got dtype complex128"):
        open_source(tmp_path / "complex.npy")
    np.save(tmp_path / "empty.npy", CUBE[:0])
    with pytest.raises(VolumeError, match=r"a volume without voxels, its shape is \(0, 9, 13\)"):
        open_source(tmp_path / "empty.npy")
    tifffile.imwrite(tmp_path / "flat.tif", CUBE[0])
    with pytest.raises(VolumeError, match="a volume has three axes of space, this has YX"):
        open_source(tmp_path / "flat.tif")
    zarr.create_group(tmp_path / "group.zarr").create_array("a", data=CUBE)
    with pytest.raises(VolumeError, match="a group without an OME-Zarr image; it has the arrays a"):
        open_source(tmp_path / "group.zarr")
    with pytest.raises(VolumeError, match="NIfTI has no axis for a batch of 2"):
        create_sink(tmp_path / "out.nii", shape=(2, 3, 4, 5, 1), dtype=np.float32)


@pytest.mark.parametrize("suffix", [".npy", ".nii", ".nii.gz", ".tif", ".h5", ".zarr"])
def test_what_is_missing_or_damaged(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    with pytest.raises(FileNotFoundError) as missing:
        open_source(path)
    assert missing.value.filename == str(path)
    if suffix == ".zarr":
        path.mkdir()
        (path / "zarr.json").write_text("{")
    else:
        path.write_bytes(b"no volume")
    with pytest.raises(VolumeError, match=f"^{re.escape(str(path))}: can't be read as "):
        open_source(path)


def test_targets(tmp_path: Path) -> None:
    shape: dict[str, Any] = {"shape": (1, 3, 4, 5, 1), "dtype": np.float32}
    (tmp_path / "a.npy").touch()
    with pytest.raises(FileExistsError):
        create_sink(tmp_path / "a.npy", **shape)
    create_sink(tmp_path / "a.npy", force=True, **shape)
    with pytest.raises(FileNotFoundError):
        create_sink(tmp_path / "no" / "a.npy", **shape)
    (tmp_path / "b.npy.part").touch()
    with pytest.raises(FileExistsError, match="unfinished run"):
        create_sink(tmp_path / "b.npy", **shape)


def test_a_file_that_is_cut_short_is_an_error_and_no_crash(tmp_path: Path) -> None:
    npy(tmp_path / "a.npy")
    source = open_source(tmp_path / "a.npy")
    with (tmp_path / "a.npy").open("r+b") as file:
        file.truncate(600)
    with pytest.raises(OSError, match="ends before its last voxel") as error:
        source.read(whole(source))
    assert error.value.errno == errno.EIO


def test_a_store_that_is_gone_does_not_read_as_empty(tmp_path: Path) -> None:
    zarr_3(tmp_path / "a.zarr")
    source = open_source(tmp_path / "a.zarr")
    source.read(whole(source))
    (tmp_path / "a.zarr").rename(tmp_path / "b.zarr")
    with pytest.raises(FileNotFoundError, match="is gone"):
        source.read(whole(source))


def test_chunks_that_are_kept_hide_no_failure(tmp_path: Path) -> None:
    zarr_3(tmp_path / "a.zarr")
    source = open_source(tmp_path / "a.zarr")
    source.keep(1 << 20)
    near: Region = ((0, 1), (0, 4), (0, 5), (0, 6), (0, 1))
    assert (source.read(near) == CUBE[None, :4, :5, :6, None]).all()
    chunk = tmp_path / "a.zarr" / "c" / "2" / "1" / "2"
    good = chunk.read_bytes()
    chunk.write_bytes(b"not what zstd makes")
    with pytest.raises(VolumeError, match="can't be read"):
        source.read(whole(source))
    chunk.write_bytes(good)
    assert (source.read(whole(source)) == CUBE[None, ..., None]).all()  # it was not kept
    (tmp_path / "a.zarr").rename(tmp_path / "c.zarr")
    with pytest.raises(FileNotFoundError, match="is gone"):
        source.read(near)


@pytest.mark.parametrize(("make", "reads"), [(zarr_2, 18), (zarr_3, 18), (sharded_zarr, 20)])
def test_chunks_are_read_once_where_there_is_room(
    make: Any, reads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "a.zarr")
    source: Any = open_source(tmp_path / "a.zarr")
    stored, asked = type(source)._stored, []

    def counted(self: Any, region: Region) -> Any:
        asked.append(region)
        return stored(self, region)

    monkeypatch.setattr(type(source), "_stored", counted)
    source.keep(1 << 20)
    for start in (0, 4):
        region: Region = ((0, 1), (start, 11), (0, 9), (0, 13), (0, 1))
        assert (source.read(region) == CUBE[None, start:, ..., None]).all()
    assert len(asked) == reads  # of a shard each region reads what it needs
    copy = pickle.loads(pickle.dumps(source))
    assert (copy.kept.limit, len(copy.kept)) == (source.kept.limit, 0)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "bool"])
@pytest.mark.parametrize("fill", [0, 1, float("nan")])
def test_chunks_of_the_fill_value_alone_are_left_out(
    dtype: str, fill: float, tmp_path: Path
) -> None:
    if np.isnan(fill) and "float" not in dtype:
        pytest.skip("has no NaN")
    signed = "float" in dtype and not np.isnan(fill)
    for name, more in (("in", {}), ("sharded", {"shards": (4, 4, 8)})):
        like = {"shape": (4, 4, 8), "chunks": (4, 4, 2), "dtype": dtype, "fill_value": fill}
        zarr.create_array(tmp_path / f"{name}.zarr", **like, **more)
        sink = create_sink(
            tmp_path / f"{name}-out.zarr",
            shape=(1, 4, 4, 8, 1),
            dtype=dtype,
            like=open_source(tmp_path / f"{name}.zarr"),
        )
        values = np.full((1, 4, 4, 8, 1), fill, dtype)
        values[0, 3, 2, 5] = 1 - np.nan_to_num(fill)
        if signed:
            values[0, 0, 0, 0] = -float(fill)  # -0.0 is not 0.0
        sink.create()
        sink.write(((0, 1), (0, 4), (0, 4), (0, 8), (0, 1)), values)
        sink.finish()
        got = zarr.open_array(tmp_path / f"{name}-out.zarr")[...]
        assert got.tobytes() == values[0, ..., 0].tobytes()
    stored = {path.name for path in (tmp_path / "in-out.zarr" / "c" / "0" / "0").iterdir()}
    assert stored == ({"0", "2"} if signed else {"2"})


def test_what_zarr_began_and_did_not_end_is_removed(tmp_path: Path) -> None:
    sink = create_sink(tmp_path / "out.zarr", shape=(1, 2, 2, 2, 1), dtype=np.float32)
    sink.create()
    begun = Path(sink.part, "c", "0", "0", f"0.{'0' * 32}.partial")
    begun.parent.mkdir(parents=True)
    begun.touch()
    sink.write(((0, 1), (0, 2), (0, 2), (0, 2), (0, 1)), np.ones((1, 2, 2, 2, 1), np.float32))
    sink.finish()
    assert [path.name for path in (tmp_path / "out.zarr" / "c" / "0" / "0").iterdir()] == ["0"]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int32", "uint32", "int64", "uint64"])
def test_rounding_is_to_even_and_clips(dtype: str) -> None:
    kind = np.dtype(dtype)
    limits = np.iinfo(kind)
    values = np.array([0.5, 1.5, 2.5, -0.5, 1e30, -1e30, np.inf, -np.inf, np.nan], np.float32)
    got = round_to(values, kind)
    assert got.dtype == kind
    assert got.tolist() == [0, 2, 2, 0, *[limits.max, limits.min] * 2, 0]


def test_a_lazy_volume_reads_what_is_indexed(tmp_path: Path) -> None:
    write(tmp_path / "a.nii", Volume(RANDOM.normal(size=(3, 4, 5, 6)).astype(np.float32)))
    source: Source = open_source(tmp_path / "a.nii")
    volume = source.volume()
    expected = source.read(whole(source))[0]
    assert volume.data.shape == (3, 4, 5, 6)
    np.testing.assert_array_equal(volume.data[:, 2, :, 1], expected[:, 2, :, 1])
