"""Minimal filtering against the definition: every geometry that it accepts, wherever its arrays lie."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import convt
from convt import reference, run, target
from convt.plan import Access, Plan, make_plan
from convt.target import Target
from oracles import BFLOAT16, Array, assert_identical, integers
from problems import (
    DIRECTIONS,
    Layout,
    Problem,
    box,
    either_way,
    examples,
    filterable,
    layouts,
    untouched,
)

HOST = target.host()
# Caches so small that few tiles are at the points together, and every problem is cut.
CUT = replace(HOST, l1_bytes=1 << 10, l2_bytes=1 << 12, l3_bytes=1 << 12)
SPECIAL = (np.nan, np.inf, -np.inf)
slow = pytest.mark.slow


@dataclass(frozen=True, slots=True)
class Way:
    """How to compute, where the result may not depend on it."""

    algorithm: str = "auto"
    threads: int = 1
    processor: Target = HOST
    bound: bool = False


def made(problem: Problem, x: Array, w: Array, out: Array | None, way: Way) -> Plan:
    """The plan of minimal filtering, whether it pays or not."""
    w = w.swapaxes(3, 4) if problem.forward else w
    return make_plan(
        problem.spec, way.processor, Access.of(problem.spec, x, w, out), way.threads,
        family="filtering", algorithm=way.algorithm, bound=way.bound,
    )  # fmt: skip


def compute(
    problem: Problem, x: Array, w: Array, b: Array | None, out: Array | None, way: Way
) -> Array:
    """The result of minimal filtering, in `out` or a new array."""
    plan = made(problem, x, w, out, way)
    y = np.full(problem.output_shape, np.nan, problem.dtype) if out is None else out
    w = w.swapaxes(3, 4) if problem.forward else w
    run.execute(plan, x, run.pack_filters(plan, w, way.threads), b, y)
    return y


def serves(problem: Problem, algorithm: str) -> bool:
    """Whether there are enough channels for a vector, and an output that two taps reach."""
    x, w = (
        np.empty(problem.input_shape, problem.dtype),
        np.empty(problem.filters_shape, problem.dtype),
    )
    try:
        made(problem, x, w, None, Way(algorithm))
    except ValueError:
        return False
    return True


def axis_problem(axis: int, size: int, kernel: int, stride: int, out: int, **given: Any) -> Problem:
    """A problem that is one tap wide but for one axis."""

    def along(value: int, other: int) -> tuple[int, ...]:
        return tuple(value if a == axis else other for a in range(3))

    sizes = (along(size, 2), along(kernel, 1), along(stride, 1))
    return box_problem(*sizes, output_size=along(out, 2), **given)


def box_problem(size: Any, kernel: Any, strides: Any, **given: Any) -> Problem:
    return replace(box(size, 16, 24, kernel, strides, bias=True), **given)


# --- every product is there, once ---------------------------------------------------------------
# "auto" adds and halves, so small integers have exact sums.
@dataclass(frozen=True, slots=True)
class Call:
    problem: Problem
    input: Layout
    filters: Layout
    out: Layout
    way: Way


@st.composite
def calls(draw: st.DrawFn) -> Call:
    problem = draw(either_way(filterable()))
    way = Way("auto", draw(st.integers(1, 3)), draw(st.sampled_from([HOST, CUT])))
    dtype = problem.dtype
    out = draw(layouts(5, dtype, written=True))
    return Call(problem, draw(layouts(5, dtype)), draw(layouts(5, dtype)), out, way)


def check_call(call: Call) -> None:
    problem = call.problem
    x, w, b = problem.integers()
    x, w = call.input.array(x), call.filters.array(w)
    out = call.out.array(np.full(problem.output_shape, np.nan, problem.dtype))
    assume(serves(problem, "auto"))
    y = compute(problem, x, w, b, out, call.way)
    assert_identical(y, problem.define(x, w, b))
    assert untouched(out)


@examples(2)
@given(calls())
def test_a_few_calls_are_exact_for_integers(call: Call) -> None:
    check_call(call)


@slow
@examples(15)
@given(calls())
def test_calls_are_exact_for_integers(call: Call) -> None:
    check_call(call)


# --- "fast" -------------------------------------------------------------------------------------
# The largest tiles err by some ten roundings of the largest sum of sizes; a wrong product would err
# by a part of that sum itself. float16 and bfloat16 add their own rounding.
ROUNDINGS = 64


def check_fast(problem: Problem, way: Way) -> None:
    x, w, b = problem.normal()
    assume(serves(problem, "fast"))
    y = compute(problem, x, w, b, None, way)
    check_close(problem, x, w, b, y)


def check_close(problem: Problem, x: Array, w: Array, b: Array | None, y: Array) -> None:
    double = problem.dtype == np.float64
    more: Any = np.longdouble if double else np.float64
    sums: Any = np.float64 if double else np.float32
    exact = problem.define(x, w, b, more)
    size = None if b is None else np.abs(b)
    sizes = problem.define(np.abs(x), np.abs(w), size, more)
    bound = ROUNDINGS * np.finfo(sums).eps * np.max(sizes)
    last = {np.dtype(np.float16): 2.0**-11, BFLOAT16: 2.0**-8}.get(problem.dtype, 0.0)
    error = np.abs(y.astype(more) - exact) - last * (np.abs(exact) + bound)
    assert np.max(error) <= bound


@examples(2)
@given(either_way(filterable(taps=4)), st.integers(1, 3), st.sampled_from([HOST, CUT]))
def test_a_few_fast_results_are_close(problem: Problem, threads: int, processor: Target) -> None:
    check_fast(problem, Way("fast", threads, processor))


@slow
@examples(15)
@given(either_way(filterable(taps=4)), st.integers(1, 3), st.sampled_from([HOST, CUT]))
def test_fast_results_are_close(problem: Problem, threads: int, processor: Target) -> None:
    check_fast(problem, Way("fast", threads, processor))


# --- what it can't serve ------------------------------------------------------------------------
BOX = box_problem((4, 4, 4), (3, 3, 3), (1, 1, 1))
REFUSED = {
    "few channels in": replace(BOX, in_channels=3),
    "few channels out": replace(BOX, out_channels=3),
    "groups": replace(BOX, groups=2),
    "a tap a phase": box_problem((4, 4, 4), (2, 2, 2), (2, 2, 2)),
    "a phase without taps": box_problem((4, 4, 4), (3, 3, 1), (1, 1, 2)),
    "taps that skip an input": replace(BOX, dilations=(1, 1, 2)),
    "four taps a phase": box_problem((4, 4, 4), (3, 3, 4), (1, 1, 1)),
}


@pytest.mark.parametrize("forward", DIRECTIONS)
@pytest.mark.parametrize("reason", REFUSED)
def test_it_says_what_it_can_not_serve(reason: str, forward: bool) -> None:
    problem = REFUSED[reason].adjoint if forward else REFUSED[reason]
    if forward and reason == "a phase without taps":  # which no convolution has
        assert serves(problem, "auto")
        return
    x, w, b = problem.integers()
    message = "minimal filtering can't serve these channels, taps or groups"
    with pytest.raises(ValueError, match=message):
        made(problem, x, w, None, Way("auto"))
    assert serves(problem, "fast") == (reason == "four taps a phase")
    check_close(problem, x, w, b, problem.call(x, w, b, algorithm="fast"))


# --- every kind of phase ------------------------------------------------------------------------
KINDS = {
    "auto": {(1, 1), (2, 2), (3, 2), (2, 3)},
    "fast": {(1, 1), (2, 2), (3, 2), (4, 2), (2, 3), (3, 3), (4, 3), (2, 4), (3, 4)},
}
TAPS = [(2, 1), (3, 1), (3, 2), (4, 2), (5, 2), (6, 2), (5, 3), (7, 3), (6, 4), (11, 4)]
FAST_TAPS = [(4, 1), (7, 2), (8, 2)]


# Parts of a convolution's input share one tile: of a single tap, too, and the smallest where they differ.
PARTS = {
    "auto": {(2, 1), (2, 2), (3, 2), (2, 3)},
    "fast": {(2, 1)} | {(m, r) for m in (2, 3, 4) for r in (2, 3)} | {(2, 4), (3, 4)},
}


@slow
@pytest.mark.parametrize(
    ("axis", "algorithm", "forward"),
    [
        *((axis, "auto", False) for axis in range(3)),
        (0, "fast", False),
        (2, "auto", True),
        (0, "fast", True),
    ],
)
def test_every_kind_of_phase_in_every_size(axis: int, algorithm: str, forward: bool) -> None:
    """From one tile that is all border, to some that lie inside; rests of every length."""
    seen: set[tuple[int, int]] = set()
    for kernel, stride in TAPS + (FAST_TAPS if algorithm == "fast" else []):
        for size in (1, 2, 3, 4, 5, 7, 9):
            for out in {(size - 1) * stride + 1, size * stride}:
                problem = axis_problem(axis, size, kernel, stride, out)
                problem = problem.adjoint if forward else problem
                if not serves(problem, algorithm):
                    continue
                x, w, b = problem.integers(size)
                found = made(problem, x, w, None, Way(algorithm)).filtered
                assert found is not None
                seen.update(found.kinds[axis])
                y = compute(problem, x, w, b, None, Way(algorithm))
                if algorithm == "auto":
                    assert_identical(y, problem.define(x, w, b))
                else:
                    check_close(problem, x, w, b, y)
    assert seen == (PARTS if forward else KINDS)[algorithm]


# Tiles of three axes, of which some lie inside; channels that are more than a chain holds.
BOXES: list[Any] = [
    ((9, 7, 11), (3, 3, 3), (1, 1, 1), {"in_channels": 19, "out_channels": 41}),
    ((4, 5, 9), (4, 4, 4), (2, 2, 2), {"in_channels": 70}),
    ((5, 6, 7), (3, 3, 3), (2, 2, 2), {"output_size": (9, 12, 13)}),
    ((6, 4, 5), (3, 4, 4), (1, 2, 2), {"in_channels": 300, "out_channels": 9}),
    ((4, 3, 4), (5, 3, 2), (2, 1, 1), {"batch": 3, "out_channels": 70}),
]
FORWARD: list[Any] = [
    ((4, 5, 9), (4, 4, 4), (2, 2, 2), {"in_channels": 9, "out_channels": 70}),
    ((5, 6, 7), (3, 3, 3), (2, 2, 2), {"output_size": (9, 12, 13), "in_channels": 25}),
    ((4, 3, 4), (7, 3, 2), (3, 1, 1), {"batch": 3, "out_channels": 300}),
]
BOX_CASES = [
    pytest.param(case, forward, layout, marks=() if case in (BOXES[1], FORWARD[0]) else slow)
    for cases, forward in ((BOXES, False), (FORWARD, True))
    for case, layout in itertools.product(cases, ("NDHWC", "NCDHW"))
]


@pytest.mark.parametrize("processor", [HOST, CUT], ids=["host", "small-caches"])
@pytest.mark.parametrize(("case", "forward", "data_format"), BOX_CASES)
def test_tiles_inside_and_on_the_border(
    case: Any, forward: bool, data_format: str, processor: Target
) -> None:
    size, kernel, strides, given = case
    problem = box_problem(size, kernel, strides, data_format=data_format, **given)
    problem = problem.adjoint if forward else problem
    x, w, b = problem.integers()
    y = compute(problem, x, w, b, None, Way("auto", 2, processor))
    assert_identical(y, problem.define(x, w, b))


# --- bits ---------------------------------------------------------------------------------------
WAYS = [
    Way(threads=2),
    Way(threads=5, processor=CUT),
    Way(processor=CUT),
    Way(bound=True),
    Way(bound=True, threads=2),
]


def check_bits(problem: Problem, algorithm: str) -> None:
    arrays = problem.normal()
    assume(serves(problem, algorithm))
    one = compute(problem, *arrays, None, Way(algorithm)).tobytes()
    for way in WAYS:
        again = compute(problem, *arrays, None, replace(way, algorithm=algorithm))
        assert again.tobytes() == one, way


@examples(2)
@given(either_way(filterable()), st.sampled_from(list(KINDS)))
def test_a_few_results_depend_on_the_problem_alone(problem: Problem, algorithm: str) -> None:
    check_bits(problem, algorithm)


@slow
@examples(15)
@given(either_way(filterable()), st.sampled_from(list(KINDS)))
def test_results_depend_on_the_problem_alone(problem: Problem, algorithm: str) -> None:
    check_bits(problem, algorithm)


@pytest.mark.parametrize("forward", DIRECTIONS)
@pytest.mark.parametrize("algorithm", ["auto", pytest.param("fast", marks=slow)])
def test_both_layouts_give_the_same_bits(algorithm: str, forward: bool) -> None:
    last = box_problem((4, 5, 6), (4, 4, 4), (2, 2, 2))
    last = last.adjoint if forward else last
    first = replace(last, data_format="NCDHW")
    x, w, b = last.normal()
    y = compute(last, x, w, b, None, Way(algorithm))
    moved = compute(first, np.moveaxis(x, -1, 1), w, b, None, Way(algorithm))
    assert np.moveaxis(moved, 1, -1).tobytes() == y.tobytes()


# --- filters bound once -------------------------------------------------------------------------
@slow
def test_bound_filters_serve_every_size() -> None:
    """The same filters at the same points, for phases whose kinds change places with the size."""
    strides = (2, 1, 1)
    w = integers(np.random.default_rng(0), (4, 1, 1, 64, 64), np.float32)
    up = convt.ConvTranspose3D(w, strides, algorithm="fast")
    found = set()
    for size in (*range(1, 12), *range(11, 0, -1)):
        x = integers(np.random.default_rng(size), (1, size, 9, 9, 64), np.float32)
        for out in (2 * size - 1, 2 * size):
            shape = (1, out, 9, 9, 64)
            filtered = convt.explain(x, w, shape, strides, algorithm="fast").plan.filtered
            found.add(filtered.kinds[0] if filtered else None)
            expected = reference.conv3d_transpose(x, w, shape, strides)
            # A product at the wrong point would be wrong by whole numbers.
            np.testing.assert_allclose(up(x, shape), expected, atol=1e-2)
    assert any(pair and pair[0] != pair[1] and pair[::-1] in found for pair in found)


def test_bound_filters_serve_neighbouring_sizes() -> None:
    """Outputs of two phases, four and five or three and four: tiles of two and three change places."""
    strides = (2, 1, 1)
    w = integers(np.random.default_rng(0), (4, 3, 3, 64, 64), np.float32)
    up = convt.ConvTranspose3D(w, strides)
    found = []
    for size in (5, 4, 5):
        x = integers(np.random.default_rng(size), (8, size, 8, 8, 64), np.float32)
        shape = (8, 2 * size - 1, 8, 8, 64)
        filtered = convt.explain(x, w, shape, strides).plan.filtered
        assert filtered
        found.append(filtered.kinds[0])
        assert_identical(up(x, shape), reference.conv3d_transpose(x, w, shape, strides))
    assert found[0] == found[1][::-1] != found[1]


@pytest.mark.parametrize("algorithm", ["auto", pytest.param("fast", marks=slow)])
def test_bound_and_given_filters_give_the_same_bits(algorithm: str) -> None:
    problem = box_problem((9, 10, 11), (3, 3, 3), (1, 1, 1), in_channels=64, out_channels=64)
    x, w, b = problem.normal()
    report = convt.explain(x, w, None, 1, bias=b, algorithm=algorithm)
    assert report.plan.kernel.family == "filtering"
    y = convt.conv3d_transpose(x, w, None, 1, bias=b, algorithm=algorithm)
    for threads in (1, 2, 5):
        up = convt.ConvTranspose3D(w, 1, bias=b, algorithm=algorithm, threads=threads)
        assert up(x).tobytes() == y.tobytes()


# --- NaN and Inf --------------------------------------------------------------------------------
def sprinkled(values: Array, rng: np.random.Generator, count: int) -> Array:
    """Put special values into `count` places; some may fall together."""
    values.reshape(-1)[rng.integers(0, values.size, count)] = rng.choice(SPECIAL, count)
    return values


counts = st.integers(0, 3)


def check_placement(
    problem: Problem, algorithm: str, seed: int, many: tuple[int, int, int]
) -> None:
    assume(serves(problem, algorithm))
    rng = np.random.default_rng(seed)
    x, w, b = problem.integers(seed)
    x, w = sprinkled(x, rng, many[0]), sprinkled(w, rng, many[1])
    b = None if b is None else sprinkled(b, rng, many[2])
    y = compute(problem, x, w, b, None, Way(algorithm, 2))
    expected = problem.define(x, w, b)
    for mask in (np.isnan, np.isposinf, np.isneginf):
        np.testing.assert_array_equal(mask(y), mask(expected))
    if algorithm == "auto":
        assert_identical(y, expected)


@examples(2)
@given(either_way(filterable()), st.integers(0, 99), st.tuples(counts, counts, counts))
def test_a_few_placements(problem: Problem, seed: int, many: tuple[int, int, int]) -> None:
    check_placement(problem, "auto", seed, many)


@slow
@examples(20)
@given(
    either_way(filterable(taps=3)),
    st.sampled_from(list(KINDS)),
    st.integers(0, 99),
    st.tuples(counts, counts, counts),
)
def test_placements(
    problem: Problem, algorithm: str, seed: int, many: tuple[int, int, int]
) -> None:
    check_placement(problem, algorithm, seed, many)


@pytest.mark.parametrize(("kernel", "threads"), [(3, 2), (4, 2), (4, 9)])
@pytest.mark.parametrize("data_format", ["NDHWC", "NCDHW"])
@pytest.mark.parametrize("out", [64, 77])
def test_threads_share_filters_from_afar(
    kernel: int, out: int, data_format: str, threads: int
) -> None:
    """By phases, and by output channels; each mends what is not finite in its own, wherever the place."""
    size, strides = (kernel,) * 3, (2, 2, 2)
    problem = box((2, 3, 3), 16, out, size, strides, data_format=data_format, bias=True)
    x, w, b = problem.integers()
    x = sprinkled(x, np.random.default_rng(0), 2)
    way = Way(threads=threads, processor=CUT)
    plan = made(problem, x, w, None, way)
    assert plan.filtered is not None
    assert plan.filtered.afar
    packed = data_format == "NCDHW"  # the slab of a task has all phases
    assert (plan.phases, plan.phase_step) == (8, 8 if packed else 1)
    assert (plan.block_step < plan.blocks) == (packed or threads > plan.phases)
    assert plan.tasks >= 2
    assert_identical(compute(problem, x, w, b, None, way), problem.define(x, w, b))


@pytest.mark.parametrize("data_format", ["NDHWC", pytest.param("NCDHW", marks=slow)])
@pytest.mark.parametrize("forward", DIRECTIONS)
@pytest.mark.parametrize(("kernel", "stride"), [pytest.param(3, 1, marks=slow), (4, 2)])
def test_every_place(kernel: int, stride: int, forward: bool, data_format: str) -> None:
    """One special value at a time: in corners, on borders, inside; the first and last channels."""
    channels = {"out_channels" if forward else "in_channels": 9}
    problem = box_problem(
        (5, 4, 6), (kernel,) * 3, (stride,) * 3, data_format=data_format, **channels
    )
    problem = problem.adjoint if forward else problem
    x, w, b = problem.integers()
    sides = [(0, n // 2, n - 1) for n in problem.input_size[:2]]
    ends = [0, 1, problem.input_size[2] // 2, problem.input_size[2] - 1]
    places = itertools.product(*sides, ends, (0, 8))
    for (d, h, v, c), value in zip(places, itertools.cycle(SPECIAL), strict=False):
        place = (0, d, h, v, c) if data_format == "NDHWC" else (0, c, d, h, v)
        kept, x[place] = x[place], value
        y = compute(problem, x, w, b, None, Way())
        assert_identical(y, problem.define(x, w, b))
        x[place] = kept


LARGE = {"float32": 2.0**126, "bfloat16": 2.0**126, "float64": 2.0**1022}


@pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("bfloat16", marks=slow), pytest.param("float64", marks=slow)]
)
@pytest.mark.parametrize("name", ["input", "filters"])
@pytest.mark.parametrize("forward", DIRECTIONS)
def test_sums_that_overflow_only_at_the_points_are_direct(
    forward: bool, name: str, dtype: str
) -> None:
    kind = BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype)
    problem = box_problem((5, 4, 6), (3, 3, 3), (1, 1, 1), dtype=kind, bias=False)
    if forward:  # parts of the input along one axis
        shape: Any = ((5, 4, 6), (3, 1, 1), (2, 1, 1))
        problem = box_problem(*shape, dtype=kind, bias=False).adjoint
    x, w, _ = problem.integers()
    large, small = (x, w) if name == "input" else (w, x)
    large *= kind.type(LARGE[dtype])
    small *= kind.type(2.0**-12)
    y = compute(problem, x, w, None, None, Way())
    expected = problem.define(x, w)
    assert np.all(np.isfinite(expected.astype(np.float64)))
    assert_identical(y, expected)
