"""Streamed upsampling: the bits of the result in memory, from and to every format, in its place."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from convt.volumes import VolumeError, open_source, upsample, write
from convt.volumes.files import Volume
from convt.volumes.interpolate import Interpolation
from convt.volumes.regions import grid, sizes_of
from convt.volumes.upsampled import UpsampleBlocks

CUBE = np.random.default_rng(0).random((9, 7, 11)).astype(np.float32)
KERNELS = ("nearest", "trilinear", "cubic", "lanczos3")


def voxels(path: Path, data_format: str = "NDHWC") -> NDArray[Any]:
    source = open_source(path, data_format)
    n, d, h, w, c = ((0, size) for size in source.shape)
    return source.read((n, d, h, w, c))


@pytest.mark.parametrize("kernel", KERNELS)
def test_blocks_put_together_are_the_whole(kernel: str) -> None:
    volume = np.random.default_rng(1).integers(0, 255, (2, 5, 6, 7, 3)).astype(np.uint8)
    compute = UpsampleBlocks(
        Interpolation(kernel, (2, 3, 1)), (2, 5, 6, 7, 3), volume.dtype, volume.dtype
    )
    compute = pickle.loads(pickle.dumps(compute))
    result = np.zeros((2, 10, 18, 7, 3), np.uint8)
    for region in grid(result.shape, (1, 3, 4, 5, 2)):
        inputs = compute.input_region(region)
        block = compute(volume[tuple(slice(*span) for span in inputs)], region)
        assert block.shape == sizes_of(region)
        assert compute.bytes(region) > block.nbytes
        result[tuple(slice(*span) for span in region)] = block
    for entry, got in zip(volume, result, strict=True):
        np.testing.assert_array_equal(got, upsample(entry, (2, 3, 1), kernel, keep_dtype=True))


@pytest.mark.parametrize("suffix", [".npy", ".nii", ".nii.gz", ".tif", ".h5", ".zarr"])
def test_every_format_has_the_bits_of_the_result_in_memory(suffix: str, tmp_path: Path) -> None:
    if suffix in (".tif", ".h5", ".zarr"):
        pytest.importorskip({".tif": "tifffile", ".h5": "h5py", ".zarr": "zarr"}[suffix])
    np.save(tmp_path / "a.npy", CUBE)
    upsample(tmp_path / "a.npy", (2, 1, 3), "cubic", output=tmp_path / f"b{suffix}")
    expected = upsample(CUBE, (2, 1, 3), "cubic")
    np.testing.assert_array_equal(voxels(tmp_path / f"b{suffix}")[0, ..., 0], expected)
    upsample(tmp_path / f"b{suffix}", 2, output=tmp_path / "c.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "c.npy"), upsample(expected, 2))
    assert {path.name for path in tmp_path.iterdir()} == {"a.npy", f"b{suffix}", "c.npy"}


def test_chunks_are_kept_and_each_is_written_once(tmp_path: Path) -> None:
    zarr: Any = pytest.importorskip("zarr")
    array = zarr.create_array(tmp_path / "a.zarr", shape=CUBE.shape, chunks=(4, 4, 4), dtype="f4")
    array[...] = CUBE
    told: list[tuple[int, int]] = []
    upsample(
        tmp_path / "a.zarr",
        2,
        "lanczos3",
        output=tmp_path / "b.zarr",
        progress=lambda done, size: told.append((done, size)),
    )
    result = zarr.open_array(tmp_path / "b.zarr")
    assert result.chunks == (4, 4, 4)
    np.testing.assert_array_equal(result[...], upsample(CUBE, 2, "lanczos3"))
    assert told[-1] == (8 * CUBE.nbytes, 8 * CUBE.nbytes)
    assert len(told) > 2


def test_whole_numbers_and_channels(tmp_path: Path) -> None:
    volume = np.random.default_rng(2).integers(-900, 900, (2, 4, 5, 6)).astype(np.int16)
    np.save(tmp_path / "a.npy", volume)
    for keep in (False, True):
        out = tmp_path / f"{keep}.npy"
        upsample(tmp_path / "a.npy", 2, "cubic", "NCDHW", output=out, keep_dtype=keep)
        expected = upsample(volume, 2, "cubic", "NCDHW", keep_dtype=keep)
        assert np.load(out).dtype == expected.dtype
        np.testing.assert_array_equal(np.load(out), expected)


def test_nifti_stays_in_its_place(tmp_path: Path) -> None:
    affine = np.array([[0, 0, 2.0, 5], [0, -3, 0, 1], [0.5, 0, 0, -7], [0, 0, 0, 1]])
    write(tmp_path / "a.nii", Volume(CUBE, affine))
    upsample(tmp_path / "a.nii", (2, 3, 1), output=tmp_path / "b.nii.gz")
    got = open_source(tmp_path / "b.nii.gz").affine
    assert got is not None
    for corner in ((0, 0, 0), CUBE.shape):
        place = affine @ [*(np.array(corner) - 0.5), 1]
        fine = np.multiply(corner, (2, 3, 1)) - 0.5
        np.testing.assert_allclose(got @ [*fine, 1], place, atol=1e-5)


def test_ome_zarr_stays_in_its_place(tmp_path: Path) -> None:
    zarr: Any = pytest.importorskip("zarr")
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    steps = [
        {"type": "scale", "scale": [4.0, 1.0, 0.5]},
        {"type": "translation", "translation": [10.0, 0.0, -3.0]},
    ]
    dataset = {"path": "0", "coordinateTransformations": steps}
    image = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [dataset]}]}
    group = zarr.create_group(tmp_path / "a.zarr", attributes={"ome": image})
    group.create_array("0", data=CUBE)
    upsample(tmp_path / "a.zarr", (2, 4, 1), output=tmp_path / "b.zarr")
    (found,) = zarr.open_group(tmp_path / "b.zarr").attrs["ome"]["multiscales"]
    assert found["axes"] == axes
    scale, translation = found["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == [2.0, 0.25, 0.5]
    # The first voxel's middle moves towards the face: (1 / factor - 1) / 2 of a voxel.
    assert translation["translation"] == [10 - 1, 0 - 0.375, -3]


def test_another_kernel_does_not_go_on_with_an_unfinished_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Other tests' frameworks are in this process.
    monkeypatch.setattr("convt.volumes.stream._resident", lambda: 100 << 20)
    np.save(tmp_path / "a.npy", np.tile(CUBE, (8, 8, 8)))

    def stop(done: int, size: int) -> None:
        if done:
            raise KeyboardInterrupt

    job: dict[str, Any] = {"output": tmp_path / "b.npy", "threads": 1, "memory": "1GiB"}
    with pytest.raises(KeyboardInterrupt):
        upsample(tmp_path / "a.npy", 2, progress=stop, **job)
    assert not (tmp_path / "b.npy").exists()
    with pytest.raises(VolumeError, match="another operation"):
        upsample(tmp_path / "a.npy", 2, "nearest", resume=True, **job)
    upsample(tmp_path / "a.npy", 2, resume=True, **job)
    expected = upsample(np.tile(CUBE, (8, 8, 8)), 2)
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), expected)


def test_what_goes_with_an_output_only(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="go with output"):
        upsample(CUBE, 2, memory="1GiB")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="volume must be a path, got ndarray"):
        upsample(CUBE, 2, output=tmp_path / "b.npy")  # type: ignore[call-overload]
