"""`convt.conv3d_transpose` and its companions for tensors: what is checked before an operator is called.

Constraints of this file: the compiler traces it. While it does, sizes may be symbols, so what depends on
them is checked by the operators; NumPy and whatever else it can't trace is used in eager calls only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad

from convt.algorithm import parse_algorithm
from convt.arguments import parse_data_format, parse_padding, parse_per_axis
from convt.layouts import transposed_filters
from convt.spec import make_convolution_spec, make_gradient_spec, make_spec
from convt.threads import parse_threads
from convt.torch import kernels
from convt.torch.derivatives import FUNCTIONS
from convt.torch.direct import direct
from convt.torch.geometry import EXPLICIT, Geometry
from convt.torch.operators import OPERATORS
from convt.torch.views import DTYPES, array

__all__ = ["conv3d", "conv3d_transpose", "conv3d_transpose_filter_gradient"]

_SERVED = tuple(DTYPES)


def conv3d_transpose(
    input: Any,
    filters: Any,
    output_shape: Any,
    strides: Any,
    padding: Any = "SAME",
    data_format: str | None = "NDHWC",
    dilations: Any = None,
    name: str | None = None,
    *,
    bias: Any = None,
    groups: int = 1,
    out: Any = None,
    threads: int | None = None,
    algorithm: str | None = None,
) -> Any:
    """`convt.conv3d_transpose` for tensors.

    It can be differentiated any number of times, vectorised by `torch.vmap`, compiled and exported, and
    computes in the lower precision where autocast asks for one. On the CPU the kernels are convt's, on
    other devices PyTorch's, with the same result.

    Parameters
    ----------
    input, filters, bias : torch.Tensor
        Of one dtype and on one device; any strides.
    out : torch.Tensor, optional
        Where to write the result; no gradient is recorded then, so none may be asked for.
    threads : int, optional
        By default what `convt.get_num_threads` and `torch.get_num_threads` both allow.
    output_shape, strides, padding, data_format, dilations, name, groups, algorithm
        As for `convt.conv3d_transpose`.

    Returns
    -------
    torch.Tensor
        Contiguous, or for NCDHW in the memory format of the input.

    Raises
    ------
    TypeError, ValueError
        As `convt.conv3d_transpose` does, and where tensors differ in dtype or device.

    Examples
    --------
    >>> x = torch.ones(1, 4, 4, 4, 8, requires_grad=True)
    >>> w = torch.ones(3, 3, 3, 16, 8)
    >>> y = conv3d_transpose(x, w, [1, 8, 8, 8, 16], strides=2)
    >>> y.sum().backward()
    >>> x.grad.shape
    torch.Size([1, 4, 4, 4, 8])
    """
    compiling = torch.compiler.is_compiling()
    if not compiling and direct(input, filters, bias, out):
        arguments = (output_shape, strides, padding, data_format, dilations, groups)
        return _compute(kernels.transpose, out, input, filters, bias, arguments, threads, algorithm)
    x, w, b = _tensors("conv3d_transpose", out, input=input, filters=filters, bias=bias)
    if compiling:
        geometry = _traced(strides, padding, data_format, dilations, groups)
        shape = geometry.output_shape(x.shape, w.shape, output_shape)
        return _call(OPERATORS.transpose, out, x, w, b, shape, *geometry, threads, algorithm)
    spec = make_spec(
        **_shapes(input=x, filters=w, bias=b),
        output_shape=output_shape,
        strides=strides,
        padding=padding,
        data_format=data_format,
        dilations=dilations,
        groups=groups,
    )
    _check(threads, algorithm)
    rest = (spec.output_shape, *Geometry.of(spec), threads, algorithm)
    return _call(FUNCTIONS.transpose, out, x, w, b, *rest)


def conv3d(
    input: Any,
    filters: Any,
    strides: Any,
    padding: Any,
    data_format: str | None = "NDHWC",
    dilations: Any = None,
    name: str | None = None,
    *,
    bias: Any = None,
    groups: int = 1,
    out: Any = None,
    threads: int | None = None,
    algorithm: str | None = None,
) -> Any:
    """`convt.conv3d` for tensors; all else as for `conv3d_transpose`.

    Examples
    --------
    >>> x, w = torch.ones(1, 8, 8, 8, 16), torch.ones(3, 3, 3, 16, 8)
    >>> conv3d(x, w, strides=2, padding="SAME").shape
    torch.Size([1, 4, 4, 4, 8])
    """
    compiling = torch.compiler.is_compiling()
    if not compiling and direct(input, filters, bias, out):
        arguments = (strides, padding, data_format, dilations, groups)
        return _compute(kernels.convolve, out, input, filters, bias, arguments, threads, algorithm)
    x, w, b = _tensors("conv3d", out, input=input, filters=filters, bias=bias)
    if compiling:
        geometry = _traced(strides, padding, data_format, dilations, groups)
        w = transposed_filters(w, geometry.groups)
        shape = geometry.input_shape(x.shape, w.shape)
        return _call(OPERATORS.convolve, out, x, w, b, shape, *geometry, threads, algorithm)
    spec = make_convolution_spec(
        **_shapes(input=x, filters=w, bias=b),
        strides=strides,
        padding=padding,
        data_format=data_format,
        dilations=dilations,
        groups=groups,
    )
    _check(threads, algorithm)
    w = transposed_filters(w, spec.groups)
    rest = (spec.output_shape, *Geometry.of(spec), threads, algorithm)
    return _call(FUNCTIONS.convolve, out, x, w, b, *rest)


def conv3d_transpose_filter_gradient(
    input: Any,
    output_gradient: Any,
    filters_shape: Any,
    strides: Any,
    padding: Any = "SAME",
    data_format: str | None = "NDHWC",
    dilations: Any = None,
    *,
    groups: int = 1,
    out: Any = None,
    threads: int | None = None,
) -> Any:
    """`convt.conv3d_transpose_filter_gradient` for tensors; all else as for `conv3d_transpose`.

    Examples
    --------
    >>> x, dy = torch.ones(1, 4, 4, 4, 8), torch.ones(1, 8, 8, 8, 16)
    >>> conv3d_transpose_filter_gradient(x, dy, (3, 3, 3, 16, 8), strides=2).shape
    torch.Size([3, 3, 3, 16, 8])
    """
    compiling = torch.compiler.is_compiling()
    if not compiling and direct(input, output_gradient, out):
        arguments = (filters_shape, strides, padding, data_format, dilations, groups)
        return _compute(kernels.filter_gradient, out, input, output_gradient, arguments, threads)
    name = "conv3d_transpose_filter_gradient"
    x, g = _tensors(name, out, input=input, output_gradient=output_gradient)
    if compiling:
        geometry = _traced(strides, padding, data_format, dilations, groups)
        rest = (tuple(filters_shape), *geometry, threads, None)
        return _call(OPERATORS.filter_gradient, out, x, g, *rest)
    spec = make_gradient_spec(
        **_shapes(input=x, gradient=g),
        filters_shape=filters_shape,
        strides=strides,
        padding=padding,
        data_format=data_format,
        dilations=dilations,
        groups=groups,
    )
    _check(threads, None)
    rest = (spec.filters_shape, *Geometry.of(spec), threads, None)
    return _call(FUNCTIONS.filter_gradient, out, x, g, *rest)


def _tensors(function: str, out: Any, **tensors: Any) -> list[Any]:
    """The tensors in the precision that autocast asks for, of one dtype and device."""
    for name, tensor in (*tensors.items(), ("out", out)):
        if tensor is None and name in ("bias", "out"):
            continue
        if not isinstance(tensor, torch.Tensor):
            given = type(tensor).__name__
            raise TypeError(f"{function} takes tensors here, but {name} is a {given}")
        if tensor.layout != torch.strided:
            raise TypeError(f"{name} layout {tensor.layout} must be strided: use {name}.to_dense()")
    found = list(tensors.values())
    device = found[0].device
    kind = device.type
    if (kind == "cpu" or torch.amp.is_autocast_available(kind)) and torch.is_autocast_enabled(kind):
        low = torch.get_autocast_dtype(kind)
        found = [_lowered(tensor, low) for tensor in found]
    dtype = found[0].dtype
    if dtype not in _SERVED:
        raise TypeError(
            f"input dtype {dtype} must be float16, bfloat16, float32 or float64: use input.float()"
        )
    for name, tensor in zip((*tensors, "out"), (*found, out), strict=True):
        if tensor is not None and (tensor.dtype != dtype or tensor.device != device):
            raise TypeError(
                f"{name} is {tensor.dtype} on {tensor.device} and must be as the input, {dtype} on "
                f"{device}: use {name}.to(input)"
            )
    return found


def _lowered(tensor: Any, dtype: Any) -> Any:
    """As PyTorch's own convolutions do under autocast, which leaves float64 alone."""
    if tensor is None or tensor.dtype == torch.float64 or not tensor.is_floating_point():
        return tensor
    return tensor.to(dtype)


def _shapes(**tensors: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, tensor in tensors.items():
        if tensor is not None:
            found[f"{name}_shape"] = tuple(tensor.shape)
            found[f"{name}_dtype"] = DTYPES[tensor.dtype]
    return found


def _check(threads: Any, algorithm: Any) -> None:
    if threads is not None:
        parse_threads(threads)
    parse_algorithm(algorithm)


def _traced(strides: Any, padding: Any, data_format: Any, dilations: Any, groups: Any) -> Geometry:
    if forward_ad._current_level >= 0:  # an operator would drop tangents; an eager call doesn't
        torch._dynamo.graph_break()
    data_format = parse_data_format(data_format)
    asked = parse_padding(padding)
    pads = () if isinstance(asked, str) else (*asked[0], *asked[1], *asked[2])
    return Geometry(
        parse_per_axis("strides", strides, data_format),
        asked if isinstance(asked, str) else EXPLICIT,
        pads,
        data_format,
        parse_per_axis("dilations", dilations, data_format),
        groups,
    )


def _compute(kernel: Callable[..., Any], out: Any, *arguments: Any) -> Any:
    """Call a kernel, which writes to the memory of `out` if there is one."""
    if out is None:
        return kernel(*arguments)
    kernel(*arguments, out=array(out))
    if not out.is_inference():
        torch.autograd.graph.increment_version(out)  # else a graph that kept it would not know
    return out


def _call(operation: Any, out: Any, *arguments: Any) -> Any:
    """Call an operation, and copy its result to `out` if there is one."""
    result = operation(*arguments)
    if out is None:
        return result
    if torch.is_grad_enabled() and (result.requires_grad or out.requires_grad):
        raise RuntimeError("no gradient is recorded through out: leave it away, or use no_grad")
    if out.shape != result.shape:
        raise ValueError(
            f"out.shape = {tuple(out.shape)} must be the output's: {tuple(result.shape)}"
        )
    return out.copy_(result)
