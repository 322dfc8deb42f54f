"""The three operations on tensors of the CPU, by convt's kernels; problems are checked already.

Filters are ``[depth, height, width, out_channels, in_channels / groups]`` in all three. Each function
writes to `out`, a NumPy array, or returns a new tensor.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch

from convt import api, gradient
from convt.algorithm import parse_algorithm
from convt.family import Access
from convt.layouts import convolution_filters
from convt.spec import Spec
from convt.threads import get_num_threads
from convt.torch.geometry import Geometry
from convt.torch.views import array, channels_last, empty

__all__ = ["convolve", "filter_gradient", "transpose"]

Array = npt.NDArray[Any]


def transpose(
    x: Any,
    w: Any,
    bias: Any,
    spec: Spec,
    threads: int | None,
    algorithm: str | None,
    out: Array | None = None,
) -> Any:
    """Compute the transposed convolution."""
    y, view = _output(x, spec, out)
    arrays = (array(x), array(w), None if bias is None else array(bias), view)
    if out is not None:
        named = {"input": arrays[0], "filters": arrays[1], "bias": arrays[2]}
        api.check_out(out, spec, named)
    if not (api.compiled() and view.size):
        api.conv3d_transpose(
            *arrays[:2], spec.output_shape, bias=arrays[2], out=view, **_arguments(spec)
        )
        return y
    access = Access.of(spec, arrays[0], arrays[1], view)
    ready = api.prepare(spec, access, _count(threads), parse_algorithm(algorithm))
    api.compute(ready, *arrays)
    return y


def convolve(
    x: Any,
    w: Any,
    bias: Any,
    spec: Spec,
    threads: int | None,
    algorithm: str | None,
    out: Array | None = None,
) -> Any:
    """Compute the convolution."""
    y, view = _output(x, spec, out)
    gradient.conv3d(
        array(x),
        convolution_filters(array(w), spec.groups),
        bias=None if bias is None else array(bias),
        out=view,
        threads=_count(threads),
        algorithm=algorithm,
        **_arguments(spec),
    )
    return y


def filter_gradient(
    x: Any, g: Any, spec: Spec, threads: int | None, out: Array | None = None
) -> Any:
    """Compute the gradient in the filters."""
    w, view = (None, out) if out is not None else empty(spec.filters_shape, x.dtype)
    gradient.conv3d_transpose_filter_gradient(
        array(x),
        array(g),
        spec.filters_shape,
        out=view,
        threads=_count(threads),
        **_arguments(spec),
    )
    return w


def _output(x: Any, spec: Spec, out: Array | None) -> tuple[Any, Array]:
    if out is not None:
        return None, out
    return empty(spec.output_shape, x.dtype, last=channels_last(x, spec.data_format))


def _arguments(spec: Spec) -> dict[str, Any]:
    return Geometry.of(spec).arguments


def _count(threads: int | None) -> int:
    """The threads of a call; where none are named, PyTorch's number is a limit too."""
    return min(get_num_threads(), torch.get_num_threads()) if threads is None else threads
