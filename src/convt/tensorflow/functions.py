"""The three operations for tensors: arguments are checked and tensors converted, then `compute`."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from convt.arguments import parse_output_shape
from convt.tensorflow.geometry import Geometry
from convt.tensorflow.operations import compute

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
) -> tf.Tensor:
    """Compute `convt.conv3d_transpose` of tensors, eagerly or in a `tf.function`.

    Parameters
    ----------
    input, filters, bias : tf.Tensor or tf.Variable
        As for `convt.conv3d_transpose`, or what becomes a tensor. In a graph, sizes may be unknown.
    output_shape : sequence of int, tf.Tensor or None
        As for `convt.conv3d_transpose`; a tensor, too, may have -1 for entries to be inferred.
    strides, padding, data_format, dilations, groups
        As for `convt.conv3d_transpose`.
    name : str, optional
        The scope of the operations in a graph.
    threads, algorithm
        As for `convt.conv3d_transpose`, without effect on other devices than the CPU.
    out : None
        There is none: tensors can't be written to.

    Returns
    -------
    tf.Tensor
        Of the input's dtype. Tapes may be nested over it.

    Raises
    ------
    TypeError, ValueError
        As `convt.conv3d_transpose` does; in a graph, what shows only when it runs is an error of
        TensorFlow's.

    Examples
    --------
    >>> import tensorflow as tf
    >>> import convt.tensorflow
    >>> x, w = tf.ones((1, 4, 4, 4, 8)), tf.Variable(tf.ones((3, 3, 3, 16, 8)))
    >>> with tf.GradientTape() as tape:
    ...     y = convt.tensorflow.conv3d_transpose(x, w, None, strides=2)
    >>> tape.gradient(y, w).shape
    TensorShape([3, 3, 3, 16, 8])
    """
    _refuse_out(out)
    geometry = Geometry.of(strides, padding, data_format, dilations, groups, threads, algorithm)
    with tf.name_scope(name or "conv3d_transpose"):
        x, w, b = _tensors(input, filters, bias)
        return compute("output", geometry, x, w, _sizes(output_shape, geometry), b)


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
) -> tf.Tensor:
    """Compute `convt.conv3d` of tensors, eagerly or in a `tf.function`.

    Parameters, result and errors as for `convt.conv3d`; see `conv3d_transpose` here.

    Examples
    --------
    >>> import tensorflow as tf
    >>> import convt.tensorflow
    >>> x, w = tf.ones((1, 8, 8, 8, 16)), tf.ones((3, 3, 3, 16, 8))
    >>> convt.tensorflow.conv3d(x, w, strides=2, padding="SAME").shape
    TensorShape([1, 4, 4, 4, 8])
    """
    _refuse_out(out)
    geometry = Geometry.of(strides, padding, data_format, dilations, groups, threads, algorithm)
    with tf.name_scope(name or "conv3d"):
        x, w, b = _tensors(input, filters, bias)
        return compute("input", geometry, _transposed_filters(w, geometry.groups), x, bias=b)


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
) -> tf.Tensor:
    """Compute `convt.conv3d_transpose_filter_gradient` of tensors, eagerly or in a `tf.function`.

    Parameters, result and errors as there; see `conv3d_transpose` here.

    Examples
    --------
    >>> import tensorflow as tf
    >>> import convt.tensorflow
    >>> x, dy = tf.ones((1, 4, 4, 4, 8)), tf.ones((1, 8, 8, 8, 16))
    >>> convt.tensorflow.conv3d_transpose_filter_gradient(x, dy, (3, 3, 3, 16, 8), strides=2).shape
    TensorShape([3, 3, 3, 16, 8])
    """
    _refuse_out(out)
    geometry = Geometry.of(strides, padding, data_format, dilations, groups, threads)
    x, g, _ = _tensors(input, output_gradient, None)
    return compute("filters", geometry, x, g, tuple(filters_shape))


def _tensors(a: Any, b: Any, bias: Any) -> tuple[Any, Any, Any]:
    x, w = tf.convert_to_tensor(a), tf.convert_to_tensor(b)
    return x, w, None if bias is None else tf.convert_to_tensor(bias)


def _sizes(output_shape: Any, geometry: Geometry) -> Any:
    """The sizes asked for: None, a tuple of ints, or a tensor."""
    if output_shape is None:
        return None
    if tf.is_tensor(output_shape):
        return tf.convert_to_tensor(output_shape)
    if isinstance(output_shape, (list, tuple)) and any(
        type(n) is not int and tf.is_tensor(n) for n in output_shape
    ):
        return tf.stack(list(output_shape))
    return parse_output_shape(output_shape, geometry.data_format)


def _transposed_filters(filters: Any, groups: int) -> Any:
    """What `convt.trilinear.transposed_filters` does, for tensors."""
    if groups == 1:
        return filters
    *kernel, out, into = filters.shape
    split = tf.reshape(filters, (*kernel, out, groups, into // groups))
    return tf.reshape(
        tf.transpose(split, (0, 1, 2, 4, 3, 5)), (*kernel, groups * out, into // groups)
    )


def _refuse_out(out: Any) -> None:
    if out is not None:
        raise TypeError("out is for NumPy arrays: tensors can't be written to")
