"""PyTorch: `conv_transpose3d`, or with filters known beforehand oneDNN's own, on filters in its order.

The latter is what PyTorch's compiler makes of a frozen model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from convt.bench.peers import Array, Ready, Unserved, as_layout, channels_first
from convt.bench.problems import Problem

__all__ = ["prepare", "prepare_gradients", "start"]

_format: Any = torch.contiguous_format


def start(threads: int, variant: str) -> None:
    """Use so many threads and a memory format, and record nothing for gradients."""
    global _format
    _format = getattr(torch, variant)
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)


def prepare(problem: Problem, input: Array, filters: Array, bound: bool) -> Ready:
    """Tensors in the memory format; TensorFlow's padding by PyTorch's, and a view where that has more."""
    x, w = _tensors(problem, input, filters)
    padding, more, cut = _geometry(problem)
    convolve = _bound if bound else _given
    call = convolve(x, w, list(problem.strides), padding, more)
    if cut is not None:
        return Ready(lambda: call()[cut], _array(problem))
    return Ready(call, _array(problem))


def prepare_gradients(problem: Problem, input: Array, filters: Array, gradient: Array) -> Ready:
    """Gradients by autograd."""
    x, w = (tensor.requires_grad_() for tensor in _tensors(problem, input, filters))
    dy = _tensor(channels_first(gradient, problem.data_format))
    padding, more, cut = _geometry(problem)
    function = torch.nn.functional.conv_transpose3d
    strides = list(problem.strides)

    def call() -> Any:
        with torch.enable_grad():
            y = function(x, w, None, strides, padding, more)
            y = y if cut is None else y[cut]
            return (y.detach(), *torch.autograd.grad(y, (x, w), dy))

    def array(result: Any) -> Any:
        y, dx, dw = result
        return (*map(_array(problem), (y, dx)), dw.permute(2, 3, 4, 1, 0).numpy())

    return Ready(call, array)


def _tensors(problem: Problem, input: Array, filters: Array) -> tuple[Any, Any]:
    x = _tensor(channels_first(input, problem.data_format))
    return x, _tensor(filters.transpose(4, 3, 0, 1, 2).copy())


def _geometry(problem: Problem) -> tuple[list[int], list[int], Any]:
    """PyTorch's padding and output padding, and what to take of the result where it has more."""
    spec = problem.spec
    axes = zip(spec.input_size, spec.strides, spec.kernel, strict=True)
    whole = [(i - 1) * s + k for i, s, k in axes]
    natural = [n - 2 * p for n, p in zip(whole, spec.pad_before, strict=True)]
    more = [max(o - n, 0) for o, n in zip(spec.output_size, natural, strict=True)]
    cut = None
    if any(n > o for n, o in zip(natural, spec.output_size, strict=True)):
        cut = (slice(None), slice(None), *(slice(length) for length in spec.output_size))
    return list(spec.pad_before), more, cut


def _tensor(array: Array) -> Any:
    if array.dtype.name == "bfloat16":
        tensor = torch.from_numpy(array.view("int16")).view(torch.bfloat16)
    else:
        tensor = torch.from_numpy(array)
    return tensor.contiguous(memory_format=_format)


def _array(problem: Problem) -> Callable[[Any], Array]:
    def array(result: Any) -> Array:
        wide = result.float() if result.dtype == torch.bfloat16 else result
        return as_layout(wide.numpy(), "NCDHW", problem.data_format)

    return array


def _given(
    x: Any, w: Any, strides: list[int], padding: list[int], more: list[int]
) -> Callable[[], Any]:
    function = torch.nn.functional.conv_transpose3d
    return lambda: function(x, w, None, strides, padding, more)


def _bound(
    x: Any, w: Any, strides: list[int], padding: list[int], more: list[int]
) -> Callable[[], Any]:
    if x.dtype != torch.float32:
        raise Unserved("filters are put in order for float32 alone")
    ones = [1, 1, 1]
    operations = torch.ops.mkldnn
    packed = operations._reorder_convolution_transpose_weight(
        w, padding, more, strides, ones, 1, list(x.shape)
    )
    function = operations._convolution_transpose_pointwise
    return lambda: function(x, packed, None, padding, more, strides, ones, 1, "none", [], "")
