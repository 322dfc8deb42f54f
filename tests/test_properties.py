"""The whole space of geometries, element types and memory layouts against the definition."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import convt
from convt import target
from convt.gradient import input_gradient
from oracles import DTYPES, Array, assert_identical, conv3d
from problems import (
    DIRECTIONS,
    FAMILIES,
    Layout,
    Problem,
    box,
    compute,
    either_way,
    examples,
    filterable,
    layouts,
    plan_of,
    problems,
    problems_of,
    untouched,
)

HOST = target.host()
# Caches so small that every problem is cut into many tasks, and large results bypass them.
CUT = replace(HOST, l1_bytes=1 << 10, l2_bytes=1 << 12, l3_bytes=1 << 12)
# The plainest processor of the platform, as which this one can act too.
PLAIN = replace(HOST, isa="baseline", cpu="", features="", vector_bits=128, fma=False, half=False)


# --- every product is there, once ---------------------------------------------------------------
# Small integers have exact sums, so every way to add them up gives the same bits.
@dataclass(frozen=True, slots=True)
class Call:
    """A problem, and where the arrays of a call lie."""

    problem: Problem
    input: Layout
    filters: Layout
    bias: Layout
    out: Layout | None  # None: convt makes the result
    threads: int


@st.composite
def calls(draw: st.DrawFn) -> Call:
    problem = draw(either_way(problems()))
    dtype = problem.dtype
    return Call(
        problem,
        draw(layouts(5, dtype)),
        draw(layouts(5, dtype)),
        draw(layouts(1, dtype)),
        draw(st.none() | layouts(5, dtype, written=True)),
        draw(st.integers(1, 3)),
    )


def check_call(call: Call) -> None:
    problem = call.problem
    x, w, b = problem.integers()
    x, w = call.input.array(x), call.filters.array(w)
    b = None if b is None else call.bias.array(b)
    out = None
    if call.out is not None:
        out = call.out.array(np.full(problem.output_shape, np.nan, problem.dtype))
    y = problem.call(x, w, b, out=out, threads=call.threads)
    assert_identical(y, problem.define(x, w, b))
    if out is None:
        assert y.flags.c_contiguous
        assert y.flags.writeable
    else:
        assert y is out
        assert untouched(out)


@examples(6)
@given(calls())
def test_a_few_calls_are_exact_for_integers(call: Call) -> None:
    check_call(call)


@pytest.mark.slow
@examples(250)
@given(calls())
def test_calls_are_exact_for_integers(call: Call) -> None:
    check_call(call)


@pytest.mark.parametrize("family", FAMILIES)
@examples(3)
@given(st.data(), st.booleans())
def test_each_family_is_exact_in_a_few_problems(
    family: str, data: st.DataObject, contiguous: bool
) -> None:
    check_family(family, CUT, data.draw(either_way(problems_of(family))), contiguous=contiguous)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("processor", [CUT, PLAIN], ids=["small-caches", "plain"])
@examples(40)
@given(st.data(), st.booleans())
def test_each_family_is_exact_for_integers(
    family: str, processor: target.Target, data: st.DataObject, contiguous: bool
) -> None:
    check_family(
        family, processor, data.draw(either_way(problems_of(family))), contiguous=contiguous
    )


def check_family(
    family: str, processor: target.Target, problem: Problem, *, contiguous: bool
) -> None:
    x, w, b = problem.integers()
    y = compute(problem, x, w, b, family, processor, threads=2, contiguous=contiguous)
    if y is not None:
        assert_identical(y, problem.define(x, w, b))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@examples(50)
@given(st.data(), st.booleans())
def test_each_family_gives_the_same_bits_however_it_is_cut(
    family: str, data: st.DataObject, contiguous: bool
) -> None:
    problem = data.draw(either_way(problems_of(family)))
    arrays = problem.normal()
    whole = compute(problem, *arrays, family, HOST, threads=1, contiguous=contiguous)
    if whole is not None:
        cut = compute(problem, *arrays, family, CUT, threads=3, contiguous=contiguous)
        assert cut is not None
        assert whole.tobytes() == cut.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize("data_format", ["NDHWC", "NCDHW"])
@pytest.mark.parametrize(("family", "channels"), [("channels", 16), ("rows", 2)])
def test_results_past_the_caches(
    family: str, channels: int, data_format: str, contiguous: bool
) -> None:
    """Results that outgrow the last cache are stored past it, where they lie as that asks."""
    size = (128 // channels, 32, 64)
    problem = box(size, 3, channels, (3, 2, 3), (2, 2, 2), data_format=data_format)
    made = plan_of(problem, family, CUT, threads=2, contiguous=contiguous)
    dense = (family == "channels") == (data_format == "NDHWC")
    assert made is not None
    assert made.kernel.name.endswith("_stream") == (contiguous and dense)
    check_family(family, CUT, problem, contiguous=contiguous)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("data_format", ["NDHWC", "NCDHW"])
@pytest.mark.parametrize(("into", "out"), [(0, 5), (3, 0), (0, 0)])
def test_no_channels(into: int, out: int, data_format: str, dtype: Any) -> None:
    bias = np.arange(out).astype(dtype)
    last = data_format == "NDHWC"
    x = np.zeros((2, 3, 4, 2, into) if last else (2, into, 3, 4, 2), dtype)
    w = np.zeros((3, 2, 3, out, into), dtype)
    y = convt.conv3d_transpose(x, w, None, 2, data_format=data_format, bias=bias)
    expected = np.zeros((2, 6, 8, 4, out) if last else (2, out, 6, 8, 4), dtype)
    expected += bias if last else bias[:, None, None, None]
    assert_identical(y, expected)


def test_outputs_that_no_tap_reaches_are_positive_zero() -> None:
    x = np.full((1, 2, 2, 2, 3), -1.0, np.float32)
    w = np.ones((1, 1, 1, 4, 3), np.float32)
    y = convt.conv3d_transpose(x, w, None, 3)
    reached = np.zeros(y.shape, np.bool_)
    reached[:, ::3, ::3, ::3] = True
    assert not np.any(y[~reached])
    assert not np.any(np.signbit(y[~reached]))


# --- rounding -----------------------------------------------------------------------------------
def direct_sum(problem: Problem, x: Array, w: Array, b: Array | None) -> tuple[Array, Array, Array]:
    """The sum in more precision, of the products' sizes too, and as NumPy has it."""
    double = x.dtype == np.float64
    more: Any = np.longdouble if double else np.float64
    sums: Any = np.float64 if double else np.float32
    exact = problem.define(x, w, b, more)
    size = None if b is None else np.abs(b)
    scale = problem.define(np.abs(x), np.abs(w), size, more)
    return exact, scale, problem.define(x, w, b, sums)


def worst(actual: Array, exact: Array, scale: Array) -> float:
    """The greatest error as a part of the sum of the products' sizes."""
    error = np.abs(actual - exact)
    return float(np.max(error[scale > 0] / scale[scale > 0], initial=0.0))


# NumPy's direct sum meets as many roundings in another order, so twice its error passes. What is
# left is luck: as a part of its products' sizes, a chain of products of normal numbers errs by
# about a third of an epsilon, however long it is, and the worst of 100 000 outputs by some six
# times that; while NumPy may be lucky, or split the chain. So 2 epsilons pass as well.
#
# Minimal filtering adds roundings, whose size is that of a tile's inputs and filters instead of one
# output's products: twice the bound, of the largest sum of sizes.
def check_rounding(problem: Problem, algorithm: str) -> None:
    x, w, b = problem.normal()
    y = problem.call(x, w, b, algorithm=algorithm)
    exact, scale, direct = direct_sum(problem, x, w, b)
    epsilon = float(np.finfo(direct.dtype).eps)
    bound = 2 * worst(direct, exact, scale) + 2 * epsilon
    if algorithm != "direct":
        bound, scale = 2 * bound, np.full_like(scale, np.max(scale, initial=0.0))
    if y.dtype == direct.dtype:
        assert worst(y, exact, scale) <= bound
    else:
        check_rounded_once(y, exact - bound * scale, exact + bound * scale)


def check_rounded_once(y: Array, low: Array, high: Array) -> None:
    """Check that `y` is a float32 sum between `low` and `high`, correctly rounded.

    Rounding never swaps two numbers, so the rounded sum lies between the rounded bounds: these
    are the same number, or neighbours, unless the sum itself is only known to more.
    """
    least = np.nextafter(low.astype(np.float32), np.float32(-np.inf)).astype(y.dtype)
    greatest = np.nextafter(high.astype(np.float32), np.float32(np.inf)).astype(y.dtype)
    assert np.all(least <= y)
    assert np.all(y <= greatest)


@examples(6)
@given(either_way(problems()))
def test_a_few_roundings(problem: Problem) -> None:
    check_rounding(problem, "direct")


@pytest.mark.slow
@examples(200)
@given(either_way(problems()))
def test_roundings(problem: Problem) -> None:
    check_rounding(problem, "direct")


@examples(4)
@given(either_way(filterable()))
def test_a_few_roundings_of_minimal_filtering(problem: Problem) -> None:
    check_rounding(problem, "auto")


@pytest.mark.slow
@examples(50)
@given(either_way(filterable()))
def test_roundings_of_minimal_filtering(problem: Problem) -> None:
    check_rounding(problem, "auto")


# Long sums and usual layers. The root mean square of many errors is no matter of luck: it tells an
# order that loses accuracy from one that does not.
@pytest.mark.parametrize(("algorithm", "times"), [("direct", 2), ("auto", 4)])
@pytest.mark.parametrize("forward", DIRECTIONS)
@pytest.mark.parametrize("data_format", ["NDHWC", pytest.param("NCDHW", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("into", "out", "kernel", "size", "stride"),
    [
        (1, 1, 3, 12, 1),
        (1, 2, 7, 8, 1),
        (4, 4, 4, 6, 2),
        (8, 1, 3, 8, 1),
        (16, 16, 3, 8, 1),
        (40, 3, 5, 6, 2),
        (64, 64, 3, 6, 1),
        (64, 32, 4, 4, 2),
        (128, 16, 4, 4, 2),
        (255, 8, 3, 4, 1),
        (1000, 8, 3, 3, 1),
        (5000, 8, 1, 6, 1),
    ],
)
def test_float32_is_as_accurate_as_a_direct_sum(
    into: int,
    out: int,
    kernel: int,
    size: int,
    stride: int,
    data_format: str,
    forward: bool,
    algorithm: str,
    times: int,
) -> None:
    channels = (out, into) if forward else (into, out)
    problem = box((size,) * 3, *channels, (kernel,) * 3, (stride,) * 3, data_format=data_format)
    problem = problem.adjoint if forward else problem
    x, w, _ = problem.normal(into)
    y = problem.call(x, w, algorithm=algorithm)
    exact, scale, direct = direct_sum(problem, x, w, None)

    def spread(values: Array) -> float:
        return float(np.sqrt(np.mean(((values - exact) / scale) ** 2)))

    assert spread(y) <= times * spread(direct)
    assert worst(y, exact, scale) <= times * worst(direct, exact, scale) + 2.0**-23


# --- the adjoint --------------------------------------------------------------------------------
def check_adjoint(problem: Problem) -> None:
    assume(0 not in problem.input_size)  # no window of the convolution fits
    problem = replace(problem, dtype=np.dtype(np.float64), bias=False)
    x, w, _ = problem.integers()
    y, _, _ = problem.adjoint.integers(1)
    transposed = problem.call(x, w)
    given = (problem.strides, problem.padding, problem.data_format, problem.dilations)
    convolved = input_gradient(y, w, *given, groups=problem.groups)
    if problem.data_format == "NCDHW":
        x, y, transposed, convolved = (
            np.moveaxis(array, 1, -1) for array in (x, y, transposed, convolved)
        )
    out = problem.out_channels // problem.groups
    forward = [
        conv3d(
            y[..., g * out : (g + 1) * out],
            w[:, :, :, g * out : (g + 1) * out],
            problem.strides,
            problem.padding,
            problem.dilations,
        )
        for g in range(problem.groups)
    ]
    assert_identical(convolved, np.concatenate(forward, axis=-1))
    # Integers again: both inner products are exact, so they are equal, not close.
    assert np.vdot(convolved, x) == np.vdot(y, transposed)


@examples(3)
@given(problems(channels=12))
def test_a_few_are_adjoint_to_an_independent_convolution(problem: Problem) -> None:
    check_adjoint(problem)


@pytest.mark.slow
@examples(25)
@given(problems(channels=12))
def test_they_are_adjoint_to_an_independent_convolution(problem: Problem) -> None:
    check_adjoint(problem)
