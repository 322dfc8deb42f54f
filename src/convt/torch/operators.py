"""The three operations as operators of PyTorch: what computes them, and where.

The dispatcher, the compiler and the exporter see one opaque operator for each; `derivatives` says how they
are differentiated and vectorised. Filters are ``[depth, height, width, out_channels, in_channels /
groups]`` in all three, so that the derivatives of each are the other two.

Constraints of this file: an operator's arguments are plain lists with nothing left to infer. They are
checked each time: the program that asks may come from a file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from convt.layouts import convolution_filters
from convt.torch import kernels, native
from convt.torch.geometry import Geometry, convolution, known, transposed
from convt.torch.geometry import filter_gradient as filter_gradient_problem
from convt.torch.views import channels_last

__all__ = ["DEFINITIONS", "KERNELS", "OPERATORS", "Three"]


class Three(NamedTuple):
    """Something for each of the three operations."""

    transpose: Any
    convolve: Any
    filter_gradient: Any


def _geometry(rest: tuple[Any, ...]) -> Geometry:
    strides, padding, pads, data_format, dilations, groups, *_ = rest
    return Geometry(tuple(strides), padding, tuple(pads), data_format, tuple(dilations), groups)


# --- on the CPU -----------------------------------------------------------------------------------
def _transpose(x: Any, w: Any, bias: Any, shape: list[int], *rest: Any) -> Any:
    if native.forced():
        return _transpose_elsewhere(x, w, bias, shape, *rest)
    return kernels.transpose(x, w, bias, (shape, *_geometry(rest).arguments.values()), *rest[-2:])


def _convolve(x: Any, w: Any, bias: Any, shape: list[int], *rest: Any) -> Any:
    if native.forced():
        return _convolve_elsewhere(x, w, bias, shape, *rest)
    geometry = _geometry(rest)
    convolution(x, w, bias, shape, geometry)
    w = convolution_filters(w, geometry.groups)
    return kernels.convolve(x, w, bias, tuple(geometry.arguments.values()), *rest[-2:])


def _filter_gradient(x: Any, g: Any, shape: list[int], *rest: Any) -> Any:
    if native.forced():
        return _filter_gradient_elsewhere(x, g, shape, *rest)
    return kernels.filter_gradient(x, g, (shape, *_geometry(rest).arguments.values()), rest[-2])


# --- on other devices -----------------------------------------------------------------------------
def _transpose_elsewhere(x: Any, w: Any, bias: Any, shape: list[int], *rest: Any) -> Any:
    geometry = _geometry(rest)
    transposed(x, w, bias, shape, geometry)
    y = native.conv3d_transpose(x, w, bias, shape, geometry)
    return y.contiguous(memory_format=_format(x, geometry))


def _convolve_elsewhere(x: Any, w: Any, bias: Any, shape: list[int], *rest: Any) -> Any:
    geometry = _geometry(rest)
    convolution(x, w, bias, shape, geometry)
    y = native.conv3d(x, w, bias, shape, geometry)
    return y.contiguous(memory_format=_format(x, geometry))


def _filter_gradient_elsewhere(x: Any, g: Any, shape: list[int], *rest: Any) -> Any:
    geometry = _geometry(rest)
    filter_gradient_problem(x, g, shape, geometry)
    return native.filter_gradient(x, g, shape, geometry)


def _format(x: Any, geometry: Geometry) -> Any:
    """The memory format of a result, after that of what it is computed from."""
    last = channels_last(x, geometry.data_format)
    return torch.channels_last_3d if last else torch.contiguous_format


# --- without memory -------------------------------------------------------------------------------
def _fake_transpose(x: Any, w: Any, bias: Any, shape: list[Any], *rest: Any) -> Any:
    if known(x.shape, w.shape, shape):
        transposed(x, w, bias, shape, _geometry(rest))
    return _empty(x, shape, rest)


def _fake_convolve(x: Any, w: Any, bias: Any, shape: list[Any], *rest: Any) -> Any:
    if known(x.shape, w.shape, shape):
        convolution(x, w, bias, shape, _geometry(rest))
    return _empty(x, shape, rest)


def _fake_filter_gradient(x: Any, g: Any, shape: list[Any], *rest: Any) -> Any:
    if known(x.shape, g.shape, shape):
        filter_gradient_problem(x, g, shape, _geometry(rest))
    return x.new_empty(shape)


def _empty(x: Any, shape: list[Any], rest: tuple[Any, ...]) -> Any:
    memory_format = _format(x, _geometry(rest))
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format)


def _define(
    name: str,
    tensors: str,
    here: Callable[..., Any],
    elsewhere: Callable[..., Any],
    fake: Callable[..., Any],
) -> Any:
    # `shape` is the result's; `pads` are before and after, axis by axis, where `padding` is "EXPLICIT".
    schema = (
        f"({tensors}, SymInt[] shape, int[] strides, str padding, int[] pads, str data_format, "
        "int[] dilations, int groups, int? threads, str? algorithm) -> Tensor"
    )
    definition = torch.library.custom_op(
        f"convt::{name}", elsewhere, mutates_args=(), schema=schema
    )
    definition.register_kernel("cpu", here)
    definition.register_fake(fake)
    return definition


DEFINITIONS = Three(
    _define(
        "conv3d_transpose",
        "Tensor input, Tensor filters, Tensor? bias",
        _transpose,
        _transpose_elsewhere,
        _fake_transpose,
    ),
    _define(
        "conv3d",
        "Tensor input, Tensor filters, Tensor? bias",
        _convolve,
        _convolve_elsewhere,
        _fake_convolve,
    ),
    _define(
        "conv3d_transpose_filter_gradient",
        "Tensor input, Tensor output_gradient",
        _filter_gradient,
        _filter_gradient_elsewhere,
        _fake_filter_gradient,
    ),
)
KERNELS = Three(_transpose, _convolve, _filter_gradient)  # of the operators on the CPU
OPERATORS = Three(
    torch.ops.convt.conv3d_transpose.default,
    torch.ops.convt.conv3d.default,
    torch.ops.convt.conv3d_transpose_filter_gradient.default,
)
