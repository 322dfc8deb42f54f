"""PyTorch: `conv_transpose3d`, or with filters known beforehand oneDNN's own, on filters in its order.

The latter is what PyTorch's compiler makes of a frozen model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from convt.bench.peers import Array, Ready, Unserved, as_layout, channels_first
from convt.bench.problems import Problem

__all__ = ["prepare", "start"]

_format: Any = torch.contiguous_format


def start(threads: int, variant: str) -> None:
    """Use so many threads and a memory format, and record nothing for gradients."""
    global _format
    _format = getattr(torch, variant)
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)


def prepare(problem: Problem, input: Array, filters: Array, bound: bool) -> Ready:
    """Tensors in the memory format; TensorFlow's padding by PyTorch's, and a view where that has more."""
    spec = problem.spec
    x = _tensor(channels_first(input, problem.data_format))
    w = _tensor(filters.transpose(4, 3, 0, 1, 2).copy())
    padding = spec.pad_before
    axes = zip(spec.input_size, spec.strides, spec.kernel, strict=True)
    whole = [(i - 1) * s + k for i, s, k in axes]
    natural = [n - 2 * p for n, p in zip(whole, padding, strict=True)]
    more = [max(o - n, 0) for o, n in zip(spec.output_size, natural, strict=True)]
    convolve = _bound if bound else _given
    call = convolve(x, w, list(spec.strides), list(padding), more)
    d, h, v = spec.output_size
    if any(n > o for n, o in zip(natural, spec.output_size, strict=True)):
        return Ready(lambda: call()[:, :, :d, :h, :v], _array(problem))
    return Ready(call, _array(problem))


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
