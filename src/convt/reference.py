"""The definition of the operation in NumPy, a few lines to be checked by eye.

Constraints of this file: it shares no code with the rest of the package, so that an error in one
isn't in the other, and it takes valid arguments for granted: `convt.conv3d_transpose` checks them.
It also answers where no code can be generated, hence slices per tap in place of loops per voxel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["conv3d_transpose", "filter_gradient", "input_gradient"]


def conv3d_transpose(
    input: Any,
    filters: Any,
    output_shape: Any,
    strides: Any,
    padding: Any = "SAME",
    data_format: str | None = "NDHWC",
    dilations: Any = None,
    *,
    bias: Any = None,
    groups: int = 1,
    dtype: Any = None,
) -> np.ndarray[Any, Any]:
    """Compute the transposed 3-D convolution as the sum that defines it.

    On each axis, input voxel `i` times tap `t` adds to the output voxel
    ``o = stride * i + dilation * t - pad_before`` if there is one; nothing else is multiplied.

    Parameters
    ----------
    input, filters, output_shape, strides, padding, data_format, dilations, bias, groups
        As for `convt.conv3d_transpose`; not checked.
    dtype : dtype, optional
        Sums and result have this dtype: float64 gives an answer to measure errors against. By
        default sums are in float64 for float64 and in float32 for the rest, and are rounded once,
        at the end, to the input's dtype.

    Returns
    -------
    numpy.ndarray
        A new C-contiguous array in native byte order.

    Examples
    --------
    Each of two voxels is spread over the three taps; the first output is cropped by SAME.

    >>> x = np.array([1.0, 10.0]).reshape(1, 1, 1, 2, 1)
    >>> w = np.array([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1, 1)
    >>> conv3d_transpose(x, w, [1, 1, 1, 4, 1], strides=[1, 1, 2]).ravel()
    array([ 1.,  2., 13., 20.])
    """
    last = data_format != "NCDHW"
    x, w = np.asarray(input), np.asarray(filters)
    result = np.dtype(x.dtype if dtype is None else dtype).newbyteorder("=")
    sums = result if dtype is not None or result == np.float64 else np.dtype(np.float32)
    asked = [-1] * 5 if output_shape is None else list(output_shape)
    out = asked[1:4] if last else asked[2:5]
    size = x.shape[1:4] if last else x.shape[2:5]
    s, d = _per_axis(strides, last), _per_axis(dilations, last)
    pads = [padding] * 3 if isinstance(padding, str) else padding
    axes = list(zip(out, size, w.shape[:3], s, d, pads, strict=True))
    depth, height, width = (_hits(*axis) for axis in axes)
    y = np.zeros((len(x), *(_size(*axis) for axis in axes), w.shape[3]), sums)
    with np.errstate(all="ignore"):
        x = np.array(x if last else np.moveaxis(x, 1, -1), sums, order="C")
        w = w.astype(sums, copy=False)
        ci, co = x.shape[4] // groups, w.shape[3] // groups
        for a, b, c in np.ndindex(w.shape[:3]):
            (xa, ya), (xb, yb), (xc, yc) = depth[a], height[b], width[c]
            for g in range(groups):
                i, o = slice(g * ci, (g + 1) * ci), slice(g * co, (g + 1) * co)
                y[:, ya, yb, yc, o] += x[:, xa, xb, xc, i] @ w[a, b, c, o].T
        y = (y if bias is None else y + np.asarray(bias, sums)).astype(result, copy=False)
    return y if last else np.ascontiguousarray(np.moveaxis(y, -1, 1))


def input_gradient(
    output_gradient: Any,
    filters: Any,
    input_size: Any,
    strides: Any,
    padding: Any = "SAME",
    data_format: str | None = "NDHWC",
    dilations: Any = None,
    *,
    bias: Any = None,
    groups: int = 1,
    dtype: Any = None,
) -> np.ndarray[Any, Any]:
    """Compute the gradient of `conv3d_transpose` in its input: the forward convolution.

    Parameters
    ----------
    output_gradient
        Of the shape that `conv3d_transpose` returned.
    filters, strides, padding, data_format, dilations, groups, dtype
        As for `conv3d_transpose`.
    input_size
        Depth, height and width of the input, which is what the result is like.
    bias
        One value per channel of the result, added to it.

    Examples
    --------
    >>> y, w = np.arange(4.0).reshape(1, 1, 1, 4, 1), np.array([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1, 1)
    >>> input_gradient(y, w, (1, 1, 2), strides=[1, 1, 2]).ravel()
    array([8., 8.])
    """
    last = data_format != "NCDHW"
    g, w = np.asarray(output_gradient), np.asarray(filters)
    result = np.dtype(g.dtype if dtype is None else dtype).newbyteorder("=")
    sums = result if dtype is not None or result == np.float64 else np.dtype(np.float32)
    depth, height, width = _axes(
        g.shape, input_size, w.shape[:3], strides, padding, last, dilations
    )
    x = np.zeros((len(g), *input_size, w.shape[4] * groups), sums)
    with np.errstate(all="ignore"):
        g = np.array(g if last else np.moveaxis(g, 1, -1), sums, order="C")
        w = w.astype(sums, copy=False)
        ci, co = w.shape[4], w.shape[3] // groups
        for a, b, c in np.ndindex(w.shape[:3]):
            (xa, ya), (xb, yb), (xc, yc) = depth[a], height[b], width[c]
            for k in range(groups):
                i, o = slice(k * ci, (k + 1) * ci), slice(k * co, (k + 1) * co)
                x[:, xa, xb, xc, i] += g[:, ya, yb, yc, o] @ w[a, b, c, o]
        x = (x if bias is None else x + np.asarray(bias, sums)).astype(result, copy=False)
    return x if last else np.ascontiguousarray(np.moveaxis(x, -1, 1))


def filter_gradient(
    input: Any,
    output_gradient: Any,
    filters_shape: Any,
    strides: Any,
    padding: Any = "SAME",
    data_format: str | None = "NDHWC",
    dilations: Any = None,
    *,
    groups: int = 1,
    dtype: Any = None,
) -> np.ndarray[Any, Any]:
    """Compute the gradient of `conv3d_transpose` in its filters, which `filters_shape` is the shape of.

    Other parameters as for `conv3d_transpose` and `input_gradient`.

    Examples
    --------
    >>> x, y = np.ones((1, 1, 1, 2, 1)), np.arange(4.0).reshape(1, 1, 1, 4, 1)
    >>> filter_gradient(x, y, (1, 1, 3, 1, 1), strides=[1, 1, 2]).ravel()
    array([2., 4., 2.])
    """
    last = data_format != "NCDHW"
    x, g = np.asarray(input), np.asarray(output_gradient)
    result = np.dtype(x.dtype if dtype is None else dtype).newbyteorder("=")
    sums = result if dtype is not None or result == np.float64 else np.dtype(np.float32)
    size = x.shape[1:4] if last else x.shape[2:5]
    kernel = tuple(filters_shape[:3])
    depth, height, width = _axes(g.shape, size, kernel, strides, padding, last, dilations)
    w = np.zeros(tuple(filters_shape), sums)
    with np.errstate(all="ignore"):
        x, g = (np.array(v if last else np.moveaxis(v, 1, -1), sums, order="C") for v in (x, g))
        ci, co = w.shape[4], w.shape[3] // groups
        for a, b, c in np.ndindex(kernel):
            (xa, ya), (xb, yb), (xc, yc) = depth[a], height[b], width[c]
            for k in range(groups):
                i, o = slice(k * ci, (k + 1) * ci), slice(k * co, (k + 1) * co)
                w[a, b, c, o] = np.tensordot(
                    g[:, ya, yb, yc, o], x[:, xa, xb, xc, i], ((0, 1, 2, 3), (0, 1, 2, 3))
                )
    return w.astype(result, copy=False)


def _axes(
    output_shape: Any,
    input_size: Any,
    kernel: Any,
    strides: Any,
    padding: Any,
    last: bool,
    dilations: Any,
) -> list[list[tuple[slice, slice]]]:
    """The hits of each axis."""
    out = output_shape[1:4] if last else output_shape[2:5]
    s, d = _per_axis(strides, last), _per_axis(dilations, last)
    pads = [padding] * 3 if isinstance(padding, str) else padding
    return [_hits(*axis) for axis in zip(out, input_size, kernel, s, d, pads, strict=True)]


def _hits(
    asked: int | None, size: int, kernel: int, stride: int, dilation: int, padding: Any
) -> list[tuple[slice, slice]]:
    """For every tap of an axis, the inputs that it reads and the outputs that it adds to."""
    out = _size(asked, size, kernel, stride, dilation, padding)
    if padding == "SAME":
        before = max((size - 1) * stride + (kernel - 1) * dilation + 1 - out, 0) // 2
    else:
        before = 0 if padding == "VALID" else int(padding[0])
    found = []
    for tap in range(kernel):
        start = dilation * tap - before
        hits = [i for i in range(size) if 0 <= stride * i + start < out]
        if hits:
            o = slice(stride * hits[0] + start, stride * hits[-1] + start + 1, stride)
            found.append((slice(hits[0], hits[-1] + 1), o))
        else:
            found.append((slice(0), slice(0)))
    return found


def _size(
    asked: int | None, size: int, kernel: int, stride: int, dilation: int, padding: Any
) -> int:
    """Return the output's size: the one asked for, or the inferred one for None and -1."""
    if asked is not None and asked != -1:
        return int(asked)
    if padding == "SAME":
        return size * stride
    before, after = (0, 0) if padding == "VALID" else padding
    return max((size - 1) * stride + (kernel - 1) * dilation + 1 - before - after, 0)


def _per_axis(value: Any, last: bool) -> list[int]:
    """Return depth, height and width of None, of an integer, or of 1, 3 or 5 integers."""
    values = [1] if value is None else [int(v) for v in np.ravel(value)]
    if len(values) == 5:
        return values[1:4] if last else values[2:5]
    return values * 3 if len(values) == 1 else values
