"""The gradient in the filters, against the definition, TensorFlow and itself."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import convt
from convt import jit, reference
from oracles import BFLOAT16, DTYPES, Array, assert_identical, integers, tensorflow
from problems import Problem, examples, layouts, problems, untouched

gradient = convt.conv3d_transpose_filter_gradient

# What lanes are: channels of either side, positions, groups; or taps of the width act as rows.
KINDS: dict[str, dict[str, Any]] = {
    "inputs": {"into": 24, "out": 13},
    "outputs": {"into": 3, "out": 41},
    "folded": {"into": 24, "out": 2},
    "positions": {"into": 2, "out": 3},
    "one": {"into": 1, "out": 1},
    "groups": {"into": 19, "out": 19, "groups": 19},
    "grouped": {"into": 15, "out": 21, "groups": 3},
}


def arguments(problem: Problem) -> dict[str, Any]:
    """Everything but the arrays, by the names that convt and its reference share."""
    given = dict(problem.arguments)
    del given["output_shape"]
    return {"filters_shape": problem.filters_shape, **given}


def operands(problem: Problem, seed: int = 0) -> tuple[Array, Array]:
    """Input and output gradient of small integers, whose sums are exact in float32."""
    rng = np.random.default_rng(seed)
    shapes = (problem.input_shape, problem.output_shape)
    x, g = (integers(rng, shape, problem.dtype) for shape in shapes)
    return x, g


def make(
    kind: str, data_format: str = "NDHWC", dtype: Any = np.float32, size: Any = (3, 4, 11)
) -> Problem:
    into, out, groups = (KINDS[kind].get(name, 1) for name in ("into", "out", "groups"))
    return Problem(
        batch=2,
        in_channels=into,
        out_channels=out,
        groups=groups,
        input_size=size,
        kernel=(2, 3, 4),
        output_size=tuple(n * s for n, s in zip(size, (1, 2, 2), strict=True)),
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        padding="SAME",
        data_format=data_format,
        dtype=np.dtype(dtype),
        bias=False,
    )


def check(problem: Problem, seed: int = 0) -> None:
    x, g = operands(problem, seed)
    expected = reference.filter_gradient(x, g, **arguments(problem))
    assert_identical(gradient(x, g, **arguments(problem)), expected)


# --- against the definition ---------------------------------------------------------------------
@examples(8)
@given(problems(), st.integers(0, 99))
def test_a_few_problems(problem: Problem, seed: int) -> None:
    check(problem, seed)


@pytest.mark.slow
@examples(90)
@given(problems(), st.integers(0, 99))
def test_many_problems(problem: Problem, seed: int) -> None:
    check(problem, seed)


SOME = [pytest.param(d, marks=() if d == np.float32 else pytest.mark.slow) for d in DTYPES]


@pytest.mark.parametrize("dtype", SOME, ids=str)
@pytest.mark.parametrize("data_format", ["NDHWC", "NCDHW"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind(kind: str, data_format: str, dtype: Any) -> None:
    check(make(kind, data_format, dtype))


# Sizes that are cut: many channels, positions in many boxes and parts, many taps, far taps.
LARGE: list[tuple[Any, ...]] = [
    ((2, 3, 4), 300, 270, 2, 2, 1),
    ((3, 30, 40), 40, 20, 3, 1, 1),
    ((1, 4, 700), 17, 9, 3, 2, 1),
    ((2, 90, 300), 2, 1, 3, 2, 1),
    ((1, 2, 3), 40, 12, 11, 3, 1),
    ((5, 5, 5), 12, 10, 3, 1, 40),
    ((5, 5, 5), 12, 10, 1, 7, 1),
]


@pytest.mark.slow
@pytest.mark.parametrize("large", LARGE, ids=str)
def test_sizes_that_are_cut(large: Any) -> None:
    size, into, out, kernel, stride, dilation = large
    full = [(n - 1) * stride + (kernel - 1) * dilation + 1 for n in size]
    problem = Problem(
        batch=1,
        in_channels=into,
        out_channels=out,
        groups=1,
        input_size=size,
        kernel=(kernel,) * 3,
        output_size=tuple(full),
        strides=(stride,) * 3,
        dilations=(dilation,) * 3,
        padding="VALID",
        data_format="NDHWC",
        dtype=np.dtype(np.float32),
        bias=False,
    )
    check(problem)


@pytest.mark.parametrize("kind", [k if k == "inputs" else pytest.param(k, marks=pytest.mark.slow)
                                  for k in KINDS])  # fmt: skip
def test_a_new_size_compiles_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check(make(kind))
    monkeypatch.setattr(jit, "emit", None)  # whoever compiles calls it
    check(make(kind, size=(2, 5, 7)))


# --- memory -------------------------------------------------------------------------------------
@examples(12)
@given(st.sampled_from(list(KINDS)), st.sampled_from(["NDHWC", "NCDHW"]), st.data())
def test_any_strides_and_byte_order(kind: str, data_format: str, data: st.DataObject) -> None:
    problem = make(kind, data_format)
    x, g = (data.draw(layouts(5, v.dtype)).array(v) for v in operands(problem))
    layout = data.draw(layouts(5, problem.dtype, written=True))
    out = layout.array(np.zeros(problem.filters_shape, problem.dtype))
    assert gradient(x, g, **arguments(problem), out=out) is out
    assert_identical(np.array(out), reference.filter_gradient(x, g, **arguments(problem)))
    assert untouched(out)


def within(array: Array, shape: Any) -> Array:
    """An array of `shape` in the memory of a larger one."""
    found: Array = array.reshape(-1)[: np.prod(shape)].reshape(shape)
    return found


@pytest.mark.parametrize("kind", ["one", "positions"])
def test_out_is_refused_before_it_is_touched(kind: str) -> None:
    problem = make(kind)
    x, g = operands(problem)
    shape = problem.filters_shape
    repeated = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), shape, (0,) * 5)
    frozen = np.zeros(shape, np.float32)
    frozen.flags.writeable = False
    wrong: list[tuple[Any, type[Exception], str]] = [
        ([], TypeError, "out must be a numpy.ndarray, got list"),
        (
            np.zeros(shape[1:], np.float32),
            ValueError,
            r"out.shape = .* must be filters_shape: ",
        ),
        (np.zeros(shape, np.float64), TypeError, "out.dtype = float64 must be the input's"),
        (np.zeros(shape, ">f4"), TypeError, "native order"),
        (frozen, ValueError, "out must be writeable"),
        (repeated, ValueError, "let elements of out share memory"),
        (within(x, shape), ValueError, "out shares memory with input"),
        (within(g, shape), ValueError, "out shares memory with output_gradient"),
    ]
    kept = x.copy(), g.copy()
    for out, kind_of_error, message in wrong:
        with pytest.raises(kind_of_error, match=message):
            gradient(x, g, **arguments(problem), out=out)
    assert_identical(x, kept[0])
    assert_identical(g, kept[1])


@pytest.mark.parametrize("empty", ["batch", "input", "channels in", "channels out", "output"])
def test_empty_arrays(empty: str) -> None:
    x, g = np.ones((2, 3, 3, 3, 4), np.float32), np.ones((2, 3, 3, 3, 5), np.float32)
    shape, padding = [3, 3, 3, 5, 4], "SAME"  # type: list[int], Any
    if empty == "batch":
        x, g = x[:0], g[:0]
    elif empty == "input":
        x, g = x[:, :0], g[:, :0]
    elif empty == "channels in":
        x, shape[4] = x[..., :0], 0
    elif empty == "channels out":
        g, shape[3] = g[..., :0], 0
    else:  # an input whose outputs are all cropped
        x, g, padding = x[:, :1], g[:, :0], [(2, 1), (1, 1), (1, 1)]
    out = np.full(shape, np.nan, np.float32)
    found = gradient(x, g, shape, 1, padding, out=out)
    assert_identical(found, np.zeros(shape, np.float32))


# --- values -------------------------------------------------------------------------------------
@pytest.mark.parametrize("data_format", ["NDHWC", "NCDHW"])
@pytest.mark.parametrize("kind", KINDS)
def test_not_a_number_stays_where_it_belongs(kind: str, data_format: str) -> None:
    problem = make(kind, data_format)
    special = (np.nan, np.inf, -np.inf)
    rng = np.random.default_rng(0)
    for name in ("input", "output_gradient"):
        for number in range(8):
            x, g = operands(problem, number)
            array = x if name == "input" else g
            # Corners and borders first, where taps have no output.
            corner = [
                rng.choice([0, n - 1]) if number < 6 else rng.integers(n) for n in array.shape
            ]
            array[tuple(corner)] = special[number % 3]
            expected = reference.filter_gradient(x, g, **arguments(problem))
            assert_identical(gradient(x, g, **arguments(problem)), expected)


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16], ids=str)
def test_halves_are_rounded_once(dtype: Any) -> None:
    problem = make("inputs", dtype=dtype)
    rng = np.random.default_rng(0)
    x, g = (
        rng.integers(-40, 41, shape).astype(dtype)
        for shape in (problem.input_shape, problem.output_shape)
    )
    exact = reference.filter_gradient(x, g, **arguments(problem), dtype=np.float64)
    assert_identical(gradient(x, g, **arguments(problem)), exact.astype(dtype))


# Many positions: (size, channels in, channels out, kernel).
LONG = [((8, 64, 64), 9, 4, 1), ((8, 64, 64), 1, 2, 2), ((32, 32, 32), 8, 5, 1)]


@pytest.mark.parametrize("long", LONG, ids=str)
def test_long_sums_are_accurate(long: Any) -> None:
    """The error is at most twice that of NumPy's matrix product, which sums by blocks."""
    size, into, out, kernel = long
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, *size, into), np.float32)
    g = rng.standard_normal((1, *(n * kernel for n in size), out), np.float32)
    given: Any = ((kernel,) * 3 + (out, into), kernel, "VALID")
    exact = reference.filter_gradient(x, g, *given, dtype=np.float64)

    def error(found: Array) -> float:
        return float(np.sqrt(np.mean((found - exact) ** 2)))

    ours, theirs = gradient(x, g, *given), reference.filter_gradient(x, g, *given)
    assert error(ours) <= 2 * error(theirs)


# --- threads, processes -------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", SOME, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_every_number_of_threads_gives_the_same_bits(kind: str, dtype: Any) -> None:
    problem = make(kind, dtype=dtype, size=(9, 40, 60))
    rng = np.random.default_rng(0)
    x, g = (
        rng.standard_normal(shape, np.float32).astype(dtype)
        for shape in (problem.input_shape, problem.output_shape)
    )
    one = gradient(x, g, **arguments(problem), threads=1).tobytes()
    for threads in (2, 5):
        assert gradient(x, g, **arguments(problem), threads=threads).tobytes() == one


def test_the_definition_answers_where_no_code_can_run() -> None:
    problem = make("inputs")
    x, g = operands(problem)
    out = np.full(problem.filters_shape, np.nan, np.float32)
    with (
        mock.patch.object(jit, "can_execute", return_value=False),
        mock.patch.object(jit, "load", None),
    ):
        with suppress(RuntimeWarning):  # once a process, to which a warning is an error here
            gradient(x, g, **arguments(problem))
        assert gradient(x, g, **arguments(problem), out=out) is out
    assert_identical(out, reference.filter_gradient(x, g, **arguments(problem)))


# --- against TensorFlow -------------------------------------------------------------------------
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("into", "out"), [(1, 1), (16, 9), (3, 20)])
def test_tensorflow_has_the_same(into: int, out: int, padding: str) -> None:
    """It is the gradient of the convolution, which has the arrays' parts the other way round."""
    tf = tensorflow()
    rng = np.random.default_rng(0)
    y = integers(rng, (2, 7, 8, 9, out), np.float32)
    filters = np.zeros((3, 4, 2, out, into), np.float32)
    x_shape = tf.nn.conv3d(y, filters, [1, 2, 1, 2, 1], padding).shape
    x = integers(rng, x_shape, np.float32)
    theirs = tf.raw_ops.Conv3DBackpropFilterV2(
        input=y,
        filter_sizes=filters.shape,
        out_backprop=x,
        strides=[1, 2, 1, 2, 1],
        padding=padding,
    ).numpy()
    assert_identical(gradient(x, y, filters.shape, (2, 1, 2), padding), theirs)
