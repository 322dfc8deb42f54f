"""The definition, and what is allowed, against live TensorFlow.

Small integers make every sum exact in every dtype, so results are compared bit for bit. TensorFlow
alone serves NDHWC without dilation on the CPU; the rest goes through XLA.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from convt.reference import conv3d_transpose
from convt.spec import make_spec, size_range
from oracles import (
    DTYPES,
    assert_identical,
    integers,
    tensorflow,
    tensorflow_eager,
    tensorflow_xla,
)

pytestmark = pytest.mark.slow  # TensorFlow takes seconds to import

FLOAT32 = np.dtype(np.float32)

# (input size, kernel, strides): odd shapes, kernels below and above the stride, no common factor.
GEOMETRIES: list[tuple[Any, Any, Any]] = [
    ((2, 3, 4), (3, 3, 3), (2, 2, 2)),
    ((3, 1, 2), (4, 4, 4), (2, 2, 2)),
    ((3, 2, 1), (2, 2, 2), (2, 2, 2)),
    ((2, 3, 5), (3, 4, 1), (1, 2, 3)),
    ((1, 2, 3), (5, 1, 2), (3, 4, 3)),
    ((5, 2, 2), (1, 7, 5), (1, 2, 5)),
]


def allowed(size: Any, kernel: Any, strides: Any, dilations: Any, padding: Any) -> list[Any]:
    """List every output size that one problem may have."""
    axes = zip(size, kernel, strides, dilations, strict=True)
    ranges = [
        size_range(size=n, kernel=k, stride=s, dilation=d, padding=padding) for n, k, s, d in axes
    ]
    return list(itertools.product(*(range(low, high + 1) for low, high in ranges)))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_eagerly(dtype: np.dtype[Any], geometry: Any, padding: str) -> None:
    size, kernel, strides = geometry
    rng = np.random.default_rng(0)
    x, w = integers(rng, (2, *size, 3), dtype), integers(rng, (*kernel, 5, 3), dtype)
    sizes = allowed(size, kernel, strides, (1, 1, 1), padding)
    assert sizes
    for out in sizes:
        shape = (2, *out, 5)
        assert_identical(
            conv3d_transpose(x, w, shape, strides, padding),
            tensorflow_eager(x, w, shape, strides, padding),
        )


# Compiling takes most of the time, so the dtypes but one share a single case.
XLA = [(FLOAT32, "NDHWC", (2, 1, 3)), (FLOAT32, "NCDHW", (1, 1, 1))] + [
    (dtype, "NCDHW", (3, 2, 2)) for dtype in DTYPES
]


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("dtype", "data_format", "dilations"), XLA, ids=str)
def test_through_xla(dtype: Any, data_format: str, dilations: Any, padding: str) -> None:
    size, kernel, strides = (2, 3, 4), (3, 2, 4), (2, 3, 1)
    rng = np.random.default_rng(0)
    x, w = integers(rng, (2, *size, 3), dtype), integers(rng, (*kernel, 5, 3), dtype)
    sizes = allowed(size, kernel, strides, dilations, padding)
    for out in (sizes[0], sizes[-1]):
        shape = (2, *out, 5) if data_format == "NDHWC" else (2, 5, *out)
        arguments: Any = (
            x if data_format == "NDHWC" else np.moveaxis(x, -1, 1).copy(),
            w,
            shape,
            strides,
            padding,
            data_format,
            dilations,
        )
        assert_identical(conv3d_transpose(*arguments), tensorflow_xla(*arguments))


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 4e-15)])
def test_random_numbers(dtype: Any, tolerance: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 4, 5, 3, 20)).astype(dtype)
    w = rng.standard_normal((3, 4, 2, 10, 20)).astype(dtype)
    shape = (2, 8, 9, 6, 10)
    scale = conv3d_transpose(np.abs(x), np.abs(w), shape, 2)
    difference = conv3d_transpose(x, w, shape, 2) - tensorflow_eager(x, w, shape, 2, "SAME")
    assert np.max(np.abs(difference) / scale) < tolerance


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("size", "kernel", "stride"), [(3, 3, 2), (2, 2, 3), (4, 4, 1), (1, 5, 4)])
def test_tensorflow_allows_the_same_sizes(
    size: int, kernel: int, stride: int, padding: Any
) -> None:
    errors = tensorflow().errors
    low, high = size_range(size=size, kernel=kernel, stride=stride, dilation=1, padding=padding)
    x, w = np.ones((1, size, 1, 1, 1), np.float32), np.ones((kernel, 1, 1, 1, 1), np.float32)
    for out in range(1, high + stride + 2):
        arguments: Any = (x, w, (1, out, 1, 1, 1), (stride, 1, 1), padding)
        if low <= out <= high:
            assert tensorflow_eager(*arguments).shape == (1, out, 1, 1, 1)
        else:
            with pytest.raises(errors.InvalidArgumentError):
                tensorflow_eager(*arguments)


def test_tensorflow_s_shapes_and_tensors_are_integers() -> None:
    tf = tensorflow()
    x = tf.zeros((2, 4, 4, 4, 8))
    shape = tf.stack([tf.shape(x)[0], 8, 8, 8, 16])
    for output_shape in (shape, list(shape), tf.TensorShape([2, 8, None, 8, 16])):
        spec = make_spec(
            input_shape=x.shape,
            input_dtype=x.dtype.as_numpy_dtype,
            filters_shape=tf.TensorShape([3, 3, 3, 16, 8]),
            filters_dtype="float32",
            output_shape=output_shape,
            strides=tf.constant(2),
            padding="SAME",
            data_format=None,
            dilations=tf.constant([1, 1, 1]),
        )
        assert spec.output_shape == (2, 8, 8, 8, 16)
        assert spec.strides == (2, 2, 2)
    with pytest.raises(TypeError, match=r"strides\[0\] must be an integer"):
        make_spec(
            input_shape=(1, 1, 1, 1, 1),
            input_dtype="float32",
            filters_shape=(1, 1, 1, 1, 1),
            filters_dtype="float32",
            output_shape=None,
            strides=tf.constant([2.0]),
            padding="SAME",
            data_format=None,
            dilations=None,
        )
