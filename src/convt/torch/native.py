"""The three operations by PyTorch's own kernels, for devices that convt has no code for.

The result is TensorFlow's on every device: padding that the framework's kernels lack is cropped or
added here. Constraints of this file: arguments are valid, and filters are ``[depth, height, width,
out_channels, in_channels / groups]`` in all three operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional

from convt.torch.geometry import Geometry

__all__ = ["conv3d", "conv3d_transpose", "filter_gradient", "forced", "native_kernels"]

_forced: ContextVar[bool] = ContextVar("native_kernels", default=False)


@contextmanager
def native_kernels() -> Iterator[None]:
    """Compute by PyTorch's own kernels on the CPU too, as on other devices, inside the block.

    It is meant for tests and comparisons; `threads` and `algorithm` have no effect inside.

    Examples
    --------
    >>> import convt
    >>> x, w = torch.ones(1, 2, 2, 2, 3), torch.ones(3, 3, 3, 4, 3)
    >>> with native_kernels():
    ...     y = convt.conv3d_transpose(x, w, [1, 4, 4, 4, 4], strides=2)
    >>> torch.equal(y, convt.conv3d_transpose(x, w, [1, 4, 4, 4, 4], strides=2))
    True
    """
    token = _forced.set(True)
    try:
        yield
    finally:
        _forced.reset(token)


def forced() -> bool:
    """Whether the block of `native_kernels` is being run."""
    return _forced.get()


@dataclass(frozen=True, slots=True)
class _Axis:
    """What the transposed convolution does on one axis."""

    input: int  # voxels
    output: int  # voxels
    kernel: int  # taps
    stride: int
    dilation: int
    before: int = 0  # voxels that the forward convolution pads before the output

    @property
    def after(self) -> int:
        """Voxels that it pads behind; negative where it leaves out the last ones."""
        full = (self.input - 1) * self.stride + (self.kernel - 1) * self.dilation + 1
        return full - self.output - self.before


def conv3d_transpose(
    x: Any, w: Any, bias: Any, output_shape: Sequence[int], geometry: Geometry
) -> Any:
    """Compute the transposed convolution: crop at both ends, and beyond the last tap only bias."""
    if not (x.numel() and w.numel() and all(output_shape)):
        y = x.new_zeros(tuple(output_shape))
        return y if bias is None else y + _per_channel(bias, geometry)
    x = _channels_first(x, geometry)
    axes = _axes(geometry, x.shape[2:], output_shape[geometry.first :][:3], w.shape[:3])
    crop = [max(min(axis.before, axis.after), 0) for axis in axes]
    y = functional.conv_transpose3d(
        x,
        _weight(w, geometry.groups),
        stride=tuple(geometry.strides),
        padding=tuple(crop),
        groups=geometry.groups,
        dilation=tuple(geometry.dilations),
    )
    for number, axis in enumerate(axes, start=2):
        start = min(axis.before - crop[number - 2], y.shape[number])
        y = y.narrow(number, start, min(axis.output, y.shape[number] - start))
    missing = [axis.output - size for axis, size in zip(axes, y.shape[2:], strict=True)]
    if any(missing):
        y = functional.pad(y, [n for more in reversed(missing) for n in (0, more)])
    y = _as_asked(y, geometry)
    return y if bias is None else y + _per_channel(bias, geometry)


def conv3d(g: Any, w: Any, bias: Any, input_shape: Sequence[int], geometry: Geometry) -> Any:
    """Compute the convolution whose result has `input_shape`."""
    if not (g.numel() and w.numel() and all(input_shape)):
        x = g.new_zeros(tuple(input_shape))
        return x if bias is None else x + _per_channel(bias, geometry)
    g = _channels_first(g, geometry)
    axes = _axes(geometry, input_shape[geometry.first :][:3], g.shape[2:], w.shape[:3])
    x = functional.conv3d(
        _padded(g, axes),
        _weight(w, geometry.groups),
        bias,
        stride=tuple(geometry.strides),
        dilation=tuple(geometry.dilations),
        groups=geometry.groups,
    )
    return _as_asked(x, geometry)


def filter_gradient(x: Any, g: Any, filters_shape: Sequence[int], geometry: Geometry) -> Any:
    """Compute the gradient in the filters."""
    if not (x.numel() and g.numel() and all(filters_shape)):
        return x.new_zeros(tuple(filters_shape))
    x, g = _channels_first(x, geometry), _channels_first(g, geometry)
    *kernel, out, into = filters_shape
    axes = _axes(geometry, x.shape[2:], g.shape[2:], kernel)
    found = torch.nn.grad.conv3d_weight(
        _padded(g, axes),
        (x.shape[1], out // geometry.groups, *kernel),
        x,
        stride=tuple(geometry.strides),
        dilation=tuple(geometry.dilations),
        groups=geometry.groups,
    )
    split = found.unflatten(0, (geometry.groups, into)).permute(3, 4, 5, 0, 2, 1)
    return split.flatten(3, 4).contiguous()


def _axes(
    geometry: Geometry,
    input_size: Sequence[int],
    output_size: Sequence[int],
    kernel: Sequence[int],
) -> list[_Axis]:
    sizes = zip(input_size, output_size, kernel, geometry.strides, geometry.dilations, strict=True)
    axes = [_Axis(*axis) for axis in sizes]
    if geometry.padding == "SAME":
        return [replace(axis, before=max(axis.after, 0) // 2) for axis in axes]
    before = geometry.pads[::2] or (0, 0, 0)
    return [replace(axis, before=pad) for axis, pad in zip(axes, before, strict=True)]


def _padded(g: Any, axes: list[_Axis]) -> Any:
    """The transposed convolution's output, as the forward convolution pads or crops it."""
    return functional.pad(g, [n for axis in reversed(axes) for n in (axis.before, axis.after)])


def _weight(w: Any, groups: int) -> Any:
    """Filters as PyTorch has them: ``[in_channels, out_channels / groups, depth, height, width]``."""
    split = w.unflatten(3, (groups, w.shape[3] // groups))
    return split.permute(3, 5, 4, 0, 1, 2).flatten(0, 1)


def _channels_first(tensor: Any, geometry: Geometry) -> Any:
    return tensor if geometry.channel == 1 else tensor.permute(0, 4, 1, 2, 3)


def _as_asked(tensor: Any, geometry: Geometry) -> Any:
    return tensor if geometry.channel == 1 else tensor.permute(0, 2, 3, 4, 1)


def _per_channel(bias: Any, geometry: Geometry) -> Any:
    return bias.view(-1, 1, 1, 1) if geometry.channel == 1 else bias
