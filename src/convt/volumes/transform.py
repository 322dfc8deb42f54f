"""The transposed convolution of a volume: channels, filters and place in the world around one call.

The work itself is `convt.conv3d_transpose`; this module only turns volumes of three or four axes
into its five and back. Voxels that are not floating point are computed, and returned, in float32.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

import convt
from convt.arguments import parse_data_format, parse_dtype, parse_per_axis
from convt.blocks import Blocks
from convt.spec import Spec, make_spec
from convt.volumes.affine import index_map, result_affine
from convt.volumes.files import BFLOAT16, Volume, read, read_array
from convt.volumes.kernels import INTERPOLATIONS, per_channel
from convt.volumes.regions import Five
from convt.volumes.stores import open_source, round_to
from convt.volumes.stream import Progress
from convt.volumes.streamed import stream_transposed

__all__ = ["apply"]

PathLike = str | os.PathLike[str]
Ints = int | Sequence[int]


@overload
def apply(
    volume: NDArray[Any],
    filters: PathLike | NDArray[Any],
    strides: Ints,
    padding: str | Sequence[tuple[int, int]] = ...,
    output_shape: Sequence[int | None] | None = ...,
    data_format: str | None = ...,
    dilations: Ints | None = ...,
    *,
    bias: PathLike | NDArray[Any] | None = ...,
    groups: int = ...,
    keep_dtype: bool = ...,
    threads: int | None = ...,
) -> NDArray[Any]: ...
@overload
def apply(
    volume: Volume | PathLike,
    filters: PathLike | NDArray[Any],
    strides: Ints,
    padding: str | Sequence[tuple[int, int]] = ...,
    output_shape: Sequence[int | None] | None = ...,
    data_format: str | None = ...,
    dilations: Ints | None = ...,
    *,
    bias: PathLike | NDArray[Any] | None = ...,
    groups: int = ...,
    keep_dtype: bool = ...,
    threads: int | None = ...,
) -> Volume: ...
@overload
def apply(
    volume: PathLike,
    filters: PathLike | NDArray[Any],
    strides: Ints,
    padding: str | Sequence[tuple[int, int]] = ...,
    output_shape: Sequence[int | None] | None = ...,
    data_format: str | None = ...,
    dilations: Ints | None = ...,
    *,
    output: PathLike,
    bias: PathLike | NDArray[Any] | None = ...,
    groups: int = ...,
    keep_dtype: bool = ...,
    threads: int | None = ...,
    memory: int | str | None = ...,
    scheduler: str | None = ...,
    resume: bool = ...,
    force: bool = ...,
    progress: Progress | None = ...,
) -> None: ...
def apply(
    volume: NDArray[Any] | Volume | PathLike,
    filters: PathLike | NDArray[Any],
    strides: Ints,
    padding: str | Sequence[tuple[int, int]] = "SAME",
    output_shape: Sequence[int | None] | None = None,
    data_format: str | None = "NDHWC",
    dilations: Ints | None = None,
    *,
    output: PathLike | None = None,
    bias: PathLike | NDArray[Any] | None = None,
    groups: int = 1,
    keep_dtype: bool = False,
    threads: int | None = None,
    memory: int | str | None = None,
    scheduler: str | None = None,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> NDArray[Any] | Volume | None:
    """Transposed convolution of a volume, such as upsampling it by whole factors.

    With `output` it is streamed from file to file, in pieces that fit the memory.

    Parameters
    ----------
    volume : array, Volume or path
        ``[D, H, W]`` (one channel), or ``[D, H, W, C]``; with ``data_format="NCDHW"``
        ``[C, D, H, W]``. Voxels that are not floating point are computed in float32.
    filters : array, path of a .npy file, "trilinear" or "nearest"
        ``[depth, height, width, out_channels, in_channels / groups]``; of three axes, one kernel
        applied to every channel on its own. The names are kernels whose factors are the strides.
        Converted to the volume's dtype.
    strides, padding, data_format, dilations, groups, threads
        As in `convt.conv3d_transpose`.
    output_shape : three or five ints, optional
        Depth, height and width of the result, or all five of `convt.conv3d_transpose`.
    bias : array or path of a .npy file, optional
        One value per output channel.
    keep_dtype : bool
        Round whole numbers back to the volume's dtype, ties to even, and clip them to its range.
    output : path, optional
        A file or folder to stream to, of a format of `convt.volumes.open_source`; `volume` is then a path
        of one. It appears when it is complete.
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
        structure where it was in the world. Axes as in ``volume``; three axes become four when there is
        more than one output channel.

    Raises
    ------
    VolumeError
        If a file is damaged.
    ValueError, TypeError
        As `convt.conv3d_transpose`, with the name of the argument.

    Examples
    --------
    >>> apply(np.ones((4, 5, 6), np.float32), "nearest", 2).shape
    (8, 10, 12)
    """
    call = _Call(filters, strides, padding, output_shape, data_format, dilations, bias, groups)
    if output is None:
        if resume or force or {memory, scheduler, progress} != {None}:
            raise ValueError("memory, scheduler, resume, force and progress go with output")
        return _in_memory(volume, call, keep_dtype, threads)
    if not isinstance(volume, (str, os.PathLike)):
        raise TypeError(f"with output, volume must be a path, got {type(volume).__name__}")
    source = open_source(volume, data_format)
    try:
        blocks = call.posed(source.shape, source.dtype)
        stream_transposed(
            source,
            output,
            blocks,
            keep_dtype=keep_dtype,
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


@dataclass(frozen=True)
class _Call:
    """What `apply` is asked for, but for the volume."""

    filters: PathLike | NDArray[Any]
    strides: Ints
    padding: str | Sequence[tuple[int, int]]
    output_shape: Sequence[int | None] | None
    data_format: str | None
    dilations: Ints | None
    bias: PathLike | NDArray[Any] | None
    groups: int

    def posed(self, shape: Five, stored: np.dtype[Any]) -> Blocks:
        """The problem for a volume of five axes, channels last."""
        layout = parse_data_format(self.data_format)
        n, d, h, w, c = shape
        dtype = np.dtype(np.float32) if stored.kind in "biu" else parse_dtype("volume", stored)
        kernel = _kernel(self.filters, parse_per_axis("strides", self.strides, layout))
        kernel, groups = kernel.astype(dtype, copy=False), self.groups
        if kernel.ndim == 3:
            kernel, groups = per_channel(kernel, c, dtype), c
        b = None if self.bias is None else _array("bias", self.bias).astype(dtype, copy=False)
        spec = make_spec(
            input_shape=(n, d, h, w, c) if layout == "NDHWC" else (n, c, d, h, w),
            input_dtype=dtype,
            filters_shape=kernel.shape,
            filters_dtype=dtype,
            output_shape=_five_sizes(self.output_shape, layout),
            strides=self.strides,
            padding=self.padding,
            data_format=layout,
            dilations=self.dilations,
            bias_shape=None if b is None else b.shape,
            bias_dtype=dtype,
            groups=groups,
        )
        return Blocks(spec, kernel, b)


def _in_memory(
    volume: NDArray[Any] | Volume | PathLike, call: _Call, keep_dtype: bool, threads: int | None
) -> NDArray[Any] | Volume:
    source = read(volume) if isinstance(volume, (str, os.PathLike)) else volume
    whole = source if isinstance(source, Volume) else Volume(np.asarray(source))
    layout = parse_data_format(call.data_format)
    if whole.header is not None and whole.data.ndim == 4 and layout != "NDHWC":
        raise ValueError('data_format of a NIfTI volume must be "NDHWC", got "NCDHW"')
    x = _five_axes(whole.data, layout)
    n, *rest = x.shape
    d, h, w, c = rest if layout == "NDHWC" else (*rest[1:], rest[0])
    blocks = call.posed((n, d, h, w, c), x.dtype)
    spec = blocks.spec
    y = convt.conv3d_transpose(
        x, blocks.filters, spec.output_shape, spec.strides, spec.padding, layout, spec.dilations,
        bias=blocks.bias, groups=spec.groups, threads=threads,
    )  # fmt: skip
    if keep_dtype:
        y = round_to(y, whole.data.dtype.newbyteorder("="))
    data = _as_volume(y, whole.data.ndim, layout)
    return _place(data, source, spec) if isinstance(source, Volume) else data


def _five_axes(data: NDArray[Any], layout: str) -> NDArray[Any]:
    """The volume with a batch axis and a channel axis, in a dtype that is computed."""
    if data.ndim not in (3, 4):
        raise ValueError(f"volume must have 3 or 4 axes, got shape {data.shape}")
    if data.dtype.kind in "biu":
        data = data.astype(np.float32)
    if data.ndim == 3:
        data = data[None] if layout == "NCDHW" else data[..., None]
    return data[None]


def _five_sizes(shape: Sequence[int | None] | None, layout: str) -> Sequence[int | None] | None:
    if shape is None or len(shape) != 3:
        return shape
    return (None, None, *shape) if layout == "NCDHW" else (None, *shape, None)


def _as_volume(result: NDArray[Any], ndim: int, layout: str) -> NDArray[Any]:
    """The result without its batch axis, and without a channel axis that nobody asked for."""
    data: NDArray[Any] = result[0]
    channel = 0 if layout == "NCDHW" else 3
    return data.squeeze(channel) if ndim == 3 and data.shape[channel] == 1 else data


def _kernel(filters: PathLike | NDArray[Any], factors: tuple[int, int, int]) -> NDArray[Any]:
    if isinstance(filters, str) and filters in INTERPOLATIONS:
        return INTERPOLATIONS[filters](factors)
    if isinstance(filters, str) and not Path(filters).suffix:
        names = ", ".join(INTERPOLATIONS)
        raise ValueError(f"filters must be an array, a .npy file or {names}, got {filters!r}")
    kernel = _array("filters", filters)
    if kernel.ndim not in (3, 5):
        layout = "[depth, height, width, out_channels, in_channels / groups]"
        raise ValueError(f"filters must have 5 axes {layout}, or 3 axes, got shape {kernel.shape}")
    return kernel


def _array(argument: str, value: PathLike | NDArray[Any]) -> NDArray[Any]:
    """``value``, or the array in the .npy file that it names; real numbers only."""
    label = argument
    if isinstance(value, (str, os.PathLike)):
        label = f"{argument} file {os.fspath(value)}"
        value = read_array(value)
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" and array.dtype != BFLOAT16:
        raise TypeError(f"{label}: must hold real numbers, got dtype {array.dtype}")
    return array


def _place(data: NDArray[Any], source: Volume, problem: Spec) -> Volume:
    """The result as a `Volume` that lies where ``source`` lies."""
    to_input = index_map(
        kernel=problem.kernel,
        strides=problem.strides,
        dilations=problem.dilations,
        pad_before=problem.pad_before,
    )
    affine = result_affine(source.affine, to_input)
    if source.header is None:
        return Volume(data, affine)
    from convt.volumes import nifti  # nibabel is there: the header came from it

    return Volume(data, affine, nifti.carry_header(source.header, to_input, data.ndim))
