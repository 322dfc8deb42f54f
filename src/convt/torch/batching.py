"""How the operators are vectorised: one call for all, without a loop.

Where filters are shared, what is mapped over folds into the batch. Otherwise it folds into the channels:
into those of one factor if the other is shared, else into those of both, as groups.
"""

from __future__ import annotations

from typing import Any

import torch

from convt.torch.geometry import Geometry
from convt.torch.operators import LIBRARY, convolve, filter_gradient, transpose

__all__ = ["register"]

_OUT, _IN = 3, 4  # axes of filters
_GEOMETRY = len(Geometry._fields)


def _fold(tensor: Any, dim: int | None, axis: int, count: int) -> Any:
    """Put the mapped dimension into `axis`, as its slower part; repeat what has none."""
    if tensor is None:
        return None
    mapped = tensor.expand(count, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return mapped.movedim(0, axis).flatten(axis, axis + 1)


def _per_channel(bias: Any, dim: int, geometry: Geometry) -> Any:
    """A mapped bias, to be added to mapped results."""
    bias = bias.movedim(dim, 0)
    return (
        bias[:, None, :, None, None, None]
        if geometry.channel == 1
        else bias[:, None, None, None, None]
    )


def _transpose(info: Any, dims: Any, x: Any, w: Any, b: Any, shape: Any, *rest: Any) -> Any:
    (x_dim, w_dim, b_dim), n, geometry = dims[:3], info.batch_size, Geometry(*rest[:_GEOMETRY])
    if w_dim is None:
        return _shared(transpose, info, dims, x, w, b, shape, rest)
    channel = geometry.channel
    if x_dim is not None or geometry.groups > 1:
        x, rest = _fold(x, x_dim, channel, n), _grouped(rest, n)
    y = transpose(
        x, _fold(w, w_dim, _OUT, n), _fold(b, b_dim, 0, n), _times(shape, channel, n), *rest
    )
    return y.unflatten(channel, (n, shape[channel])), channel


def _convolve(info: Any, dims: Any, y: Any, w: Any, b: Any, shape: Any, *rest: Any) -> Any:
    (y_dim, w_dim, b_dim), n, geometry = dims[:3], info.batch_size, Geometry(*rest[:_GEOMETRY])
    if w_dim is None:
        return _shared(convolve, info, dims, y, w, b, shape, rest)
    channel, axis = geometry.channel, _IN
    if y_dim is not None or geometry.groups > 1:
        y, rest, axis = _fold(y, y_dim, channel, n), _grouped(rest, n), _OUT
    x = convolve(
        y, _fold(w, w_dim, axis, n), _fold(b, b_dim, 0, n), _times(shape, channel, n), *rest
    )
    return x.unflatten(channel, (n, shape[channel])), channel


def _shared(
    operator: Any, info: Any, dims: Any, x: Any, w: Any, b: Any, shape: Any, rest: tuple[Any, ...]
) -> Any:
    """With filters that are not mapped over: all in one batch."""
    (x_dim, _, b_dim), n = dims[:3], info.batch_size
    own = None if b_dim is None else _per_channel(b, b_dim, Geometry(*rest[:_GEOMETRY]))
    b = b if own is None else None
    if x_dim is None:
        y = operator(x, w, b, shape, *rest).unsqueeze(0)
    else:
        y = operator(_fold(x, x_dim, 0, n), w, b, _times(shape, 0, n), *rest)
        y = y.unflatten(0, (n, shape[0]))
    return (y if own is None else y + own), 0


def _filter_gradient(info: Any, dims: Any, x: Any, y: Any, shape: Any, *rest: Any) -> Any:
    (x_dim, y_dim), n, geometry = dims[:2], info.batch_size, Geometry(*rest[:_GEOMETRY])
    both = geometry.groups > 1 or (x_dim is not None and y_dim is not None)
    axis = _OUT if both or x_dim is None else _IN
    if both:
        rest = _grouped(rest, n)
    if both or x_dim is not None:
        x = _fold(x, x_dim, geometry.channel, n)
    if both or y_dim is not None:
        y = _fold(y, y_dim, geometry.channel, n)
    w = filter_gradient(x, y, _times(shape, axis, n), *rest)
    return w.unflatten(axis, (n, shape[axis])), axis


def _times(shape: Any, axis: int, count: int) -> list[Any]:
    return [size * count if i == axis else size for i, size in enumerate(shape)]


def _grouped(rest: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    """The arguments behind the tensors, with `count` times the groups."""
    geometry = Geometry(*rest[:_GEOMETRY])
    return (*geometry._replace(groups=geometry.groups * count), *rest[_GEOMETRY:])


def register() -> None:
    """Give the operators their vectorised forms."""
    for operator, rule in (
        (transpose, _transpose),
        (convolve, _convolve),
        (filter_gradient, _filter_gradient),
    ):
        torch.library.register_vmap(operator, rule, lib=LIBRARY)
