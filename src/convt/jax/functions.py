"""The three operations for JAX arrays: arguments are checked from shapes, then a primitive is bound."""

from __future__ import annotations

from typing import Any

from jax import Array
from jax import numpy as jnp

from convt.jax.primitives import compute
from convt.layouts import transposed_filters
from convt.spec import make_convolution_spec, make_gradient_spec, make_spec
from convt.trilinear import Problem

__all__ = ["conv3d", "conv3d_transpose", "conv3d_transpose_filter_gradient"]


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
) -> Array:
    """Compute `convt.conv3d_transpose` of JAX arrays, under any of JAX's transformations.

    Parameters
    ----------
    input, filters, bias
        As for `convt.conv3d_transpose`; arrays of JAX, or what becomes one.
    output_shape, strides, padding, data_format, dilations, name, groups
        As for `convt.conv3d_transpose`; static.
    threads, algorithm
        As for `convt.conv3d_transpose`; static, and without effect on other devices than the CPU.
    out : None
        There is none: JAX arrays can't be written to.

    Returns
    -------
    jax.Array
        Of the input's dtype.

    Raises
    ------
    TypeError, ValueError
        As `convt.conv3d_transpose` does, when traced.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> import convt.jax
    >>> x, w = jnp.ones((1, 4, 4, 4, 8)), jnp.ones((3, 3, 3, 16, 8))
    >>> def loss(w):
    ...     return convt.jax.conv3d_transpose(x, w, None, strides=2).sum()
    >>> jax.jit(jax.grad(loss))(w).shape
    (3, 3, 3, 16, 8)
    """
    _refuse_out(out)
    x, w, b = _array(input), _array(filters), None if bias is None else _array(bias)
    spec = make_spec(
        input_shape=x.shape,
        input_dtype=x.dtype,
        filters_shape=w.shape,
        filters_dtype=w.dtype,
        output_shape=output_shape,
        strides=strides,
        padding=padding,
        data_format=data_format,
        dilations=dilations,
        bias_shape=None if b is None else b.shape,
        bias_dtype=None if b is None else b.dtype,
        groups=groups,
    )
    found: Array = compute("output", Problem.of(spec, threads, algorithm), x, w, b)
    return found


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
) -> Array:
    """Compute `convt.conv3d` of JAX arrays, under any of JAX's transformations.

    Parameters, result and errors as for `convt.conv3d`; see `conv3d_transpose` here.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import convt.jax
    >>> x, w = jnp.ones((1, 8, 8, 8, 16)), jnp.ones((3, 3, 3, 16, 8))
    >>> convt.jax.conv3d(x, w, strides=2, padding="SAME").shape
    (1, 4, 4, 4, 8)
    """
    _refuse_out(out)
    x, w, b = _array(input), _array(filters), None if bias is None else _array(bias)
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
    turned = transposed_filters(w, spec.groups)
    found: Array = compute("input", Problem.of(spec, threads, algorithm), turned, x, b)
    return found


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
) -> Array:
    """Compute `convt.conv3d_transpose_filter_gradient` of JAX arrays, under any of JAX's transformations.

    Parameters, result and errors as there; see `conv3d_transpose` here.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import convt.jax
    >>> x, dy = jnp.ones((1, 4, 4, 4, 8)), jnp.ones((1, 8, 8, 8, 16))
    >>> convt.jax.conv3d_transpose_filter_gradient(x, dy, (3, 3, 3, 16, 8), strides=2).shape
    (3, 3, 3, 16, 8)
    """
    _refuse_out(out)
    x, g = _array(input), _array(output_gradient)
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
    found: Array = compute("filters", Problem.of(spec, threads, None), x, g)
    return found


def _array(value: Any) -> Array:
    """`value` as an array, which takes JAX long to find of one."""
    return value if isinstance(value, Array) else jnp.asarray(value)


def _refuse_out(out: Any) -> None:
    if out is not None:
        raise TypeError("out is for NumPy arrays: JAX arrays can't be written to")
