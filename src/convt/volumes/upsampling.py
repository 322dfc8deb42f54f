"""Bringing a volume up by whole factors: interpolation as a transposed convolution.

Output voxel ``o`` lies at input position ``(o + 0.5) / factor - 0.5``, so faces and everything between them
stay where they were. This file checks arguments, and cuts volumes into blocks that `interpolate` computes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from convt.arguments import parse_data_format, parse_dtype, parse_per_axis
from convt.memory import empty_output
from convt.threads import parse_threads
from convt.volumes.affine import result_affine
from convt.volumes.files import Volume, read
from convt.volumes.interpolate import Interpolation, Spans
from convt.volumes.kernels import LINES
from convt.volumes.stores import open_source
from convt.volumes.stream import Progress
from convt.volumes.upsampled import stream_upsampled, to_input

__all__ = ["parse_interpolation", "result_dtype", "upsample"]

Array = NDArray[Any]
PathLike = str | os.PathLike[str]
_BLOCK = (
    64 << 20
)  # bytes of sums that are computed at a time; blocks of less don't fill the threads


@overload
def upsample(
    volume: Array,
    factor: int | Sequence[int],
    kernel: str = ...,
    data_format: str | None = ...,
    *,
    keep_dtype: bool = ...,
    threads: int | None = ...,
) -> Array: ...
@overload
def upsample(
    volume: Volume | PathLike,
    factor: int | Sequence[int],
    kernel: str = ...,
    data_format: str | None = ...,
    *,
    keep_dtype: bool = ...,
    threads: int | None = ...,
) -> Volume: ...
@overload
def upsample(
    volume: PathLike,
    factor: int | Sequence[int],
    kernel: str = ...,
    data_format: str | None = ...,
    *,
    output: PathLike,
    keep_dtype: bool = ...,
    threads: int | None = ...,
    memory: int | str | None = ...,
    scheduler: str | None = ...,
    resume: bool = ...,
    force: bool = ...,
    progress: Progress | None = ...,
) -> None: ...
def upsample(
    volume: Array | Volume | PathLike,
    factor: int | Sequence[int],
    kernel: str = "trilinear",
    data_format: str | None = "NDHWC",
    *,
    output: PathLike | None = None,
    keep_dtype: bool = False,
    threads: int | None = None,
    memory: int | str | None = None,
    scheduler: str | None = None,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Array | Volume | None:
    """Bring a volume up by whole factors; beyond its faces it goes on as its outermost voxels.

    It is the transposed convolution of `conv3d_transpose` with one of the kernels of `convt.volumes`, the
    factors as strides, and the volume continued beyond its faces. "trilinear" is what PyTorch's
    ``interpolate(mode="trilinear", align_corners=False)`` computes. With `output` the volume is streamed
    from file to file, in pieces that fit the memory, with the same bits.

    Parameters
    ----------
    volume : array, Volume or path
        Real numbers, ``[D, H, W]`` or ``[D, H, W, C]``; with ``data_format="NCDHW"`` ``[C, D, H, W]``.
    factor : int or three ints
        Output voxels per input voxel along depth, height and width, at least 1.
    kernel : {"trilinear", "nearest", "cubic", "lanczos3"}
        The interpolation. "nearest" copies voxels, bit by bit; "cubic" is Keys' with ``a = -0.5``;
        "lanczos3" is normalised, so constants stay constant. The last two overshoot at edges.
    data_format : {"NDHWC", "NCDHW"}
        Where the channels of a volume with four axes are.
    output : path, optional
        A file or folder to stream to, of a format of `convt.volumes.open_source`; `volume` is then a path
        of one. It appears when it is complete.
    keep_dtype : bool
        Round whole numbers back to the volume's dtype, ties to even, and clip them to its range. By default
        they are returned as the float32 that they are computed in.
    threads : int, optional
        Threads that compute; default `convt.get_num_threads()`. The result is the same, bit for bit.
    memory : int or str, optional
        With `output`: what the process may take, in bytes or as ``"1GiB"``; default: a quarter of the
        machine's memory.
    scheduler : str, optional
        With `output`: the address of a Dask scheduler whose workers compute.
    resume, force : bool
        With `output`: go on with an unfinished one; replace one that exists.
    progress : callable, optional
        With `output`: told the bytes that are done, and those of the whole result.

    Returns
    -------
    array, Volume or None
        An array for an array, None with `output`, else a `Volume` whose affine and header keep every
        structure where it was in the world. Floating-point dtypes stay, with "nearest" every dtype; float16
        and bfloat16 are computed in float32 and rounded once. NaN and Inf spread as far as the kernel
        reaches from them: not at all with "nearest", else 1 (trilinear), 2 (cubic) or 3 (lanczos3) input
        voxels.

    Raises
    ------
    ValueError, TypeError
        If an argument is of a wrong kind or size; the message names it.
    VolumeError
        If a file is damaged.

    Examples
    --------
    >>> import numpy as np
    >>> from convt.volumes import upsample
    >>> upsample(np.array([[[0.0, 1.0]]]), (1, 1, 2)).tolist()
    [[[0.0, 0.25, 0.75, 1.0]]]
    >>> upsample(np.array([[[0, 250]]], np.uint8), (1, 1, 2), "cubic", keep_dtype=True).tolist()
    [[[0, 51, 199, 255]]]
    """
    interpolation = parse_interpolation(factor, kernel)
    layout = parse_data_format(data_format)
    threads = None if threads is None else parse_threads(threads)
    if output is None:
        if resume or force or {memory, scheduler, progress} != {None}:
            raise ValueError("memory, scheduler, resume, force and progress go with output")
        return _in_memory(volume, interpolation, layout, keep_dtype, threads)
    if not isinstance(volume, (str, os.PathLike)):
        raise TypeError(f"with output, volume must be a path, got {type(volume).__name__}")
    source = open_source(volume, layout)
    try:
        stream_upsampled(
            source,
            output,
            interpolation,
            result_dtype(source.dtype, interpolation, keep=keep_dtype),
            memory=memory,
            threads=threads,
            scheduler=scheduler,
            resume=resume,
            force=force,
            progress=progress,
        )
    finally:
        source.close()
    return None


def _in_memory(
    volume: Array | Volume | PathLike,
    interpolation: Interpolation,
    layout: str,
    keep: bool,
    threads: int | None,
) -> Array | Volume:
    source = read(volume) if isinstance(volume, (str, os.PathLike)) else volume
    whole = source if isinstance(source, Volume) else Volume(np.asarray(source))
    if whole.data.ndim not in (3, 4):
        raise ValueError(f"volume must have 3 or 4 axes, got shape {whole.data.shape}")
    if whole.header is not None and whole.data.ndim == 4 and layout != "NDHWC":
        raise ValueError('data_format of a NIfTI volume must be "NDHWC", got "NCDHW"')
    first = whole.data.ndim == 4 and layout == "NCDHW"
    data = np.moveaxis(whole.data, 0, -1) if first else whole.data
    result = _upsampled(data, interpolation, keep, first, threads)
    return _place(result, source, interpolation) if isinstance(source, Volume) else result


def parse_interpolation(factor: Any, kernel: Any) -> Interpolation:
    """The interpolation that the arguments name."""
    if not isinstance(kernel, str) or kernel not in LINES:
        raise ValueError(f"kernel must be {', '.join(LINES)}, got {kernel!r}")
    return Interpolation(kernel, parse_per_axis("factor", factor, "NDHWC"))


def result_dtype(
    dtype: np.dtype[Any], interpolation: Interpolation, *, keep: bool
) -> np.dtype[Any]:
    """The dtype of the result of a volume of `dtype`, which must be real numbers or bools."""
    native = dtype.newbyteorder("=")
    if native.kind in "biu":
        return native if keep else interpolation.computed_in(native)
    return parse_dtype("volume", native)


def _upsampled(
    data: Array, interpolation: Interpolation, keep: bool, first: bool, threads: int | None
) -> Array:
    """The result of ``[D, H, W]`` or ``[D, H, W, C]``; with `first`, its channels come first."""
    dtype = result_dtype(data.dtype, interpolation, keep=keep)
    size, channels = data.shape[:3], data.shape[3:]
    sizes = tuple(n * f for n, f in zip(size, interpolation.factors, strict=True))
    result = empty_output((*channels, *sizes) if first else (*sizes, *channels), dtype)
    if not result.size:
        return result
    x = data if channels else data[..., None]
    y = np.moveaxis(result, 0, -1) if first else result if channels else result[..., None]
    wide = interpolation.computed_in(data.dtype.newbyteorder("="))
    for outputs in _blocks(sizes, interpolation.factors, x.shape[3] * wide.itemsize):
        block = x[tuple(slice(*span) for span in interpolation.reads(outputs, size))]
        place = y[tuple(slice(*span) for span in outputs)]
        interpolation.fill(place, block, outputs, size, threads=threads)
    return result


def _blocks(sizes: Sequence[int], factors: Sequence[int], voxel: int) -> Iterator[Spans]:
    """Blocks of about `_BLOCK` bytes: whole planes, or whole rows where a plane is larger."""
    depth, height, width = sizes
    lines = max(_BLOCK // (width * voxel), 1)
    rows = min(_whole(lines, factors[1]), height)
    planes = min(_whole(lines // rows, factors[0]), depth)
    for z in range(0, depth, planes):
        for y in range(0, height, rows):
            yield (z, min(z + planes, depth)), (y, min(y + rows, height)), (0, width)


def _whole(count: int, factor: int) -> int:
    """`count` rounded down to a multiple of `factor`, which is the least."""
    return max(count // factor, 1) * factor


def _place(data: Array, source: Volume, interpolation: Interpolation) -> Volume:
    """The result as a `Volume` that lies where ``source`` lies."""
    step = to_input(interpolation)
    affine = result_affine(source.affine, step)
    if source.header is None:
        return Volume(data, affine)
    from convt.volumes import nifti  # nibabel is there: the header came from it

    return Volume(data, affine, nifti.carry_header(source.header, step, data.ndim))
