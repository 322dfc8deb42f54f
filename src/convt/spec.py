"""Raw arguments -> one frozen `Spec`. Every error in an argument is raised here or in `arguments`.

Constraints of this file: it sees shapes and dtypes, never an array's memory, and raises before any
memory is touched. A `Spec` holds plain Python ints, small enough that each index, extent and byte
count that follows from them fits a signed 64-bit integer. `make_spec` runs on every call and takes
a few microseconds for a problem it has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from convt.arguments import (
    CONVOLUTION_FILTERS_LAYOUT,
    FILTERS_LAYOUT,
    INT64_MAX,
    LAYOUTS,
    Padding,
    Pair,
    Triple,
    parse_data_format,
    parse_dtype,
    parse_integer,
    parse_integers,
    parse_output_shape,
    parse_padding,
    parse_per_axis,
    parse_shape,
)

__all__ = [
    "AxisPadding",
    "Padding",
    "Spec",
    "Triple",
    "adjoint",
    "make_convolution_spec",
    "make_gradient_spec",
    "make_spec",
    "size_range",
]

AxisPadding: TypeAlias = Literal["SAME", "VALID"] | Pair

_AXES = ("depth", "height", "width")


@dataclass(frozen=True, slots=True)
class Spec:
    """One problem, valid by construction when `make_spec` made it; plain Python ints only."""

    batch: int
    in_channels: int  # all groups together
    out_channels: int  # all groups together
    groups: int
    input_size: Triple  # voxels: depth, height, width
    kernel: Triple  # taps per axis
    output_size: Triple  # voxels: depth, height, width
    strides: (
        Triple  # output voxels from one input voxel to the next; `forward`: the other way round
    )
    dilations: Triple  # output voxels from one tap to the next; `forward`: input voxels
    pad_before: Triple  # voxels that the forward convolution pads before each axis
    padding: Padding  # as given
    data_format: str  # "NDHWC" or "NCDHW"
    dtype: np.dtype[Any]  # native byte order: float16, bfloat16, float32 or float64
    bias: bool
    forward: bool = False  # a convolution: the adjoint of the transposed one

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The input's five sizes, in the order of `data_format`."""
        return self._shape(self.input_size, self.in_channels)

    @property
    def filters_shape(self) -> tuple[int, ...]:
        """The filters' five sizes: depth, height, width, out_channels, in_channels / groups."""
        return (*self.kernel, self.out_channels, self.in_channels // self.groups)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The output's five sizes, in the order of `data_format`."""
        return self._shape(self.output_size, self.out_channels)

    def _shape(self, size: Triple, channels: int) -> tuple[int, ...]:
        if self.data_format == "NDHWC":
            return (self.batch, *size, channels)
        return (self.batch, channels, *size)


def make_spec(
    *,
    input_shape: Any,
    input_dtype: Any,
    filters_shape: Any,
    filters_dtype: Any,
    output_shape: Any,
    strides: Any,
    padding: Any,
    data_format: Any,
    dilations: Any,
    bias_shape: Any = None,
    bias_dtype: Any = None,
    groups: Any = 1,
) -> Spec:
    """Check the arguments of `convt.conv3d_transpose` and return the problem that they pose.

    Parameters
    ----------
    input_shape, filters_shape, bias_shape : sequence of int
        The arrays' shapes; `bias_shape` is None where there is no bias.
    input_dtype, filters_dtype, bias_dtype : dtype
        The arrays' dtypes, equal but for the byte order.
    output_shape, strides, padding, data_format, dilations, groups
        As the user gave them.

    Raises
    ------
    TypeError
        A value of the wrong kind: a bool or a float for an integer, a dtype that is not served.
    ValueError
        A value out of range, or values that contradict each other.

    Examples
    --------
    >>> spec = make_spec(
    ...     input_shape=(1, 4, 4, 4, 8), input_dtype="float32",
    ...     filters_shape=(3, 3, 3, 16, 8), filters_dtype="float32",
    ...     output_shape=(1, 7, 8, 8, 16), strides=2, padding="SAME",
    ...     data_format=None, dilations=None)
    >>> spec.output_size, spec.pad_before
    ((7, 8, 8), (1, 0, 0))
    """
    data_format = parse_data_format(data_format)
    dtype = parse_dtype("input", input_dtype)
    parse_dtype("filters", filters_dtype, like=dtype)
    bias = None
    if bias_shape is not None:
        parse_dtype("bias", bias_dtype, like=dtype)
        bias = parse_integers("bias.shape", bias_shape, 0, "1 integer")
    return _solve(
        parse_shape("input", input_shape, LAYOUTS[data_format]),
        parse_shape("filters", filters_shape, FILTERS_LAYOUT),
        parse_output_shape(output_shape, data_format),
        parse_per_axis("strides", strides, data_format),
        parse_per_axis("dilations", dilations, data_format),
        parse_padding(padding),
        data_format,
        dtype,
        bias,
        parse_integer("groups", groups, 1),
        "output_shape",
    )


def make_gradient_spec(
    *,
    input_shape: Any,
    input_dtype: Any,
    gradient_shape: Any,
    gradient_dtype: Any,
    filters_shape: Any,
    strides: Any,
    padding: Any,
    data_format: Any,
    dilations: Any,
    groups: Any = 1,
) -> Spec:
    """Check the arguments of a gradient in the filters and return the transposed convolution's problem.

    `gradient_shape` and `gradient_dtype` are those of the gradient in the output; other parameters and
    errors as for `make_spec`.
    """
    data_format = parse_data_format(data_format)
    dtype = parse_dtype("input", input_dtype)
    parse_dtype("output_gradient", gradient_dtype, like=dtype)
    return _solve(
        parse_shape("input", input_shape, LAYOUTS[data_format]),
        parse_shape("filters", filters_shape, FILTERS_LAYOUT),
        parse_shape("output_gradient", gradient_shape, LAYOUTS[data_format]),
        parse_per_axis("strides", strides, data_format),
        parse_per_axis("dilations", dilations, data_format),
        parse_padding(padding),
        data_format,
        dtype,
        None,
        parse_integer("groups", groups, 1),
        "output_gradient.shape",
    )


def make_convolution_spec(
    *,
    input_shape: Any,
    input_dtype: Any,
    filters_shape: Any,
    filters_dtype: Any,
    strides: Any,
    padding: Any,
    data_format: Any,
    dilations: Any,
    bias_shape: Any = None,
    bias_dtype: Any = None,
    groups: Any = 1,
) -> Spec:
    """Check the arguments of `convt.conv3d` and return the problem that they pose, which is `forward`.

    Parameters and errors as for `make_spec`, but filters are ``[depth, height, width, in_channels / groups,
    out_channels]`` and the output's size follows.

    Examples
    --------
    >>> spec = make_convolution_spec(
    ...     input_shape=(1, 7, 8, 8, 16), input_dtype="float32",
    ...     filters_shape=(3, 3, 3, 16, 8), filters_dtype="float32",
    ...     strides=2, padding="SAME", data_format=None, dilations=None)
    >>> spec.output_shape, spec.pad_before
    ((1, 4, 4, 4, 8), (1, 0, 0))
    """
    data_format = parse_data_format(data_format)
    dtype = parse_dtype("input", input_dtype)
    parse_dtype("filters", filters_dtype, like=dtype)
    bias = None
    if bias_shape is not None:
        parse_dtype("bias", bias_dtype, like=dtype)
        bias = parse_integers("bias.shape", bias_shape, 0, "1 integer")
    return _solve_convolution(
        parse_shape("input", input_shape, LAYOUTS[data_format]),
        parse_shape("filters", filters_shape, CONVOLUTION_FILTERS_LAYOUT),
        parse_per_axis("strides", strides, data_format),
        parse_per_axis("dilations", dilations, data_format),
        parse_padding(padding),
        data_format,
        dtype,
        bias,
        parse_integer("groups", groups, 1),
    )


def adjoint(spec: Spec) -> Spec:
    """The problem in the other direction: the convolution of a transposed one, or the other way round."""
    return replace(
        spec,
        in_channels=spec.out_channels,
        out_channels=spec.in_channels,
        input_size=spec.output_size,
        output_size=spec.input_size,
        bias=False,
        forward=not spec.forward,
    )


@lru_cache(maxsize=1024)
def _solve_convolution(
    input_shape: tuple[int, ...],
    filters_shape: tuple[int, ...],
    strides: Triple,
    dilations: Triple,
    padding: Padding,
    data_format: str,
    dtype: np.dtype[Any],
    bias: tuple[int, ...] | None,
    groups: int,
) -> Spec:
    """Pose the transposed convolution whose adjoint is asked for, and turn it round."""
    first, channel = (1, 4) if data_format == "NDHWC" else (2, 1)
    in_channels, out_channels = input_shape[channel], filters_shape[4]
    _check_taps(filters_shape)
    _check_groups(groups, ("input's", in_channels), ("filters' output", out_channels))
    if filters_shape[3] * groups != in_channels:
        share = f"{in_channels} / {groups} groups = " if groups > 1 else ""
        swapped = "; are the last two axes swapped?" if out_channels == in_channels else ""
        raise ValueError(
            f"filters.shape[3] = {filters_shape[3]} must be the input's channels, "
            f"{share}{in_channels // groups}; filters are {CONVOLUTION_FILTERS_LAYOUT}{swapped}"
        )
    _check_bias(bias, out_channels)
    pads = (padding,) * 3 if isinstance(padding, str) else padding
    found, before = [], []
    kernel = filters_shape[:3]
    for i, size in enumerate(input_shape[first : first + 3]):
        axis = _Axis(0, kernel[i], strides[i], dilations[i], pads[i])
        if size + axis.reach() + axis.pads() > INT64_MAX:
            raise ValueError(
                f"input {_AXES[i]} {size} with kernel {kernel[i]}, dilation {dilations[i]}, padding "
                f"{pads[i]} spans more voxels than a signed 64-bit integer counts"
            )
        axis = axis._replace(size=axis.convolved(size))
        if axis.size < 0:
            raise ValueError(
                f"input.shape[{first + i}] = {size} ({_AXES[i]}) is less than the kernel spans: "
                f"{kernel[i]} taps with dilation {dilations[i]} and padding {pads[i]} need at least "
                f"{axis.least()}"
            )
        found.append(axis.size)
        before.append(axis.pad_before(size))
    spec = Spec(
        batch=input_shape[0],
        in_channels=in_channels,
        out_channels=out_channels,
        groups=groups,
        input_size=_triple(input_shape[first : first + 3]),
        kernel=_triple(kernel),
        output_size=_triple(found),
        strides=strides,
        dilations=dilations,
        pad_before=_triple(before),
        padding=padding,
        data_format=data_format,
        dtype=dtype,
        bias=bias is not None,
        forward=True,
    )
    for name in ("input", "filters", "output"):
        _check_bytes(name, getattr(spec, f"{name}_shape"), dtype)
    return spec


@lru_cache(maxsize=1024)  # a network repeats its few problems
def _solve(
    input_shape: tuple[int, ...],
    filters_shape: tuple[int, ...],
    asked: tuple[int, ...],
    strides: Triple,
    dilations: Triple,
    padding: Padding,
    data_format: str,
    dtype: np.dtype[Any],
    bias: tuple[int, ...] | None,
    groups: int,
    asked_name: str,
) -> Spec:
    """Check arguments, each well formed by itself, against each other and infer what is left."""
    first, channel = (1, 4) if data_format == "NDHWC" else (2, 1)
    batch, in_channels, out_channels = input_shape[0], input_shape[channel], filters_shape[3]
    _check_filters(filters_shape, in_channels, groups)
    _check_bias(bias, out_channels)
    _check_entry(asked_name, asked, 0, "batch", batch, "input's batch")
    _check_entry(asked_name, asked, channel, "channels", out_channels, "filters' out_channels")
    pads = (padding,) * 3 if isinstance(padding, str) else padding
    size, kernel = input_shape[first : first + 3], filters_shape[:3]
    axes = [_Axis(*axis) for axis in zip(size, kernel, strides, dilations, pads, strict=True)]
    output_size = [_output_size(axis, i, first, asked, asked_name) for i, axis in enumerate(axes)]
    before = [axis.pad_before(out) for axis, out in zip(axes, output_size, strict=True)]
    spec = Spec(
        batch=batch,
        in_channels=in_channels,
        out_channels=out_channels,
        groups=groups,
        input_size=_triple(size),
        kernel=_triple(kernel),
        output_size=_triple(output_size),
        strides=strides,
        dilations=dilations,
        pad_before=_triple(before),
        padding=padding,
        data_format=data_format,
        dtype=dtype,
        bias=bias is not None,
    )
    for name in ("input", "filters", "output"):
        _check_bytes(name, getattr(spec, f"{name}_shape"), dtype)
    return spec


def _triple(values: Sequence[int]) -> Triple:
    d, h, w = values
    return d, h, w


def size_range(
    *, size: int, kernel: int, stride: int, dilation: int, padding: AxisPadding
) -> tuple[int, int]:
    """Return the smallest and the largest output that an axis of `size` input voxels may have.

    They are the sizes that the forward convolution maps back to `size`. Where the padding crops
    more than there is, none is allowed, and the largest is below the smallest.

    Examples
    --------
    >>> size_range(size=4, kernel=3, stride=2, dilation=1, padding="SAME")
    (7, 8)
    >>> size_range(size=4, kernel=3, stride=2, dilation=1, padding="VALID")
    (9, 10)
    """
    return _Axis(size, kernel, stride, dilation, padding).allowed()


class _Axis(NamedTuple):
    """One axis before its output size is known."""

    size: int  # input voxels
    kernel: int  # taps
    stride: int
    dilation: int
    padding: AxisPadding

    def full(self) -> int:
        """Output voxels that the taps reach before anything is cropped; for no input, formally."""
        return (self.size - 1) * self.stride + (self.kernel - 1) * self.dilation + 1

    def inferred(self) -> int:
        """The size of an output left to us; negative where the padding crops more than `full`."""
        if self.padding == "SAME":
            return self.size * self.stride
        return self.full() - self.pads()

    def allowed(self) -> tuple[int, int]:
        """The smallest and the largest output that the forward convolution maps to `size`."""
        high = self.inferred() + (0 if self.padding == "SAME" else self.stride - 1)
        return max(high - self.stride + 1, 0), high

    def reach(self) -> int:
        """Voxels from the kernel's first tap to its last."""
        return (self.kernel - 1) * self.dilation + 1

    def convolved(self, out: int) -> int:
        """The input size that the forward convolution maps `out` to; negative where it can't."""
        if self.padding == "SAME":
            return -(-out // self.stride)
        return (out + self.pads() - self.reach() + self.stride) // self.stride

    def pads(self) -> int:
        """Voxels of padding as asked for, on both sides."""
        return 0 if isinstance(self.padding, str) else sum(self.padding)

    def least(self) -> int:
        """The smallest input of a convolution that has an output."""
        return max(self.reach() - self.pads(), 0)

    def pad_before(self, out: int) -> int:
        """Voxels that the forward convolution pads before an axis of `out` voxels."""
        if self.padding == "SAME":
            return max(self.full() - out, 0) // 2
        return 0 if self.padding == "VALID" else self.padding[0]

    def __str__(self) -> str:
        return (
            f"{self.size} with stride {self.stride}, kernel {self.kernel}, "
            f"dilation {self.dilation}, padding {self.padding}"
        )


def _output_size(
    axis: _Axis, index: int, first: int, shape: tuple[int, ...], shape_name: str
) -> int:
    """Return the size asked for in `shape` if it is allowed, or the inferred one for -1."""
    asked = shape[first + index]
    if axis.size * axis.stride + (axis.kernel - 1) * axis.dilation > INT64_MAX:
        raise ValueError(
            f"input {_AXES[index]} {axis} spans more voxels than a signed 64-bit integer counts"
        )
    low, high = axis.allowed()
    if low <= asked <= high:
        return asked
    inferred = axis.inferred()
    # An empty axis has nothing to crop, so the smallest allowed size is no surprise there.
    if asked == -1 and (inferred >= 0 or (axis.size == 0 and high >= 0)):
        return max(inferred, 0)
    name = _AXES[index]
    what = f"{asked} ({name})" if asked >= 0 else f"{inferred} ({name}, inferred)"
    allowed = "none" if high < low else f"only {low}" if high == low else f"{low} to {high}"
    raise ValueError(
        f"{shape_name}[{first + index}] = {what} can't come from input {name} {axis}: "
        f"allowed {allowed}"
    )


def _check_taps(shape: tuple[int, ...]) -> None:
    if 0 in shape[:3]:
        axis = shape.index(0)
        raise ValueError(
            f"filters.shape[{axis}] = 0 ({_AXES[axis]}): a kernel needs at least 1 tap per axis"
        )


def _check_groups(groups: int, *sides: tuple[str, int]) -> None:
    for source, channels in sides:
        if channels % groups:
            raise ValueError(f"groups = {groups} must divide the {source} channels, {channels}")


def _check_bias(shape: tuple[int, ...] | None, out_channels: int) -> None:
    if shape not in (None, (out_channels,)):
        raise ValueError(
            f"bias.shape = {shape} must be ({out_channels},), one value per output channel"
        )


def _check_filters(shape: tuple[int, ...], in_channels: int, groups: int) -> None:
    _check_taps(shape)
    _check_groups(groups, ("input's", in_channels), ("filters' output", shape[3]))
    if shape[4] * groups != in_channels:
        share = f"{in_channels} / {groups} groups = " if groups > 1 else ""
        swapped = "; are the last two axes swapped?" if shape[3] == in_channels else ""
        raise ValueError(
            f"filters.shape[4] = {shape[4]} must be the input's channels, "
            f"{share}{in_channels // groups}; filters are {FILTERS_LAYOUT}{swapped}"
        )


def _check_entry(
    shape_name: str, shape: tuple[int, ...], position: int, role: str, expected: int, source: str
) -> None:
    if shape[position] not in (-1, expected):
        raise ValueError(
            f"{shape_name}[{position}] = {shape[position]} ({role}) "
            f"must be the {source}, {expected}"
        )


def _check_bytes(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    # NumPy, too, counts an empty axis as 1 here: strides are computed from the other sizes.
    if (prod(shape) or prod(size or 1 for size in shape)) * dtype.itemsize > INT64_MAX:
        raise ValueError(
            f"{name} of shape {shape} and dtype {dtype} takes more bytes than "
            "a signed 64-bit integer counts"
        )
