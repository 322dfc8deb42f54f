"""The three operations on tensors of the CPU, by convt's kernels.

Arguments are those of `convt.conv3d_transpose` and its companions, as they come or as they were checked.
Each function writes to `out`, a NumPy array, or returns a new tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt
import torch

from convt import api, gradient
from convt.algorithm import get_algorithm
from convt.family import Access
from convt.recall import recall
from convt.threads import get_num_threads
from convt.torch.views import array, channels_last, empty, tensor

__all__ = ["convolve", "filter_gradient", "transpose"]

Array = npt.NDArray[Any]


def transpose(
    x: Any,
    w: Any,
    bias: Any,
    arguments: Sequence[Any],
    threads: int | None,
    algorithm: str | None,
    out: Array | None = None,
) -> Any:
    """Compute the transposed convolution; `arguments` from ``output_shape`` to ``groups``."""
    return _convolution(api.transposed, x, w, bias, arguments, threads, algorithm, out)


def convolve(
    x: Any,
    w: Any,
    bias: Any,
    arguments: Sequence[Any],
    threads: int | None,
    algorithm: str | None,
    out: Array | None = None,
) -> Any:
    """Compute the convolution; `arguments` from ``strides`` to ``groups``."""
    return _convolution(gradient.convolved, x, w, bias, arguments, threads, algorithm, out)


def filter_gradient(
    x: Any, g: Any, arguments: Sequence[Any], threads: int | None, out: Array | None = None
) -> Any:
    """Compute the gradient in the filters; `arguments` from ``filters_shape`` to ``groups``."""
    *positions, groups = arguments
    result = gradient.conv3d_transpose_filter_gradient(
        array(x), array(g), *positions, groups=groups, out=out, threads=_count(threads)
    )
    return tensor(result) if out is None else None


def _convolution(
    pose: Callable[..., api.Ready],
    x: Any,
    w: Any,
    bias: Any,
    arguments: Sequence[Any],
    threads: int | None,
    algorithm: str | None,
    out: Array | None,
) -> Any:
    """Compute the problem that `pose` makes of the arguments."""
    arrays = (array(x), array(w), None if bias is None else array(bias))
    algorithm = get_algorithm() if algorithm is None else algorithm
    ready = recall(pose, arrays, *arguments, _count(threads), algorithm)
    spec = ready.spec
    xs, ws, bs = arrays
    if out is not None:
        api.check_out(out, spec, {"input": xs, "filters": ws, "bias": bs})
    last = channels_last(x, spec.data_format)
    y, view = empty(ready.shape, x.dtype, last) if out is None else (None, out)
    if last or out is not None:
        ready = ready.into(Access.of(spec, xs, ws, view))
    api.compute(ready, xs, ws.swapaxes(3, 4) if spec.forward else ws, bs, view)
    return y


def _count(threads: int | None) -> int:
    """The threads of a call; where none are named, PyTorch's number is a limit too."""
    return min(get_num_threads(), torch.get_num_threads()) if threads is None else threads
