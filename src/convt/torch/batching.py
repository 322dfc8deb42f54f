"""How the operations are vectorised: one call for all, without a loop.

Where filters are shared, what is mapped over folds into the batch. Otherwise it folds into the channels:
into those of one factor if the other is shared, else into those of both, as groups.

Constraint of this file: `call` is the operation itself, in whichever form is being vectorised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from convt.torch.geometry import Geometry

__all__ = ["convolve", "filter_gradient", "transpose"]

Call = Callable[..., Any]
Mapped = tuple[Any, int]  # a result, and its axis that is mapped over

_OUT, _IN = 3, 4  # axes of filters


def transpose(
    call: Call, info: Any, dims: Any, x: Any, w: Any, bias: Any, shape: Any, *rest: Any
) -> Mapped:
    """The transposed convolution; `info`, `dims` and what is returned as `torch.vmap` has them."""
    (x_dim, w_dim, bias_dim), n, geometry = dims[:3], info.batch_size, Geometry(*rest[:-2])
    if w_dim is None:
        return _shared(call, n, (x, x_dim), w, (bias, bias_dim), shape, rest)
    channel = geometry.channel
    if x_dim is not None or geometry.groups > 1:
        x, rest = _fold(x, x_dim, channel, n), _grouped(rest, n)
    w, bias = _fold(w, w_dim, _OUT, n), _fold(bias, bias_dim, 0, n)
    y = call(x, w, bias, _times(shape, channel, n), *rest)
    return y.unflatten(channel, (n, shape[channel])), channel


def convolve(
    call: Call, info: Any, dims: Any, y: Any, w: Any, bias: Any, shape: Any, *rest: Any
) -> Mapped:
    """The convolution."""
    (y_dim, w_dim, bias_dim), n, geometry = dims[:3], info.batch_size, Geometry(*rest[:-2])
    if w_dim is None:
        return _shared(call, n, (y, y_dim), w, (bias, bias_dim), shape, rest)
    channel, axis = geometry.channel, _IN
    if y_dim is not None or geometry.groups > 1:
        y, rest, axis = _fold(y, y_dim, channel, n), _grouped(rest, n), _OUT
    w, bias = _fold(w, w_dim, axis, n), _fold(bias, bias_dim, 0, n)
    x = call(y, w, bias, _times(shape, channel, n), *rest)
    return x.unflatten(channel, (n, shape[channel])), channel


def filter_gradient(
    call: Call, info: Any, dims: Any, x: Any, y: Any, shape: Any, *rest: Any
) -> Mapped:
    """The gradient in the filters."""
    (x_dim, y_dim), n, geometry = dims[:2], info.batch_size, Geometry(*rest[:-2])
    both = geometry.groups > 1 or (x_dim is not None and y_dim is not None)
    axis = _OUT if both or x_dim is None else _IN
    if both:
        rest = _grouped(rest, n)
    if both or x_dim is not None:
        x = _fold(x, x_dim, geometry.channel, n)
    if both or y_dim is not None:
        y = _fold(y, y_dim, geometry.channel, n)
    w = call(x, y, _times(shape, axis, n), *rest)
    return w.unflatten(axis, (n, shape[axis])), axis


def _shared(
    call: Call,
    count: int,
    mapped: tuple[Any, int | None],
    w: Any,
    bias: tuple[Any, int | None],
    shape: Any,
    rest: tuple[Any, ...],
) -> Mapped:
    """With filters that are not mapped over: all in one batch, and a mapped bias added behind."""
    values, bias_dim = bias
    x, dim = mapped
    own = None
    if bias_dim is not None:
        own, values = _per_channel(values, bias_dim, Geometry(*rest[:-2])), None
    if dim is None:
        y = call(x, w, values, shape, *rest).unsqueeze(0)
    else:
        y = call(_fold(x, dim, 0, count), w, values, _times(shape, 0, count), *rest)
        y = y.unflatten(0, (count, shape[0]))
    return (y if own is None else y + own), 0


def _fold(tensor: Any, dim: int | None, axis: int, count: int) -> Any:
    """Put the mapped dimension into `axis`, as its slower part; repeat what has none."""
    if tensor is None:
        return None
    mapped = tensor.expand(count, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return mapped.movedim(0, axis).flatten(axis, axis + 1)


def _per_channel(bias: Any, dim: int, geometry: Geometry) -> Any:
    bias = bias.movedim(dim, 0)
    n, channels = bias.shape
    size = (channels, 1, 1, 1) if geometry.channel == 1 else (1, 1, 1, channels)
    return bias.reshape(n, 1, *size)


def _times(shape: Sequence[Any], axis: int, count: int) -> list[Any]:
    return [size * count if i == axis else size for i, size in enumerate(shape)]


def _grouped(rest: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    """The arguments behind the shape, with `count` times the groups."""
    geometry = Geometry(*rest[:-2])
    return (*geometry._replace(groups=geometry.groups * count), *rest[-2:])
