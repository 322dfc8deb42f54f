"""The three operations on tensors in TensorFlow's own kernels, for devices other than the CPU.

Constraints of this file: results mean what convt's do, are differentiable as TensorFlow's operations are,
and sizes may be tensors. SAME and VALID are TensorFlow's own; explicit pairs crop or extend around VALID,
and groups are computed one by one, since TensorFlow has neither for the transposed convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from convt.tensorflow.geometry import Geometry
from convt.trilinear import Kind

__all__ = ["compute"]


def compute(
    kind: Kind, geometry: Geometry, a: Any, b: Any, sizes: Any = None, bias: Any = None
) -> Any:
    """Compute `kind` from the other two, `a` and `b`; `sizes` are the result's, unless it is an input."""
    operation = {"output": _output, "input": _input, "filters": _filters}[kind]
    found = operation(geometry, a, b, sizes)
    if bias is None:
        return found
    return tf.nn.bias_add(found, bias, _short(geometry))


def _short(geometry: Geometry) -> str:
    """The data format by the name that `bias_add` knows it under."""
    return "NHWC" if geometry.data_format == "NDHWC" else "NCHW"


def _output(geometry: Geometry, x: Any, w: Any, sizes: Any) -> Any:
    channels, spatial = _axes(geometry)
    shape = tf.convert_to_tensor(sizes)

    def one(x: Any, w: Any) -> Any:
        sizes = tf.tensor_scatter_nd_update(shape, [[channels]], [tf.shape(w, shape.dtype)[3]])
        if isinstance(geometry.padding, str):
            return _transpose(geometry, x, w, sizes, geometry.padding)
        before = tf.scatter_nd([[i] for i in spatial], [p[0] for p in geometry.padding], [5])
        full = _full_sizes(geometry, x, w, sizes)
        y = _transpose(geometry, x, w, full, "VALID")
        # Crop what is before, and what is behind; beyond the last tap there are zeros.
        before = tf.cast(before, shape.dtype)
        held = tf.maximum(tf.minimum(full - before, sizes), 0)
        y = tf.slice(y, tf.minimum(before, full), held)
        return tf.pad(y, tf.stack([tf.zeros_like(held), sizes - held], axis=1))

    return _grouped(geometry, one, (x, channels), (w, 3), channels)


def _full_sizes(geometry: Geometry, x: Any, w: Any, sizes: Any) -> Any:
    """The sizes of the output that the taps reach, before anything is cropped."""
    _, spatial = _axes(geometry)
    shape = tf.shape(x, sizes.dtype)
    for axis, i in enumerate(spatial):
        reach = (tf.shape(w, sizes.dtype)[axis] - 1) * geometry.dilations[axis] + 1
        size = tf.maximum((shape[i] - 1) * geometry.strides[axis] + reach, 0)
        sizes = tf.tensor_scatter_nd_update(sizes, [[i]], [size])
    return sizes


def _input(geometry: Geometry, w: Any, g: Any, _: Any) -> Any:
    channels, _spatial = _axes(geometry)
    padding = geometry.padding
    if not isinstance(padding, str):
        g, padding = _padded(geometry, g), "VALID"

    def one(w: Any, g: Any) -> Any:
        return tf.raw_ops.Conv3D(input=g, filter=w, **_attributes(geometry, padding))

    return _grouped(geometry, one, (w, 3), (g, channels), channels)


def _filters(geometry: Geometry, x: Any, g: Any, sizes: Any) -> Any:
    channels, _ = _axes(geometry)
    shape = tf.convert_to_tensor(sizes, tf.int32)
    padding = geometry.padding
    if not isinstance(padding, str):
        g, padding = _padded(geometry, g), "VALID"

    def one(x: Any, g: Any) -> Any:
        sizes = tf.tensor_scatter_nd_update(shape, [[3]], [shape[3] // geometry.groups])
        return tf.raw_ops.Conv3DBackpropFilterV2(
            input=g, filter_sizes=sizes, out_backprop=x, **_attributes(geometry, padding)
        )

    return _grouped(geometry, one, (x, channels), (g, channels), 3)


def _padded(geometry: Geometry, g: Any) -> Any:
    """The forward convolution's input with its explicit padding."""
    pairs: list[Any] = [(0, 0)] * 5
    for i, pair in zip(_axes(geometry)[1], geometry.padding, strict=True):
        pairs[i] = pair
    return tf.pad(g, pairs)


def _transpose(geometry: Geometry, x: Any, w: Any, sizes: Any, padding: str) -> Any:
    return tf.raw_ops.Conv3DBackpropInputV2(
        input_sizes=sizes, filter=w, out_backprop=x, **_attributes(geometry, padding)
    )


def _attributes(geometry: Geometry, padding: str) -> dict[str, Any]:
    def five(values: Sequence[int]) -> list[int]:
        return [1, *values, 1] if geometry.data_format == "NDHWC" else [1, 1, *values]

    return {
        "strides": five(geometry.strides),
        "padding": padding,
        "data_format": geometry.data_format,
        "dilations": five(geometry.dilations),
    }


def _axes(geometry: Geometry) -> tuple[int, tuple[int, int, int]]:
    """The axis of the channels, and the spatial ones."""
    return (4, (1, 2, 3)) if geometry.data_format == "NDHWC" else (1, (2, 3, 4))


def _grouped(
    geometry: Geometry,
    one: Callable[[Any, Any], Any],
    a: tuple[Any, int],
    b: tuple[Any, int],
    axis: int,
) -> Any:
    """``one(a, b)``, group by group: tensors are split and joined on the axis beside them."""
    if geometry.groups == 1:
        return one(a[0], b[0])
    pieces = zip(
        *(tf.split(tensor, geometry.groups, axis=where) for tensor, where in (a, b)), strict=True
    )
    return tf.concat([one(*pair) for pair in pieces], axis=axis)
