"""The transposed convolution of a volume: channels, filters and place in the world around one call.

The work itself is `convt.conv3d_transpose`; this module only turns volumes of three or four axes
into its five and back. Voxels that are not floating point are computed, and returned, in float32.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

import convt
from convt.arguments import parse_data_format, parse_dtype, parse_per_axis
from convt.spec import Spec, make_spec
from convt.volumes.affine import index_map, result_affine
from convt.volumes.files import BFLOAT16, Volume, read, read_array
from convt.volumes.kernels import INTERPOLATIONS, per_channel

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
    threads: int | None = ...,
) -> Volume: ...
def apply(
    volume: NDArray[Any] | Volume | PathLike,
    filters: PathLike | NDArray[Any],
    strides: Ints,
    padding: str | Sequence[tuple[int, int]] = "SAME",
    output_shape: Sequence[int | None] | None = None,
    data_format: str | None = "NDHWC",
    dilations: Ints | None = None,
    *,
    bias: PathLike | NDArray[Any] | None = None,
    groups: int = 1,
    threads: int | None = None,
) -> NDArray[Any] | Volume:
    """Transposed convolution of a volume, such as upsampling it by whole factors.

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

    Returns
    -------
    array or Volume
        An array for an array, else a `Volume` whose affine and header keep every structure where
        it was in the world. Axes as in ``volume``; three axes become four when there is more than
        one output channel.

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
    source = read(volume) if isinstance(volume, (str, os.PathLike)) else volume
    whole = source if isinstance(source, Volume) else Volume(np.asarray(source))
    layout = parse_data_format(data_format)
    if whole.header is not None and whole.data.ndim == 4 and layout != "NDHWC":
        raise ValueError('data_format of a NIfTI volume must be "NDHWC", got "NCDHW"')
    x = _five_axes(whole.data, layout)
    dtype = parse_dtype("volume", x.dtype)
    factors = parse_per_axis("strides", strides, layout)
    w = _kernel(filters, factors).astype(dtype, copy=False)
    if w.ndim == 3:
        groups = x.shape[1 if layout == "NCDHW" else 4]
        w = per_channel(w, groups, dtype)
    b = None if bias is None else _array("bias", bias).astype(dtype, copy=False)
    sizes = _five_sizes(output_shape, layout)
    y = convt.conv3d_transpose(
        x, w, sizes, strides, padding, layout, dilations, bias=b, groups=groups, threads=threads
    )
    data = _as_volume(y, whole.data.ndim, layout)
    if not isinstance(source, Volume):
        return data
    problem = make_spec(
        input_shape=x.shape,
        input_dtype=dtype,
        filters_shape=w.shape,
        filters_dtype=dtype,
        output_shape=y.shape,
        strides=strides,
        padding=padding,
        data_format=layout,
        dilations=dilations,
        groups=groups,
    )
    return _place(data, source, problem)


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
