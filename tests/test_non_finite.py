"""NaN and Inf reach exactly the outputs that the definition sends them to, and no others.

Whether an output is NaN, Inf or finite does not depend on the order of its sum, and small integers
have exact sums; so results are compared as a whole, a NaN being equal to a NaN.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import convt
from convt import target
from oracles import BFLOAT16, DTYPES, Array, assert_identical
from problems import (
    DIRECTIONS,
    FAMILIES,
    Problem,
    box,
    compute,
    either_way,
    examples,
    problems,
    problems_of,
)

SPECIAL = (np.nan, np.inf, -np.inf)
HOST = target.host()


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fill new arrays whose contents are arbitrary with NaN, the worst that they may hold."""
    empty = np.empty

    def poisoned(*arguments: Any, **keywords: Any) -> Array:
        made: Array = empty(*arguments, **keywords)
        made.reshape(-1).view(np.uint8)[...] = 0xFF
        return made

    with mock.patch.object(np, "empty", poisoned):
        yield


def sprinkled(values: Array, seed: int, count: int) -> Array:
    """Put special values into `count` places of `values`; some may fall together."""
    rng = np.random.default_rng(seed)
    if values.size:
        places = rng.integers(0, values.size, count)
        values.reshape(-1)[places] = rng.choice(SPECIAL, count)
    return values


counts = st.integers(0, 3)


def check(problem: Problem, seed: int, many: tuple[int, int, int]) -> None:
    """Check a call with that many special values in input, filters and bias."""
    x, w, b = problem.integers(seed)
    x, w = sprinkled(x, seed, many[0]), sprinkled(w, seed + 1, many[1])
    b = None if b is None else sprinkled(b, seed + 2, many[2])
    expected = problem.define(x, w, b)
    with poisoned_memory():
        actual = problem.call(x, w, b)
    assert_identical(actual, expected)


@examples(8)
@given(either_way(problems()), st.integers(0, 99), st.tuples(counts, counts, counts))
def test_a_few_problems(problem: Problem, seed: int, many: tuple[int, int, int]) -> None:
    check(problem, seed, many)


@pytest.mark.slow
@examples(150)
@given(either_way(problems()), st.integers(0, 99), st.tuples(counts, counts, counts))
def test_many_problems(problem: Problem, seed: int, many: tuple[int, int, int]) -> None:
    check(problem, seed, many)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@examples(40)
@given(st.data(), st.integers(0, 99), counts, counts)
def test_each_family(family: str, data: st.DataObject, seed: int, into: int, bias: int) -> None:
    problem = data.draw(either_way(problems_of(family)))
    x, w, b = problem.integers(seed)
    x = sprinkled(x, seed, into)
    if family not in ("dots", "rows"):  # they ask for finite filters, and the planner sees to it
        w = sprinkled(w, seed + 1, bias)
    b = None if b is None else sprinkled(b, seed + 2, bias)
    with poisoned_memory():
        actual = compute(problem, x, w, b, family, HOST, threads=1)
    assume(actual is not None)
    assert actual is not None
    assert_identical(actual, problem.define(x, w, b))


# Channels in and out: one, a few, a vector and one more, several vectors and a rest.
CHANNELS = [
    (1, 1),
    (3, 9),
    (17, 40),
    *(pytest.param(*some, marks=pytest.mark.slow) for some in [(2, 3), (5, 8), (4, 26)]),
]


@pytest.mark.parametrize("data_format", ["NDHWC", "NCDHW"])
@pytest.mark.parametrize(("into", "out"), CHANNELS)
@pytest.mark.parametrize("name", ["input", "filters"])
@pytest.mark.parametrize("forward", DIRECTIONS)
def test_every_place(name: str, into: int, out: int, data_format: str, forward: bool) -> None:
    """One special value at a time, in every corner, on every border and inside."""
    channels = (out, into) if forward else (into, out)
    problem = box((2, 3, 5), *channels, (3, 2, 4), (2, 1, 2), data_format=data_format)
    problem = problem.adjoint if forward else problem
    x, w, _ = problem.integers()
    array = x if name == "input" else w
    axes: list[Any] = [range(n) for n in array.shape]
    for axis, n in enumerate(array.shape):
        if n > 5:  # of many the first, the last and one between
            axes[axis] = (0, n // 2, n - 1)
    for place, value in zip(itertools.product(*axes), itertools.cycle(SPECIAL), strict=False):
        kept, array[place] = array[place], value
        expected = problem.define(x, w)
        assert not np.all(np.isfinite(expected))
        assert_identical(problem.call(x, w), expected)
        array[place] = kept


@pytest.mark.parametrize("data_format", ["NDHWC", "NCDHW"])
@pytest.mark.parametrize(("into", "out"), CHANNELS)
def test_bias_reaches_its_channel_alone(into: int, out: int, data_format: str) -> None:
    last = data_format == "NDHWC"
    x = np.ones((1, 2, 3, 5, into) if last else (1, into, 2, 3, 5), np.float32)
    w = np.ones((1, 1, 1, out, into), np.float32)
    for channel in range(out):
        bias = np.zeros(out, np.float32)
        bias[channel] = np.nan
        y = convt.conv3d_transpose(x, w, None, 3, data_format=data_format, bias=bias)
        found = np.isnan(y if last else np.moveaxis(y, 1, -1))
        assert np.all(found[..., channel])
        assert np.count_nonzero(found) == found[..., channel].size


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sums_beyond_the_dtype_are_infinite(dtype: Any) -> None:
    large = float(np.finfo(np.float64).max) if dtype == np.float64 else 3e38
    large = 60000.0 if dtype == np.float16 else large
    x = np.full((1, 1, 1, 1, 9), large).astype(dtype)
    w = np.ones((1, 1, 1, 11, 9), dtype)
    w[..., 1::2, :] = -1
    y = convt.conv3d_transpose(x, w, None, 1)
    assert np.all(np.isposinf(y[..., ::2].astype(np.float64)))
    assert np.all(np.isneginf(y[..., 1::2].astype(np.float64)))


def test_a_nan_of_any_payload_stays_one_in_bfloat16() -> None:
    payloads = np.array([0x7F81, 0x7FC0, 0x7FFF, 0xFF81, 0xFFFF], np.uint16)
    x, w = (np.ones(shape, BFLOAT16) for shape in ((1, 3, 3, 48, 1), (4, 4, 4, 1, 1)))
    x[0, 1, 1, ::10, 0] = payloads.view(BFLOAT16)
    expected = convt.conv3d_transpose(x.astype(np.float32), w.astype(np.float32), None, 2, "SAME")
    y = convt.conv3d_transpose(x, w, None, 2, "SAME")
    assert 0 < np.mean(np.isnan(expected)) < 1
    assert np.array_equal(np.isnan(y), np.isnan(expected))
