"""Independent answers that tests compare with: TensorFlow itself, and sums written another way.

Constraints of this file: nothing here calls or copies convt, so that no error can be on both sides.
TensorFlow takes seconds to import, and is imported when a test first asks for it.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest

Array = np.ndarray[Any, Any]

BFLOAT16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
DTYPES: tuple[np.dtype[Any], ...] = (
    np.dtype(np.float16),
    BFLOAT16,
    np.dtype(np.float32),
    np.dtype(np.float64),
)


@functools.cache
def tensorflow() -> Any:
    """TensorFlow, or a skip of the test on a Python that it isn't published for."""
    tf = pytest.importorskip("tensorflow")
    # Each XLA case is a function of its own; the advice against that would fill the log.
    tf.get_logger().setLevel("ERROR")
    return tf


def tensorflow_eager(
    x: Array,
    w: Array,
    output_shape: Any,
    strides: Any,
    padding: str,
    data_format: str = "NDHWC",
    dilations: Any = None,
) -> Array:
    """Return TensorFlow's result as users get it: NDHWC and dilation 1 only."""
    result: Array = (
        tensorflow()
        .nn.conv3d_transpose(x, w, output_shape, strides, padding, data_format, dilations)
        .numpy()
    )
    return result


def tensorflow_xla(
    x: Array,
    w: Array,
    output_shape: Any,
    strides: Any,
    padding: str,
    data_format: str = "NDHWC",
    dilations: Any = None,
) -> Array:
    """Return TensorFlow's result through XLA, which serves both layouts and any dilation."""
    tf = tensorflow()

    def operation(x: Any, w: Any) -> Any:
        return tf.nn.conv3d_transpose(x, w, output_shape, strides, padding, data_format, dilations)

    result: Array = tf.function(operation, jit_compile=True, autograph=False)(x, w).numpy()
    return result


def forward_size(out: int, kernel: int, stride: int, dilation: int, padding: Any) -> int:
    """Return how many windows the forward convolution has on an axis of `out` voxels."""
    if padding == "SAME":
        return len(range(0, out, stride))
    before, after = (0, 0) if padding == "VALID" else padding
    last_tap = (kernel - 1) * dilation
    return len(range(0, before + out + after - last_tap, stride))


def forward_pads(
    out: int, kernel: int, stride: int, dilation: int, padding: Any
) -> tuple[int, int]:
    """Return what the forward convolution pads before and after an axis of `out` voxels."""
    if padding == "SAME":
        windows = -(-out // stride)
        total = max((windows - 1) * stride + (kernel - 1) * dilation + 1 - out, 0)
        return total // 2, total - total // 2
    before, after = (0, 0) if padding == "VALID" else padding
    return before, after


def conv3d(y: Array, w: Array, strides: Any, padding: Any, dilations: Any) -> Array:
    """Return the forward convolution in NDHWC, whose adjoint is the transposed one.

    `y` is `[batch, depth, height, width, out]`, `w` is `[depth, height, width, out, in]` and the
    result `[batch, ..., in]`; it is gathered through windows, where the transposed one scatters.
    """
    given = [padding] * 3 if isinstance(padding, str) else padding
    axes = zip(y.shape[1:4], w.shape[:3], strides, dilations, given, strict=True)
    padded = np.pad(y, [(0, 0), *(forward_pads(*axis) for axis in axes), (0, 0)])
    reach = [(k - 1) * d + 1 for k, d in zip(w.shape[:3], dilations, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(1, 2, 3))
    starts: Any = (slice(None), *(slice(None, None, s) for s in strides), slice(None))
    taps: Any = (..., *(slice(None, None, d) for d in dilations))
    result: Array = np.einsum("ndhwoabc,abcoi->ndhwi", windows[starts][taps], w)
    return result


def loops(
    x: Array, w: Array, output_shape: Any, strides: Any, pad_before: Any, dilations: Any
) -> Array:
    """Return the transposed convolution in NDHWC by the definition, one product at a time."""
    y = np.zeros(output_shape, x.dtype)
    sizes = (*x.shape[1:4], *w.shape[:3])
    for d, h, v, a, b, c in itertools.product(*map(range, sizes)):
        voxel, tap = (d, h, v), (a, b, c)
        target = tuple(
            strides[axis] * voxel[axis] + dilations[axis] * tap[axis] - pad_before[axis]
            for axis in range(3)
        )
        if not all(0 <= o < n for o, n in zip(target, output_shape[1:4], strict=True)):
            continue
        channels = (len(x), w.shape[3], w.shape[4])
        for batch, out, into in itertools.product(*map(range, channels)):
            y[(batch, *target, out)] += x[batch, d, h, v, into] * w[a, b, c, out, into]
    return y


def integers(rng: np.random.Generator, shape: Any, dtype: Any) -> Array:
    """Return small integers, whose few products and sums are exact in every dtype."""
    values: Array = rng.integers(-2, 3, shape).astype(dtype)
    return values


def assert_identical(actual: Array, expected: Array) -> None:
    """Check that shape, dtype and every value agree; a NaN equals a NaN."""
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual.astype(np.float64), expected.astype(np.float64))


def assert_accurate(actual: Array, exact: Array, scale: Array, bound: float) -> None:
    """Check that errors stay below `bound` epsilons of `scale`, the sum of the |products|."""
    assert actual.shape == exact.shape
    epsilon = {2: 2.0**-10, 4: 2.0**-23, 8: 2.0**-52}[actual.dtype.itemsize]
    epsilon = 2.0**-7 if actual.dtype == BFLOAT16 else epsilon
    error = np.abs(actual.astype(np.float64) - exact)
    worst = float(np.max(error / (epsilon * np.maximum(scale, 1e-300)), initial=0.0))
    assert worst <= bound, f"error of {worst:.3g} epsilons, more than {bound}"
