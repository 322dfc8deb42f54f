"""NIfTI volumes through nibabel: the only module that imports it.

A result carries its input's header on (units, codes, description, extensions) with what the
convolution changed brought up to date, so that viewers show it in the same place.
"""

from __future__ import annotations

import gzip
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import nibabel
import numpy as np
from numpy.typing import NDArray

from convt.volumes.affine import result_affine, voxel_sizes
from convt.volumes.files import Volume

LONGEST = np.iinfo(np.int16).max  # voxels along an axis that a NIfTI-1 header can state
_NOT_IN_NIFTI = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16), np.dtype(np.bool_))


def read(path: Path) -> Volume:
    """Read ``path``; uncompressed, unscaled values stay in the file, memory-mapped."""
    if path.name.lower().endswith(".gz"):
        return _read_compressed(path)
    image: Any = nibabel.load(path)
    return Volume(_values(image), np.asarray(image.affine, np.float64), image.header)


def write(stream: IO[bytes], volume: Volume, suffix: str) -> None:
    """Write ``volume`` to ``stream``, compressed if ``suffix`` ends in ``.gz``."""
    image = _image(volume)
    if not suffix.endswith(".gz"):
        image.to_stream(stream)
        return
    # A fixed time stamp makes equal volumes equal files; level 1 is several times faster than the
    # default and costs a few per cent of size.
    with gzip.GzipFile("", "wb", compresslevel=1, fileobj=stream, mtime=0) as packed:
        image.to_stream(packed)


def header_bytes(volume: Volume) -> tuple[bytes, np.dtype[Any]]:
    """What a file of ``volume`` begins with, and how its voxels follow; they are not looked at."""
    image = _image(volume, fit=False)
    image.update_header()
    header, stream = image.header, BytesIO()
    header.set_slope_inter(1, 0)
    header.write_to(stream)
    start = stream.getvalue()
    return start.ljust(int(header["vox_offset"]), b"\0"), header.get_data_dtype()


def carry_header(header: Any, to_input: NDArray[np.float64], ndim: int) -> Any:
    """Header of a result of ``ndim`` axes: ``header`` with its voxel grid refined by ``to_input``.

    Both transforms that a header can hold keep their code and follow the voxels; voxel sizes
    shrink by the strides. Slice timing is dropped, because the slices it numbers are gone.
    """
    carried = header.copy()
    sizes = header.get_zooms()
    space = [size * to_input[axis, axis] for axis, size in enumerate(sizes[:3])]
    carried.set_data_shape((1,) * ndim)
    carried.set_zooms((*space, *sizes[3:], 1.0)[:ndim])
    if int(header["qform_code"]):
        carried.set_qform(result_affine(header.get_qform(), to_input), int(header["qform_code"]))
    if int(header["sform_code"]):
        carried.set_sform(result_affine(header.get_sform(), to_input), int(header["sform_code"]))
    for field in ("slice_start", "slice_end", "slice_code", "slice_duration"):
        carried[field] = 0
    return carried


def _read_compressed(path: Path) -> Volume:
    with gzip.open(path, "rb") as stream:
        size = stream.peek(4)[:4]  # of the header, in either byte order
        wide = 540 in (int.from_bytes(size, "little"), int.from_bytes(size, "big"))
        kind: Any = nibabel.Nifti2Image if wide else nibabel.Nifti1Image
        image = kind.from_stream(stream)
        values = _values(image)
        while stream.read(1 << 20):  # to the end, where gzip compares the checksum
            pass
    return Volume(values, np.asarray(image.affine, np.float64), image.header)


def _values(image: Any) -> NDArray[Any]:
    """The voxels of an image: as stored, or scaled to float32 (float64 if stored so)."""
    proxy, stored = image.dataobj, image.get_data_dtype().newbyteorder("=")
    if (proxy.slope, proxy.inter) == (1.0, 0.0):
        return np.asanyarray(proxy.get_unscaled())
    if stored.kind in "iu" or stored == np.float32:
        return np.asarray(proxy, np.float32)
    return np.asarray(proxy)


def _image(volume: Volume, *, fit: bool = True) -> Any:
    data = volume.data
    if data.dtype in _NOT_IN_NIFTI:
        data = data.astype(np.float32) if fit else np.broadcast_to(np.float32(0), data.shape)
    affine = np.eye(4) if volume.affine is None else volume.affine
    wide = max(data.shape) > LONGEST or isinstance(volume.header, nibabel.Nifti2Header)
    kind: Any = nibabel.Nifti2Image if wide else nibabel.Nifti1Image
    if volume.header is None:
        return kind(data, affine, dtype=data.dtype)
    header = _widened(volume.header) if wide else volume.header.copy()
    header.set_data_shape(data.shape)
    stated = header.get_best_affine()
    # A header states its transform in float32; an affine that differs by rounding alone would
    # make nibabel replace it and lose its codes.
    same = np.allclose(stated, affine, rtol=1e-5, atol=1e-4 * min(voxel_sizes(affine)))
    return kind(data, stated if same else affine, header, dtype=data.dtype)


def _widened(header: Any) -> Any:
    """``header`` as NIfTI-2, field by field: nibabel's own conversion drops the transforms."""
    wide: Any = nibabel.Nifti2Header(endianness=header.endianness)  # type: ignore[no-untyped-call]
    for field in set(wide.keys()) & set(header.keys()) - {"sizeof_hdr", "magic"}:
        wide[field] = header[field]
    wide.extensions = header.extensions
    return wide
