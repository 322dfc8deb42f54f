"""convt against live TensorFlow, bit for bit where sums are exact.

On the CPU, TensorFlow as shipped serves NDHWC without dilation; XLA serves the rest.
"""

from __future__ import annotations

import inspect
import itertools
from typing import Any

import numpy as np
import pytest

import convt
from convt.spec import size_range
from oracles import (
    DTYPES,
    Array,
    assert_identical,
    integers,
    tensorflow,
    tensorflow_eager,
    tensorflow_xla,
)

pytestmark = pytest.mark.slow  # TensorFlow takes seconds to import

# (input size, kernel, strides, channels in and out): odd shapes, kernels below, at and above the
# stride, strides without a common factor, one channel and a few vectors of them.
GEOMETRIES: list[Any] = [
    ((2, 3, 4), (3, 3, 3), (2, 2, 2), 3, 5),
    ((3, 1, 2), (4, 4, 4), (2, 2, 2), 8, 16),
    ((3, 2, 5), (2, 2, 2), (2, 2, 2), 4, 33),
    ((2, 3, 17), (3, 3, 3), (1, 1, 1), 1, 1),
    ((2, 3, 9), (3, 4, 1), (1, 2, 3), 7, 2),
    ((1, 2, 3), (5, 1, 2), (3, 4, 3), 2, 9),
    ((5, 2, 2), (1, 7, 5), (1, 2, 5), 19, 1),
]
# The same, dilated; the first holds every output size of two axes.
DILATED: list[Any] = [
    ((2, 3, 4), (3, 2, 4), (2, 3, 1), (3, 2, 2), 3, 5),
    ((1, 2, 9), (2, 3, 3), (1, 2, 2), (1, 1, 3), 5, 1),
]


def sizes(size: Any, kernel: Any, strides: Any, dilations: Any, padding: Any) -> list[Any]:
    """List every output size that one problem may have."""
    axes = zip(size, kernel, strides, dilations, strict=True)
    ranges = [
        size_range(size=n, kernel=k, stride=s, dilation=d, padding=padding) for n, k, s, d in axes
    ]
    return list(itertools.product(*(range(low, high + 1) for low, high in ranges)))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_output_size_eagerly(dtype: Any, geometry: Any, padding: str) -> None:
    size, kernel, strides, into, out = geometry
    rng = np.random.default_rng(0)
    x, w = integers(rng, (2, *size, into), dtype), integers(rng, (*kernel, out, into), dtype)
    allowed = sizes(size, kernel, strides, (1, 1, 1), padding)
    assert allowed
    for voxels in allowed:
        arguments = (x, w, (2, *voxels, out), strides, padding)
        assert_identical(convt.conv3d_transpose(*arguments), tensorflow_eager(*arguments))


def xla_cases() -> list[Any]:
    """Every dtype in NCDHW with dilation; float32 and float64 in the other combinations too."""
    cases = [(dtype, "NCDHW", geometry) for dtype in DTYPES for geometry in DILATED]
    cases += [(dtype, "NDHWC", DILATED[0]) for dtype in DTYPES[2:]]
    plain = [(*g[:3], (1, 1, 1), *g[3:]) for g in GEOMETRIES[1:4]]
    return cases + [(DTYPES[2], "NCDHW", geometry) for geometry in plain]


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("dtype", "data_format", "geometry"), xla_cases(), ids=str)
def test_layouts_and_dilations_through_xla(
    dtype: Any, data_format: str, geometry: Any, padding: str
) -> None:
    size, kernel, strides, dilations, into, out = geometry
    last = data_format == "NDHWC"
    rng = np.random.default_rng(0)
    x = integers(rng, (2, *size, into) if last else (2, into, *size), dtype)
    w = integers(rng, (*kernel, out, into), dtype)
    allowed = sizes(size, kernel, strides, dilations, padding)
    for voxels in (allowed[0], allowed[len(allowed) // 2], allowed[-1]):
        shape = (2, *voxels, out) if last else (2, out, *voxels)
        arguments = (x, w, shape, strides, padding, data_format, dilations)
        assert_identical(convt.conv3d_transpose(*arguments), tensorflow_xla(*arguments))


# Random numbers are rounded, by TensorFlow too: both stay within a few epsilons of the sum of the
# products' sizes.
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 4e-15)])
@pytest.mark.parametrize(("into", "out"), [(20, 10), (2, 1), (96, 40)])
def test_random_numbers(into: int, out: int, dtype: Any, tolerance: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 4, 5, 9, into)).astype(dtype)
    w = rng.standard_normal((3, 4, 2, out, into)).astype(dtype)
    shape = (2, 8, 9, 18, out)
    scale = convt.conv3d_transpose(np.abs(x), np.abs(w), shape, 2)
    difference = convt.conv3d_transpose(x, w, shape, 2) - tensorflow_eager(x, w, shape, 2, "SAME")
    assert np.max(np.abs(difference) / scale) < tolerance


# --- moving from TensorFlow ---------------------------------------------------------------------
SNIPPET = """
import numpy as np
{imports}

rng = np.random.default_rng(0)
features = rng.standard_normal((2, 4, 4, 4, 32), dtype=np.float32)
filters = rng.standard_normal((3, 3, 3, 16, 32), dtype=np.float32)
batch, depth, height, width, _ = features.shape
upsampled = nn.conv3d_transpose(
    features,
    filters,
    output_shape=[batch, 2 * depth, 2 * height, 2 * width, 16],
    strides=[1, 2, 2, 2, 1],
    padding="SAME",
    name="decoder/upsample",
)
result = np.maximum(upsampled, 0)
"""


def test_a_user_changes_the_import_alone() -> None:
    tensorflow()
    ours: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    exec(SNIPPET.format(imports="from tensorflow import nn"), theirs)
    exec(SNIPPET.format(imports="import convt as nn"), ours)
    result: Array = ours["result"]
    assert result.shape == (2, 8, 8, 8, 16)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, theirs["result"], rtol=1e-5, atol=1e-4)


def test_the_signature_begins_as_tensorflow_s() -> None:
    theirs = inspect.signature(tensorflow().nn.conv3d_transpose).parameters
    ours = inspect.signature(convt.conv3d_transpose).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    for name, parameter in theirs.items():
        assert ours[name].default == parameter.default
        assert ours[name].kind == parameter.kind


@pytest.mark.parametrize("kind", ["tensor", "shape"])
def test_output_shape_may_be_tensorflow_s(kind: str) -> None:
    tf = tensorflow()
    shape = (2, 8, 7, 8, 5)
    output_shape = tf.constant(shape) if kind == "tensor" else tf.TensorShape(shape)
    x, w = np.ones((2, 4, 4, 4, 3), np.float32), np.ones((3, 3, 3, 5, 3), np.float32)
    y = convt.conv3d_transpose(x, w, output_shape, tf.constant([1, 2, 2, 2, 1]))
    assert_identical(y, tensorflow_eager(x, w, output_shape, 2, "SAME"))


def test_tensors_come_back_as_tensors() -> None:
    tf = tensorflow()
    x, w = np.ones((2, 4, 4, 4, 3), np.float32), np.ones((3, 3, 3, 5, 3), np.float32)
    y = convt.conv3d_transpose(tf.constant(x), tf.Variable(w), None, 2)
    assert isinstance(y, tf.Tensor)
    assert_identical(y.numpy(), convt.conv3d_transpose(x, w, None, 2))


# TensorFlow's own faults, which are not the meaning: see `test_crashes` for what convt does. The
# test tells when TensorFlow changes its mind.
def test_tensorflow_gives_zeros_for_a_kernel_without_taps() -> None:
    x, w = np.ones((1, 2, 2, 2, 3), np.float32), np.ones((0, 3, 3, 5, 3), np.float32)
    assert not np.any(tensorflow_eager(x, w, (1, 4, 4, 4, 5), 2, "SAME"))
    with pytest.raises(ValueError, match=r"filters\.shape\[0\] = 0 \(depth\)"):
        convt.conv3d_transpose(x, w, (1, 4, 4, 4, 5), 2)
