"""The vector-Jacobian product, and that the three operations are derivatives of one form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import convt
from convt import reference
from convt.gradient import input_gradient
from oracles import DTYPES, Array, assert_identical, integers
from problems import Problem, box, examples, problems

FLOAT64 = np.dtype(np.float64)
gradient = convt.conv3d_transpose_filter_gradient


def vjp(problem: Problem, x: Array, w: Array, b: Array | None = None, **more: Any) -> Any:
    return convt.conv3d_transpose_vjp(x, w, **problem.arguments, bias=b, **more)


def incoming(problem: Problem) -> Array:
    """A gradient in the output."""
    return integers(np.random.default_rng(9), problem.output_shape, problem.dtype)


def shared(problem: Problem) -> dict[str, Any]:
    """The arguments that the gradients share."""
    return {name: v for name, v in problem.arguments.items() if name != "output_shape"}


# --- one trilinear form -------------------------------------------------------------------------
def check_form(problem: Problem, seed: int) -> None:
    """It is linear in each array, so it is the product of any of them with the derivative in it."""
    problem = replace(problem, dtype=FLOAT64, bias=False)
    x, w, _ = problem.integers(seed)
    g = incoming(problem)
    form = np.vdot(g, problem.call(x, w))
    given = shared(problem)
    assert np.vdot(x, input_gradient(g, w, **given)) == form
    assert np.vdot(w, gradient(x, g, problem.filters_shape, **given)) == form


@examples(3)
@given(problems(channels=16), st.integers(0, 99))
def test_each_operation_is_a_derivative_of_one_form(problem: Problem, seed: int) -> None:
    check_form(problem, seed)


@pytest.mark.slow
@examples(25)
@given(problems(channels=16), st.integers(0, 99))
def test_so_it_is_in_many_problems(problem: Problem, seed: int) -> None:
    check_form(problem, seed)


@pytest.mark.slow
@examples(8)
@given(problems(channels=16), st.integers(0, 99))
def test_the_pullback_is_the_definition_s(problem: Problem, seed: int) -> None:
    x, w, b = problem.integers(seed)
    g = incoming(problem)
    y, pullback = vjp(problem, x, w, b)
    assert_identical(y, problem.define(x, w, b))
    expected = [
        reference.input_gradient(g, w, problem.input_size, **shared(problem)),
        reference.filter_gradient(x, g, problem.filters_shape, **shared(problem)),
    ]
    if b is not None:
        channels = g if problem.data_format == "NDHWC" else np.moveaxis(g, 1, -1)
        sums = channels.astype(np.float64).sum(axis=(0, 1, 2, 3))
        expected.append(sums.astype(problem.dtype))
    for ours, theirs in zip(pullback(g), expected, strict=True):
        assert_identical(ours, theirs)


# --- finite differences -------------------------------------------------------------------------
def differences(function: Callable[[Array], float], at: Array) -> Array:
    """The slope along every element. The function is linear, so any step will do: a large one."""
    slopes = np.empty(at.shape)
    for place in np.ndindex(at.shape):
        moved = at.copy()
        moved[place] = at[place] + 1
        above = function(moved)
        moved[place] = at[place] - 1
        slopes[place] = (above - function(moved)) / 2
    return slopes


CASES: dict[str, Problem] = {
    "same": box((2, 2, 3), 3, 2, (3, 2, 3), (2, 1, 2)),
    "valid": box((2, 1, 3), 2, 3, (2, 2, 2), (2, 2, 2), padding="VALID"),
    "pairs": box(
        (3, 2, 2), 2, 2, (3, 1, 3), (1, 2, 2), output_size=(4, 3, 3),
        padding=((1, 0), (0, 0), (2, 0)),
    ),
    "dilated": box(
        (2, 2, 3), 2, 2, (2, 2, 3), (1, 2, 3), dilations=(2, 3, 2), padding="VALID",
        output_size=(4, 6, 11),
    ),
    "channels first": box((2, 2, 2), 2, 3, (2, 3, 2), (1, 2, 1), data_format="NCDHW", batch=2),
    "groups": box((1, 2, 3), 4, 6, (2, 2, 3), (2, 2, 1), groups=2),
    "depthwise": box((1, 2, 3), 5, 5, (1, 3, 3), (1, 2, 1), groups=5, data_format="NCDHW"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_finite_differences(name: str) -> None:
    problem = replace(CASES[name], dtype=FLOAT64, bias=True)
    x, w, b = problem.normal()
    assert b is not None
    rng = np.random.default_rng(1)
    _, pullback = vjp(problem, x, w, b)
    g = rng.standard_normal(problem.output_shape)
    slopes = (
        differences(lambda moved: float(np.vdot(g, problem.call(moved, w, b))), x),
        differences(lambda moved: float(np.vdot(g, problem.call(x, moved, b))), w),
        differences(lambda moved: float(np.vdot(g, problem.call(x, w, moved))), b),
    )
    for ours, slope in zip(pullback(g), slopes, strict=True):
        np.testing.assert_allclose(ours, slope, rtol=0, atol=1e-10)


def test_second_order() -> None:
    """The gradients' own gradients, in the arrays that they are made of, are the other operations."""
    problem = replace(CASES["same"], dtype=FLOAT64)
    _, w, _ = problem.normal()
    rng = np.random.default_rng(1)
    g, u = rng.standard_normal(problem.output_shape), rng.standard_normal(problem.input_shape)
    given = shared(problem)

    def first(g: Array, w: Array) -> float:
        return float(np.vdot(u, input_gradient(g, w, **given)))

    in_gradient = differences(lambda moved: first(moved, w), g)
    np.testing.assert_allclose(problem.call(u, w), in_gradient, rtol=0, atol=1e-10)
    in_filters = differences(lambda moved: first(g, moved), w)
    np.testing.assert_allclose(gradient(u, g, w.shape, **given), in_filters, rtol=0, atol=1e-10)


# --- the call -----------------------------------------------------------------------------------
@pytest.mark.parametrize("data_format", ["NDHWC", "NCDHW"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_are_like_their_arrays(dtype: Any, data_format: str) -> None:
    given: dict[str, Any] = {"dtype": dtype, "data_format": data_format, "bias": True}
    problem = box((3, 4, 5), 6, 9, (3, 3, 3), (2, 2, 2), batch=2, **given)
    x, w, b = problem.integers()
    y, pullback = vjp(problem, x, w, b)
    found = pullback(np.ones_like(y))
    for ours, array in zip(found, (x, w, b), strict=True):
        assert array is not None
        assert (ours.shape, ours.dtype) == (array.shape, dtype)
        assert ours.flags.c_contiguous
    # 2 * 6 * 8 * 10 ones for each channel, which 16 bits hold but a sum in them would not reach.
    assert found[2].astype(np.float64).tolist() == [960.0] * 9


def test_a_pullback_serves_again_and_is_linear() -> None:
    problem = CASES["same"]
    x, w, _ = problem.integers()
    y, pullback = vjp(problem, x, w)
    g = incoming(problem)
    once, twice = pullback(g), pullback(2 * g)
    assert len(once) == 2  # no bias
    for first, second in zip(once, twice, strict=True):
        assert_identical(2 * first, second)
    for nothing in pullback(np.zeros_like(y)):
        assert not np.any(nothing)


@pytest.mark.parametrize("algorithm", ["direct", pytest.param("fast", marks=pytest.mark.slow)])
def test_threads_and_algorithm_reach_every_part(algorithm: str) -> None:
    problem = box((10, 12, 12), 32, 24, (3, 3, 3), (1, 1, 1))
    x, w, _ = problem.normal()
    g = problem.adjoint.normal(1)[0]
    y, pullback = vjp(problem, x, w, algorithm=algorithm, threads=1)
    y2, pullback2 = vjp(problem, x, w, algorithm=algorithm, threads=3)
    assert y.tobytes() == y2.tobytes()
    assert y.tobytes() == problem.call(x, w, algorithm=algorithm).tobytes()
    dx, dw = pullback(g)
    dx2, dw2 = pullback2(g)
    assert (dx.tobytes(), dw.tobytes()) == (dx2.tobytes(), dw2.tobytes())
    expected = input_gradient(g, w, **shared(problem), algorithm=algorithm)
    assert dx.tobytes() == expected.tobytes()
    direct = input_gradient(g, w, **shared(problem), algorithm="direct")
    assert (dx.tobytes() == direct.tobytes()) == (algorithm == "direct")


def test_an_inferred_output_has_its_gradients_too() -> None:
    problem = CASES["same"]
    x, w, _ = problem.integers()
    y, pullback = convt.conv3d_transpose_vjp(x, w, None, problem.strides)
    assert y.shape == problem.output_shape
    assert pullback(y)[0].shape == x.shape


# 7 or 8 outputs may come from 4 inputs, padded differently: only those that came have a gradient.
@pytest.mark.parametrize("shape", [(1, 7, 8, 8, 5), (2, 8, 8, 8, 5), (1, 8, 8, 8, 1), (8,), ()])
def test_a_gradient_of_another_shape_is_refused(shape: Any) -> None:
    x, w = np.ones((1, 4, 4, 4, 6), np.float32), np.ones((3, 3, 3, 5, 6), np.float32)
    _, pullback = convt.conv3d_transpose_vjp(x, w, (1, 8, 8, 8, 5), 2)
    with pytest.raises(ValueError, match=r"output_gradient\.shape = .* \(1, 8, 8, 8, 5\)"):
        pullback(np.ones(shape, np.float32))


def test_a_gradient_of_another_dtype_is_refused() -> None:
    problem = CASES["same"]
    x, w, _ = problem.integers()
    _, pullback = vjp(problem, x, w)
    with pytest.raises(TypeError, match="output_gradient dtype float64 must be the input's"):
        pullback(np.ones(problem.output_shape))


def test_the_arguments_are_checked_before_anything_is_computed() -> None:
    problem = CASES["groups"]
    x, w, _ = problem.integers()
    for changes, message in (
        ({"strides": 0}, "strides = 0 must be at least 1"),
        ({"groups": 3}, "groups = 3 must divide the input's channels, 4"),
        ({"output_shape": (1, 9, 4, 3, 6)}, r"output_shape\[1\] = 9 \(depth\)"),
    ):
        with pytest.raises(ValueError, match=message):
            convt.conv3d_transpose_vjp(x, w, **(problem.arguments | changes))


@pytest.mark.parametrize(
    ("groups", "kind", "message"),
    [
        (0, ValueError, "groups = 0 must be at least 1"),
        (2.0, TypeError, "groups must be an integer, got 2.0"),
        (True, TypeError, "groups must be an integer, got True"),
        (4, ValueError, "groups = 4 must divide the input's channels, 6"),
    ],
)
def test_groups_of_the_input_s_gradient_are_checked(
    groups: Any, kind: type[Exception], message: str
) -> None:
    g, w = np.ones((1, 4, 4, 4, 6), np.float32), np.ones((2, 2, 2, 6, 4), np.float32)
    with pytest.raises(kind, match=message):
        input_gradient(g, w, 2, groups=groups)
