"""`conv3d`, the gradient in the filters and the vector-Jacobian product: signatures and wiring.

The three operations are the derivatives of one trilinear form, ``sum(output_gradient *
conv3d_transpose(input, filters))``: in the output's gradient it is the transposed convolution, in the input
the convolution, in the filters the filters' gradient. So the derivatives of each are the other two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from convt import reference, run
from convt.algorithm import get_algorithm
from convt.api import Ready, check_out, compiled, compute, conv3d_transpose, prepare
from convt.arguments import parse_integer
from convt.arrays import adapter
from convt.family import Access
from convt.gradient_run import filter_gradient
from convt.layouts import convolution_filters
from convt.recall import Layout, recall
from convt.spec import Spec, make_convolution_spec, make_gradient_spec
from convt.threads import get_num_threads, parse_threads

__all__ = [
    "conv3d",
    "conv3d_transpose_filter_gradient",
    "conv3d_transpose_vjp",
    "convolved",
    "input_gradient",
]

Array = npt.NDArray[Any]


def conv3d(
    input: npt.ArrayLike,
    filters: npt.ArrayLike,
    strides: Any,
    padding: Any,
    data_format: str | None = "NDHWC",
    dilations: Any = None,
    name: str | None = None,
    *,
    bias: npt.ArrayLike | None = None,
    groups: int = 1,
    out: Array | None = None,
    threads: int | None = None,
    algorithm: str | None = None,
) -> Array:
    """Compute a 3-D convolution, as ``tf.nn.conv3d`` does: the adjoint of `conv3d_transpose`.

    On each axis, output voxel ``o`` sums input voxels ``stride * o + dilation * t - pad_before`` times
    kernel tap ``t``: a cross-correlation, as everywhere in deep learning. With the same filters, strides,
    padding and dilations, and one group, it is the gradient of `conv3d_transpose` in its input.

    Parameters
    ----------
    input : array_like
        Shape ``[batch, depth, height, width, in_channels]``, or ``[batch, in_channels, depth, height,
        width]`` for NCDHW; float16, bfloat16 (``ml_dtypes``), float32 or float64.
    filters : array_like
        Shape ``[depth, height, width, in_channels / groups, out_channels]``; the input's dtype.
    strides : int or sequence of 1, 3 or 5 ints
        Input voxels from one output voxel to the next.
    padding : {"SAME", "VALID"} or three pairs
        Beyond TensorFlow, explicit pairs ``[(before, after)] * 3``.
    data_format, dilations, name, bias, groups, out, threads, algorithm
        As for `conv3d_transpose`. Beyond TensorFlow, any stride goes with any dilation.

    Returns
    -------
    numpy.ndarray
        A new C-contiguous array of the input's dtype in native byte order, or `out`. An axis of `n` voxels
        has ``ceil(n / stride)`` for SAME and ``ceil((n - effective kernel + 1) / stride)`` for VALID.

    Raises
    ------
    TypeError, ValueError
        As for `conv3d_transpose`.

    Examples
    --------
    >>> import numpy as np
    >>> import convt
    >>> x = np.ones((1, 8, 8, 8, 16), np.float32)
    >>> w = np.ones((3, 3, 3, 16, 8), np.float32)
    >>> convt.conv3d(x, w, strides=2, padding="SAME").shape
    (1, 4, 4, 4, 8)
    """
    served = adapter("conv3d", input=input, filters=filters, bias=bias, out=out)
    if served is not None:
        theirs: Array = served.conv3d(
            input, filters, strides, padding, data_format, dilations, name,
            bias=bias, groups=groups, out=out, threads=threads, algorithm=algorithm,
        )  # fmt: skip
        return theirs
    x, w = np.asarray(input), np.asarray(filters)
    b = None if bias is None else np.asarray(bias)
    ready = recall(
        convolved,
        (x, w, b),
        *(strides, padding, data_format, dilations, groups),
        get_num_threads() if threads is None else threads,
        get_algorithm() if algorithm is None else algorithm,
    )
    w = w.swapaxes(3, 4)
    if out is not None:
        check_out(out, ready.spec, {"input": x, "filters": w, "bias": b})
        ready = ready.into(Access.of(ready.spec, x, w, out))
    y = run.empty_output(ready.shape, ready.spec.dtype) if out is None else out
    compute(ready, x, w, b, y)
    return y


def convolved(
    x: Layout,
    w: Layout,
    b: Layout | None,
    strides: Any,
    padding: Any,
    data_format: Any,
    dilations: Any,
    groups: Any,
    threads: Any,
    algorithm: Any,
) -> Ready:
    """Check the arguments of `conv3d` and plan the problem that they pose."""
    spec = make_convolution_spec(
        input_shape=x.shape,
        input_dtype=x.dtype,
        filters_shape=w.shape,
        filters_dtype=w.dtype,
        strides=strides,
        padding=padding,
        data_format=data_format,
        dilations=dilations,
        bias_shape=None if b is None else b.shape,
        bias_dtype=None if b is None else b.dtype,
        groups=groups,
    )
    return prepare(spec, Access.of(spec, x, w), threads, algorithm)


def input_gradient(
    output_gradient: npt.ArrayLike,
    filters: npt.ArrayLike,
    strides: Any,
    padding: Any = "SAME",
    data_format: str | None = "NDHWC",
    dilations: Any = None,
    *,
    groups: int = 1,
    out: Array | None = None,
    threads: int | None = None,
    algorithm: str | None = None,
) -> Array:
    """Compute the gradient of `conv3d_transpose` in its input, for filters in its layout.

    It is `conv3d`, but filters of several groups are ``[depth, height, width, out_channels, in_channels /
    groups]`` as `conv3d_transpose` has them.

    Examples
    --------
    >>> y, w = np.ones((1, 4, 4, 4, 6), np.float32), np.ones((2, 2, 2, 6, 4), np.float32)
    >>> input_gradient(y, w, strides=2, groups=2).shape
    (1, 2, 2, 2, 8)
    """
    w, groups = np.asarray(filters), parse_integer("groups", groups, 1)
    if w.ndim == 5 and w.shape[3] % groups == 0:  # what does not fit, `conv3d` refuses
        w = convolution_filters(w, groups)
    return conv3d(
        output_gradient, w, strides, padding, data_format, dilations,
        groups=groups, out=out, threads=threads, algorithm=algorithm,
    )  # fmt: skip


def conv3d_transpose_filter_gradient(
    input: npt.ArrayLike,
    output_gradient: npt.ArrayLike,
    filters_shape: Any,
    strides: Any,
    padding: Any = "SAME",
    data_format: str | None = "NDHWC",
    dilations: Any = None,
    *,
    groups: int = 1,
    out: Array | None = None,
    threads: int | None = None,
) -> Array:
    """Compute the gradient of `conv3d_transpose` in its filters.

    Parameters
    ----------
    input : array_like
        What `conv3d_transpose` was given.
    output_gradient : array_like
        The gradient in what it returned: of that shape and the input's dtype.
    filters_shape : sequence of 5 ints
        ``[depth, height, width, out_channels, in_channels / groups]``.
    strides, padding, data_format, dilations, groups, threads
        As for `conv3d_transpose`.
    out : numpy.ndarray, optional
        Where to write the result: of shape `filters_shape` and the input's dtype, any strides, no memory
        shared with the other arrays.

    Returns
    -------
    numpy.ndarray
        A new C-contiguous array of shape `filters_shape` and the input's dtype, or `out`. float16 and
        bfloat16 are summed in float32 and rounded once; taps that no input meets an output with are 0.

    Raises
    ------
    TypeError, ValueError
        As for `conv3d_transpose`.

    Examples
    --------
    >>> import numpy as np
    >>> import convt
    >>> x, dy = np.ones((1, 4, 4, 4, 8), np.float32), np.ones((1, 8, 8, 8, 16), np.float32)
    >>> convt.conv3d_transpose_filter_gradient(x, dy, (3, 3, 3, 16, 8), strides=2).shape
    (3, 3, 3, 16, 8)
    """
    served = adapter(
        "conv3d_transpose_filter_gradient", input=input, output_gradient=output_gradient, out=out
    )
    if served is not None:
        theirs: Array = served.conv3d_transpose_filter_gradient(
            input, output_gradient, filters_shape, strides, padding, data_format, dilations,
            groups=groups, out=out, threads=threads,
        )  # fmt: skip
        return theirs
    x, g = np.asarray(input), np.asarray(output_gradient)
    spec, count = recall(
        _prepare_gradient,
        (x, g),
        *(filters_shape, strides, padding, data_format, dilations, groups),
        get_num_threads() if threads is None else threads,
    )
    if out is not None:
        check_out(out, spec, {"input": x, "output_gradient": g}, filters=True)
    y = run.empty_output(spec.filters_shape, spec.dtype) if out is None else out
    if not (x.size and g.size and y.size):
        y[...] = 0
    elif compiled():
        filter_gradient(spec, x, g, y, count)
    else:
        y[...] = reference.filter_gradient(
            x, g, spec.filters_shape, spec.strides, spec.padding, spec.data_format, spec.dilations,
            groups=spec.groups,
        )  # fmt: skip
    return y


def _prepare_gradient(
    x: Layout,
    g: Layout,
    filters_shape: Any,
    strides: Any,
    padding: Any,
    data_format: Any,
    dilations: Any,
    groups: Any,
    threads: Any,
) -> tuple[Spec, int]:
    """Check the arguments of `conv3d_transpose_filter_gradient`: the problem, and the threads."""
    spec = make_gradient_spec(
        input_shape=x.shape,
        input_dtype=x.dtype,
        gradient_shape=g.shape,
        gradient_dtype=g.dtype,
        filters_shape=filters_shape,
        strides=strides,
        padding=padding,
        data_format=data_format,
        dilations=dilations,
        groups=groups,
    )
    return spec, parse_threads(threads)


def conv3d_transpose_vjp(
    input: npt.ArrayLike,
    filters: npt.ArrayLike,
    output_shape: Any,
    strides: Any,
    padding: Any = "SAME",
    data_format: str | None = "NDHWC",
    dilations: Any = None,
    *,
    bias: npt.ArrayLike | None = None,
    groups: int = 1,
    threads: int | None = None,
    algorithm: str | None = None,
) -> tuple[Array, Callable[[npt.ArrayLike], tuple[Array, ...]]]:
    """Compute the transposed convolution, and a function from its output's gradient to the others.

    Parameters
    ----------
    input, filters, output_shape, strides, padding, data_format, dilations, bias, groups, threads, algorithm
        As for `conv3d_transpose`.

    Returns
    -------
    output : numpy.ndarray
        What `conv3d_transpose` returns.
    pullback : callable
        Takes the gradient in the output and returns the gradients in the input and in the filters, and in
        the bias if there is one, each of its array's shape and dtype.

    Examples
    --------
    >>> import numpy as np
    >>> import convt
    >>> x, w = np.ones((1, 4, 4, 4, 8), np.float32), np.ones((3, 3, 3, 16, 8), np.float32)
    >>> y, pullback = convt.conv3d_transpose_vjp(x, w, [1, 8, 8, 8, 16], strides=2)
    >>> dx, dw = pullback(np.ones_like(y))
    >>> dx.shape, dw.shape
    ((1, 4, 4, 4, 8), (3, 3, 3, 16, 8))
    """
    x, w = np.asarray(input), np.asarray(filters)
    shared: dict[str, Any] = {"groups": groups, "threads": threads}
    geometry = (strides, padding, data_format, dilations)
    y = conv3d_transpose(x, w, output_shape, *geometry, bias=bias, algorithm=algorithm, **shared)

    def pullback(output_gradient: npt.ArrayLike) -> tuple[Array, ...]:
        g = np.asarray(output_gradient)
        if g.shape != y.shape:  # another size that the geometry allows may have other padding
            raise ValueError(f"output_gradient.shape = {g.shape} must be the output's: {y.shape}")
        dw = conv3d_transpose_filter_gradient(x, g, w.shape, *geometry, **shared)
        dx = input_gradient(g, w, *geometry, algorithm=algorithm, **shared)
        if bias is None:
            return dx, dw
        axes = (0, 1, 2, 3) if data_format != "NCDHW" else (0, 2, 3, 4)
        wide = np.float64 if g.dtype == np.float64 else np.float32
        return dx, dw, g.sum(axis=axes, dtype=wide).astype(y.dtype)

    return y, pullback
