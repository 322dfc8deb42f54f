"""convt for TensorFlow's tensors: the bits of the call on NumPy arrays, in graphs and under tapes too."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import convt
from convt.trilinear import Problem
from frameworks.forms import CASES, PLAIN, Case, expected, run_page, three
from oracles import DTYPES, assert_identical

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
tf.get_logger().setLevel("ERROR")

import convt.tensorflow  # noqa: E402

pytestmark = pytest.mark.slow  # TensorFlow takes seconds to import


def tensors(case: Case, dtype: Any = np.float64) -> Any:
    return tuple(tf.constant(array) for array in case.arrays(dtype))


def layer(case: Case, x: Any, w: Any, b: Any) -> Any:
    return convt.conv3d_transpose(
        x, w, case.output_shape, *case.arguments, bias=b, groups=case.groups
    )


def check(found: Any, wanted: Any) -> None:
    for actual, array in zip(found, wanted, strict=True):
        assert isinstance(actual, tf.Tensor)
        assert_identical(actual.numpy(), array)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_bits_of_numpy(dtype: Any, case: Case) -> None:
    given, wanted = tensors(case, dtype), expected(case, dtype)
    check(three(convt, case, *given), wanted)
    check(tf.function(lambda *a: three(convt, case, *a), autograph=False)(*given), wanted)


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("case", [case for case in CASES if case.data_format == "NDHWC"], ids=str)
def test_tensorflow_s_own_kernels_mean_the_same(case: Case, graph: bool) -> None:
    function = tf.function(three, autograph=False) if graph else three
    with convt.tensorflow.native_kernels():
        check(function(convt, case, *tensors(case)), expected(case, np.float64))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_are_those_on_numpy_arrays(case: Case) -> None:
    given = tensors(case)
    with tf.GradientTape() as tape:
        tape.watch(given)
        y = layer(case, *given)
        loss = tf.reduce_sum(y**2) / 2
    x, w, b = case.arrays(np.float64)
    _, pullback = convt.conv3d_transpose_vjp(
        x, w, case.output_shape, *case.arguments, bias=b, groups=case.groups
    )
    check(tape.gradient(loss, given), pullback(y.numpy()))


SMALL = Case((1, 2, 1), (1, 2, 1), (1, 2, 1), into=1, out=1)


def test_derivatives_by_finite_differences() -> None:
    def slopes(*given: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(given)
            y = tf.reduce_sum(tf.sin(layer(SMALL, *given)))
        return tf.concat([tf.reshape(g, [-1]) for g in tape.gradient(y, given)], 0)

    def function(*given: Any) -> Any:
        return tf.sin(layer(SMALL, *given))

    for checked in (function, slopes):
        found = tf.test.compute_gradient(checked, tensors(SMALL))
        for exact, numeric in zip(*found, strict=True):
            np.testing.assert_allclose(exact, numeric, atol=1e-4)


def test_result_and_gradients_are_those_of_tensorflow() -> None:
    rng = np.random.default_rng(1)
    x = tf.Variable(rng.standard_normal((2, 3, 2, 4, 3)))
    w = tf.Variable(rng.standard_normal((3, 4, 2, 5, 3)))

    def both(function: Any) -> Any:
        with tf.GradientTape() as outer, tf.GradientTape() as tape:
            y = function(x, w, [2, 6, 4, 8, 5], 2)
            slopes = tape.gradient(tf.sin(y), [x, w])
            total = tf.add_n([tf.reduce_sum(slope**2) for slope in slopes])
        return [y, *slopes, *outer.gradient(total, [x, w])]

    for actual, wanted in zip(
        both(convt.conv3d_transpose), both(tf.nn.conv3d_transpose), strict=True
    ):
        np.testing.assert_allclose(actual, wanted, rtol=1e-10, atol=1e-10)


SHAPES = [
    ((None, 3, 2, 4, 3), None, (None, 6, 4, 8, 5)),
    ((None, 3, 2, 4, 3), (-1, 5, 4, 7, 5), (None, 5, 4, 7, 5)),
    ((None, 3, None, 4, 3), (2, 5, 4, 7, 5), (2, 5, 4, 7, 5)),
    ((None, None, None, None, 3), None, (None,) * 5),
    (None, (2, 5, 4, 7, 5), (2, 5, 4, 7, 5)),
]


@pytest.mark.parametrize(("shape", "asked", "static"), SHAPES)
def test_graphs_know_what_can_be_known(shape: Any, asked: Any, static: Any) -> None:
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((2, 3, 2, 4, 3)), rng.standard_normal((3, 3, 3, 5, 3))
    shapes = []

    def call(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = convt.conv3d_transpose(x, tf.constant(w), asked, 2)
        shapes.append(y.shape)
        return y, tape.gradient(y, x)

    spec = tf.TensorSpec(shape, tf.float64)
    y, slope = tf.function(call, input_signature=[spec], autograph=False)(tf.constant(x))
    assert tuple(shapes[0]) == static
    assert_identical(y.numpy(), convt.conv3d_transpose(x, w, asked, 2))
    ones = np.ones(y.shape)
    assert_identical(slope.numpy(), convt.conv3d(ones, w, 2, "SAME"))


def test_an_output_shape_of_tensors() -> None:
    x, w = tf.ones((2, 3, 2, 4, 3)), tf.ones((3, 3, 3, 5, 3))
    wanted = convt.conv3d_transpose(x.numpy(), w.numpy(), [2, 5, 4, 8, 5], 2)
    shapes = []

    def call(x: Any) -> Any:
        y = convt.conv3d_transpose(x, w, [tf.shape(x)[0], 5, 4, 8, 5], 2)
        shapes.append(y.shape)
        return y

    spec = tf.TensorSpec((None, 3, 2, 4, 3))
    assert_identical(tf.function(call, [spec], autograph=False)(x).numpy(), wanted)
    assert tuple(shapes[0]) == (None, 5, 4, 8, 5)
    for asked in (tf.constant([2, 5, 4, 8, 5]), [2, 5, 4, tf.constant(8), 5]):
        check([convt.conv3d_transpose(x, w, asked, 2)], [wanted])
    asked = tf.stack([tf.size(x) // tf.size(x) * 2, 5, 4, 8, 5])
    whole = tf.function(lambda s: convt.conv3d_transpose(x, w, s, 2), autograph=False)
    assert_identical(whole(asked).numpy(), wanted)


def test_eager_tensors_are_neither_copied_in_nor_out(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    compute = Problem.compute

    def watch(self: Any, kind: Any, a: Any, b: Any, bias: Any = None, out: Any = None) -> Any:
        seen.append([array.ctypes.data for array in (a, b, out)])
        return compute(self, kind, a, b, bias, out)

    monkeypatch.setattr(Problem, "compute", watch)
    for dtype in DTYPES:
        x, w, _ = tensors(PLAIN, dtype)
        y = layer(PLAIN, x, w, None)
        assert seen.pop() == [tensor.__array__().ctypes.data for tensor in (x, w, y)]


def test_a_large_result_leaves_a_graph_without_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    compute = Problem.compute

    def watch(self: Any, *arguments: Any) -> Any:
        found = compute(self, *arguments)
        seen.append((arguments[1].ctypes.data, found.ctypes.data))
        return found

    monkeypatch.setattr(Problem, "compute", watch)
    x, w = tf.ones((1, 32, 32, 32, 2)), tf.ones((2, 2, 2, 2, 2))
    function = tf.function(lambda x: convt.conv3d_transpose(x, w, None, 2), autograph=False)
    y = function(x)
    assert seen == [(x.__array__().ctypes.data, y.__array__().ctypes.data)]


def test_wrong_arguments_are_errors() -> None:
    x, w, _ = tensors(PLAIN)

    def call(x: Any) -> Any:
        return convt.conv3d_transpose(x, w, [2, 9, 3, 6, 3], (2, 1, 3))

    for function in (call, tf.function(call, autograph=False)):
        with pytest.raises(ValueError, match=r"output_shape\[1\] = 9"):
            function(x)
    late = tf.function(call, [tf.TensorSpec([None] * 5, tf.float64)], autograph=False)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"output_shape\[1\] = 9"):
        late(x)
    with pytest.raises(TypeError, match="out is for NumPy arrays"):
        convt.tensorflow.conv3d_transpose(x, w, None, 1, out=np.empty(3))
    with pytest.raises(TypeError, match="int32"):
        convt.conv3d_transpose(tf.ones((1, 1, 1, 1, 1), tf.int32), w, None, 1)


def test_empty_tensors() -> None:
    x = tf.Variable(tf.ones((0, 2, 2, 2, 3)))
    with tf.GradientTape() as tape:
        y = convt.conv3d_transpose(x, tf.ones((2, 2, 2, 4, 3)), None, 2)
    assert y.shape == (0, 4, 4, 4, 4)
    assert tape.gradient(y, x).shape == x.shape


class TestPatched:
    """`convt.tensorflow.patched`."""

    x, w = tf.ones((1, 2, 2, 2, 3)), tf.ones((3, 3, 3, 5, 3))
    shape = (1, 4, 4, 4, 5)

    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """What convt computes."""
        calls: list[Any] = []
        compute = Problem.compute

        def watch(problem: Any, kind: Any, *arguments: Any) -> Any:
            calls.append(kind)
            return compute(problem, kind, *arguments)

        monkeypatch.setattr(Problem, "compute", watch)
        return calls

    def call(self) -> Any:
        return tf.nn.conv3d_transpose(self.x, self.w, self.shape, 2)

    def test_inside_and_nested_and_not_after(self, calls: list[Any]) -> None:
        original = tf.nn.conv3d_transpose
        wanted = self.call()
        with convt.tensorflow.patched():
            assert_identical(self.call().numpy(), wanted.numpy())
            with convt.tensorflow.patched():
                self.call()
            assert len(calls) == 2
            assert_identical(
                tf.nn.conv_transpose(self.x, self.w, self.shape, 2).numpy(), wanted.numpy()
            )
            assert tf.nn.conv_transpose(self.x[0], self.w[0], (2, 4, 4, 5), 2).shape == (
                2,
                4,
                4,
                5,
            )
            assert len(calls) == 3
        assert tf.nn.conv3d_transpose is original

    def test_after_an_error_too(self) -> None:
        original = tf.nn.conv3d_transpose
        with pytest.raises(KeyError), convt.tensorflow.patched():
            raise KeyError
        assert tf.nn.conv3d_transpose is original

    def test_as_a_decorator(self, calls: list[Any]) -> None:
        convt.tensorflow.patched()(self.call)()
        assert calls == ["output"]

    def test_other_threads_keep_theirs(self, calls: list[Any]) -> None:
        with convt.tensorflow.patched():
            thread = threading.Thread(target=self.call)
            thread.start()
            thread.join()
        assert not calls

    def test_graphs_and_tapes(self, calls: list[Any]) -> None:
        w = tf.Variable(self.w)

        def slope() -> Any:
            with tf.GradientTape() as tape:
                y = tf.nn.conv3d_transpose(self.x, w, self.shape, 2)
            return tape.gradient(y, w)

        with convt.tensorflow.patched():
            found = tf.function(slope)()
        assert "filters" in calls
        wanted = tf.function(slope)()
        assert_identical(found.numpy(), wanted.numpy())


def test_training_gives_the_losses_of_tensorflow() -> None:
    rng = np.random.default_rng(2)
    x = tf.constant(rng.standard_normal((4, 8, 8, 8, 1)), tf.float32)
    start = [rng.standard_normal((3, 3, 3, 1, 8)).astype("float32") / 5 for _ in range(2)]

    def losses(decode: Any) -> list[float]:
        weights = [tf.Variable(w) for w in start]

        def step() -> Any:
            with tf.GradientTape() as tape:
                code = tf.nn.conv3d(x, weights[0], (1, 2, 2, 2, 1), "SAME")
                loss = tf.reduce_mean((decode(tf.tanh(code), weights[1], x.shape, 2) - x) ** 2)
            for w, slope in zip(weights, tape.gradient(loss, weights), strict=True):
                w.assign_sub(0.1 * slope)
            return loss

        compiled = tf.function(step)
        return [float(compiled()) for _ in range(20)]

    ours = losses(convt.conv3d_transpose)
    assert ours[-1] < 0.9 * ours[0]
    np.testing.assert_allclose(ours, losses(tf.nn.conv3d_transpose), rtol=1e-5)


def test_the_page_s_examples_run() -> None:
    names = run_page("tensorflow.md")
    assert names["slope"].shape == names["w"].shape
    assert names["y"].shape == (1, 8, 8, 8, 16)
