"""The convolution, and the gradients, against live TensorFlow, bit for bit where sums are exact.

On the CPU, TensorFlow as shipped serves NDHWC without dilation or groups; XLA serves the rest.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import convt
from oracles import DTYPES, Array, assert_identical, integers, tensorflow
from problems import Problem, box, convolution

pytestmark = pytest.mark.slow  # TensorFlow takes seconds to import


def theirs(problem: Problem, x: Array, w: Array) -> Array:
    """TensorFlow's answer, through XLA where nothing else serves."""
    tf = tensorflow()
    last = problem.data_format == "NDHWC"
    strides, dilations = (
        [1, *values, 1] if last else [1, 1, *values]
        for values in (problem.strides, problem.dilations)
    )

    def operation(x: Any, w: Any) -> Any:
        return tf.nn.conv3d(x, w, strides, problem.padding, problem.data_format, dilations)

    if not last or problem.groups > 1 or problem.dilations != (1, 1, 1):
        operation = tf.function(operation, jit_compile=True, autograph=False)
    result: Array = operation(x, w).numpy()
    return result


# Input size, channels in and out, kernel, strides: sizes that strides don't divide; kernels below,
# at and above the stride, and longer than the input; one channel and a few vectors of them.
GEOMETRIES: list[Any] = [
    ((5, 6, 7), 5, 3, (3, 3, 3), (2, 2, 2)),
    ((6, 5, 9), 16, 8, (4, 4, 4), (2, 2, 2)),
    ((4, 4, 9), 33, 4, (2, 2, 2), (2, 2, 2)),
    ((3, 4, 17), 1, 1, (3, 3, 3), (1, 1, 1)),
    ((4, 7, 11), 2, 7, (3, 4, 1), (1, 2, 3)),
    ((4, 5, 8), 9, 2, (5, 1, 2), (3, 4, 3)),
    ((5, 8, 9), 1, 19, (1, 7, 5), (1, 2, 5)),
    ((9, 10, 11), 4, 40, (3, 3, 3), (2, 3, 1)),
]


def check(problem: Problem) -> None:
    x, w, _ = problem.integers()
    assert_identical(problem.call(x, w), theirs(problem, x, w))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_eagerly(dtype: Any, geometry: Any, padding: str) -> None:
    check(convolution(*geometry, padding=padding, batch=2, dtype=dtype))


# Every size of an axis up to more than the kernel. Where no window fits by more than a stride,
# convt refuses; TensorFlow, which rounds towards zero, waits for another stride.
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (4, 2), (2, 3), (5, 4)])
def test_sizes(kernel: int, stride: int, padding: str) -> None:
    for size in range(1, 2 * kernel + stride):
        problem = convolution((2, size, 3), 3, 2, (1, kernel, 1), (1, stride, 1), padding=padding)
        if problem.padding == "SAME" or size >= kernel - stride:
            check(problem)
            continue
        x, w, _ = problem.integers()
        with pytest.raises(ValueError, match=f"need at least {kernel}"):
            problem.call(x, w)
        if size <= kernel - 2 * stride:
            with pytest.raises(tensorflow().errors.InvalidArgumentError, match="be negative"):
                theirs(problem, x, w)
        else:
            assert theirs(problem, x, w).size == 0


XLA: list[dict[str, Any]] = [
    {"dilations": (2, 1, 3)},
    {"data_format": "NCDHW", "dtype": np.dtype(np.float64)},
    {"data_format": "NCDHW", "dilations": (1, 2, 2)},
    {"groups": 2, "dtype": DTYPES[0]},
    {"groups": 4, "data_format": "NCDHW", "dilations": (3, 1, 1), "dtype": DTYPES[1]},
]


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("given", XLA, ids=str)
def test_layouts_dilations_and_groups_through_xla(given: Any, padding: str) -> None:
    geometry: Any = ((7, 8, 10), 4, 8, (3, 2, 4), (2, 3, 1))
    check(convolution(*geometry, padding=padding, batch=2, **given))


# Random numbers are rounded, by TensorFlow too: both stay within a few epsilons of the sum of the
# products' sizes.
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 4e-15)])
@pytest.mark.parametrize(("into", "out"), [(20, 10), (2, 1), (96, 40)])
def test_random_numbers(into: int, out: int, dtype: Any, tolerance: float) -> None:
    shape: Any = ((8, 9, 18), into, out, (3, 4, 2), (2, 2, 2))
    problem = convolution(*shape, dtype=np.dtype(dtype))
    x, w, _ = problem.normal()
    scale = problem.call(np.abs(x), np.abs(w))
    difference = problem.call(x, w) - theirs(problem, x, w)
    assert np.max(np.abs(difference) / scale) < tolerance


def test_the_signature_begins_as_tensorflow_s() -> None:
    parameters = inspect.signature(tensorflow().nn.conv3d).parameters
    ours = inspect.signature(convt.conv3d).parameters
    assert list(ours)[: len(parameters)] == list(parameters)
    for name, parameter in parameters.items():
        assert ours[name].default == parameter.default
        assert ours[name].kind == parameter.kind


# --- gradients ----------------------------------------------------------------------------------
PULLED = [(np.dtype(np.float32), geometry) for geometry in GEOMETRIES[:5]]
PULLED += [(dtype, GEOMETRIES[0]) for dtype in DTYPES if dtype != np.float32]


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("dtype", "geometry"), PULLED, ids=str)
def test_the_pullback_is_tensorflow_s(dtype: Any, geometry: Any, padding: str) -> None:
    tf = tensorflow()
    problem = convolution(*geometry, padding=padding, batch=2, dtype=dtype).adjoint
    x, w, _ = problem.integers()
    bias = np.zeros(problem.out_channels, dtype)
    g = integers(np.random.default_rng(1), problem.output_shape, dtype)
    given: Any = (problem.output_shape, problem.strides, padding)
    tensors = [tf.constant(array) for array in (x, w, bias)]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        y = tf.nn.bias_add(tf.nn.conv3d_transpose(*tensors[:2], *given), tensors[2])
    output, pullback = convt.conv3d_transpose_vjp(x, w, *given, bias=bias)
    assert_identical(output, y.numpy())
    gradients = tape.gradient(y, tensors, tf.constant(g))
    # TensorFlow sums 16-bit gradients of a bias in 16 bits, which is not exact for many.
    for ours, expected in zip(
        pullback(g)[: 3 if dtype.itemsize > 2 else 2], gradients, strict=False
    ):
        assert_identical(ours, expected.numpy())


def test_a_training_step_through_a_box() -> None:
    """Random numbers, and the gradient of a square: every part of the chain meets TensorFlow's."""
    tf = tensorflow()
    problem = box((3, 4, 5), 20, 12, (3, 4, 2), (2, 2, 2))
    x, w, _ = problem.normal()
    given: Any = (problem.output_shape, problem.strides)
    tensors = tf.constant(x), tf.constant(w)
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        loss = tf.reduce_sum(tf.nn.conv3d_transpose(*tensors, *given) ** 2)
    output, pullback = convt.conv3d_transpose_vjp(x, w, *given)
    for ours, expected in zip(pullback(2 * output), tape.gradient(loss, tensors), strict=True):
        np.testing.assert_allclose(ours, expected.numpy(), rtol=0, atol=2e-6 * np.max(np.abs(ours)))
