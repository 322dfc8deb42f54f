"""Volumes: files in, files out, and what happens to them in between.

``read`` and ``write`` know ``.npy`` and NIfTI in memory, ``open_source`` and ``create_sink`` these, Zarr,
TIFF and HDF5 piece by piece; ``apply`` is the transposed convolution of a volume
that keeps its place in the world, and ``upsample`` brings one up by interpolation; ``trilinear``,
``nearest``, ``cubic`` and ``lanczos3`` are kernels for both,
``shepp_logan`` is something to try it on, and ``draw`` shows what it did.
"""

from __future__ import annotations

from convt.volumes.files import StreamError, Volume, VolumeError, read, write
from convt.volumes.kernels import cubic, lanczos3, nearest, trilinear
from convt.volumes.phantom import shepp_logan
from convt.volumes.preview import draw
from convt.volumes.stores import create_sink, open_source
from convt.volumes.transform import apply
from convt.volumes.upsampling import upsample

__all__ = [
    "StreamError",
    "Volume",
    "VolumeError",
    "apply",
    "create_sink",
    "cubic",
    "draw",
    "lanczos3",
    "nearest",
    "open_source",
    "read",
    "shepp_logan",
    "trilinear",
    "upsample",
    "write",
]
