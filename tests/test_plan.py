"""Plans: complete, within bounds, and made in no time."""

from __future__ import annotations

import dataclasses
import itertools
import time
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convt import target
from convt.kernels.keys import Dots, Rows
from convt.plan import Access, Plan, make_plan
from convt.spec import Spec, adjoint, make_spec
from oracles import BFLOAT16, DTYPES
from problems import (
    DIRECTIONS,
    FAMILIES,
    Problem,
    either_way,
    examples,
    problems,
    problems_of,
)

HOST = target.host()
MIB = 1 << 20
slow = pytest.mark.slow


def spec(
    size: Any, into: int, out: int, kernel: int, stride: int, *, data_format: str = "NDHWC",
    dtype: Any = np.float32, batch: int = 1,
) -> Spec:  # fmt: skip
    last = data_format == "NDHWC"
    return make_spec(
        input_shape=(batch, *size, into) if last else (batch, into, *size),
        input_dtype=dtype,
        filters_shape=(kernel, kernel, kernel, out, into),
        filters_dtype=dtype,
        output_shape=None,
        strides=stride,
        padding="SAME",
        data_format=data_format,
        dilations=None,
    )


def plan(posed: Spec, threads: int = 2, family: str | None = None, **access: bool) -> Plan:
    """Plan for a new, contiguous output."""
    last = posed.data_format == "NDHWC"
    lies = Access(
        input_channels_dense=last,
        output_channels_dense=last,
        output_width_dense=not last or posed.out_channels == 1,
        output_contiguous=True,
    )
    algorithm = "auto" if family == "filtering" else "direct"
    return make_plan(
        posed, HOST, lies._replace(**access), threads, family=family, algorithm=algorithm
    )


# --- complete -----------------------------------------------------------------------------------
@examples(40)
@given(st.data(), st.sampled_from(FAMILIES), st.booleans(), st.integers(1, 9))
def test_chunks_cover_every_output_once(
    data: st.DataObject, family: str, contiguous: bool, threads: int
) -> None:
    posed = data.draw(either_way(problems_of(family))).spec
    try:
        made = plan(posed, threads, family, output_contiguous=contiguous)
    except ValueError:
        return
    assert made.kernel.family == family
    assert prod(made.computed.output_shape) == prod(posed.output_shape)
    for number, (axis, chunks) in enumerate(zip(made.axes, made.chunks, strict=True)):
        # Of a convolution, rows have the columns of each part of the width.
        parts = made.kernel.parts if isinstance(made.kernel, Dots | Rows) and number == 2 else 1
        edges = [chunk.start for chunk in chunks] + [axis.output]
        assert edges[0] == 0
        assert [chunk.stop for chunk in chunks] == edges[1:]
        assert all(start < stop for start, stop in itertools.pairwise(edges))
        for chunk in chunks:
            first, end = axis.input_range(chunk.start, chunk.stop)
            assert first == end or chunk.in_first * parts <= first <= end <= chunk.in_end * parts
    assert made.tasks >= (1 if prod(posed.output_shape) else 0)
    assert made.packed_lanes >= made.computed.out_channels


@examples(40)
@given(either_way(problems()))
def test_products_are_those_of_the_definition(problem: Problem) -> None:
    """Counted by the definition itself: every product of ones is 1."""
    problem = dataclasses.replace(problem, dtype=np.dtype(np.float64), bias=False)
    x, w = np.ones(problem.input_shape), np.ones(problem.filters_shape)
    assert plan(problem.spec).products == problem.define(x, w).sum()


@examples(40)
@given(either_way(problems()))
def test_a_rewritten_problem_has_the_same_products(problem: Problem) -> None:
    posed = problem.spec
    made = plan(posed)
    products = posed.batch * prod(axis.hits for axis in made.axes)
    products *= made.computed.in_channels * made.computed.out_channels // made.computed.groups
    assert made.products == products
    assert prod(made.computed.input_shape) == prod(posed.input_shape) or (
        made.computed.groups < posed.groups
    )


# --- within bounds ------------------------------------------------------------------------------
HUGE = [
    ((1024, 1024, 1024), 1, 1, 4, 2),
    ((1024, 1024, 1024), 32, 16, 3, 2),
    ((4096, 4096, 4096), 1, 3, 2, 2),
    ((1, 1, 5 * 10**6), 8, 8, 4, 2),
    ((5 * 10**6, 1, 1), 8, 8, 3, 2),
    ((16, 16, 16), 2000, 2000, 3, 2),
    ((7, 7, 7), 5, 9, 61, 3),
]


@pytest.mark.parametrize(
    "dtype", [np.float32, pytest.param(np.float64, marks=slow), pytest.param(BFLOAT16, marks=slow)]
)
@pytest.mark.parametrize("data_format", ["NDHWC", "NCDHW"])
@pytest.mark.parametrize("family", [None, "channels", "rows"])
@pytest.mark.parametrize("forward", DIRECTIONS)
@pytest.mark.parametrize("shape", HUGE, ids=str)
def test_each_thread_works_in_little_memory(
    shape: Any, forward: bool, family: str | None, data_format: str, dtype: Any
) -> None:
    posed = spec(*shape, data_format=data_format, dtype=dtype)
    made = plan(adjoint(posed) if forward else posed, 8, family)
    assert sum(made.workspace) <= 64 * MIB
    filters = prod(made.spec.filters_shape) * made.kernel.wide.bytes
    # Filled up to whole vectors, of which the last may be wide.
    assert made.packed_filters * made.kernel.wide.bytes <= max(2 * filters, filters * 16)
    assert made.workspace_bytes <= (
        made.packed_filters * made.kernel.wide.bytes + made.threads * sum(made.workspace)
    )


@pytest.mark.parametrize("forward", DIRECTIONS)
@pytest.mark.parametrize("shape", HUGE, ids=str)
def test_a_plan_takes_no_time(shape: Any, forward: bool) -> None:
    posed = adjoint(spec(*shape)) if forward else spec(*shape)
    make_plan.cache_clear()
    start = time.process_time()
    plan(posed)
    assert time.process_time() - start < 0.5


def test_an_empty_problem_has_no_work() -> None:
    for empty in (
        spec((2**20, 2**20, 2**20), 1, 1, 1, 1, batch=0),
        spec((4, 0, 4), 3, 3, 3, 2),
        spec((4, 4, 4), 3, 0, 3, 2),
    ):
        start = time.perf_counter()
        made = plan(empty)
        assert time.perf_counter() - start < 0.5
        assert made.products == 0
        assert made.threads == 1


# --- choices ------------------------------------------------------------------------------------
def test_many_channels_are_lanes_and_few_leave_them_to_the_width() -> None:
    assert plan(spec((16, 16, 16), 64, 64, 3, 2)).kernel.family == "channels"
    assert plan(spec((16, 16, 64), 1, 1, 4, 2)).kernel.family == "rows"
    assert plan(spec((16, 16, 64), 2, 2, 3, 1, data_format="NCDHW")).kernel.family == "rows"
    assert plan(spec((16, 16, 7), 64, 64, 3, 2, data_format="NCDHW")).kernel.family == "channels"
    assert plan(adjoint(spec((16, 16, 16), 64, 64, 3, 2))).kernel.family == "channels"
    assert plan(adjoint(spec((16, 16, 64), 1, 1, 4, 2))).kernel.family == "rows"


def test_rows_that_read_the_same_inputs_share_a_tile() -> None:
    kernel = plan(spec((16, 16, 64), 1, 1, 4, 2)).kernel
    assert isinstance(kernel, Rows)
    assert kernel.lines == 2
    for other in (
        spec((16, 16, 64), 1, 1, 3, 2),  # one phase of the height has a tap more
        spec((16, 16, 64), 2, 2, 4, 2, data_format="NCDHW"),
        adjoint(spec((16, 16, 64), 1, 1, 4, 2)),
    ):
        kernel = plan(other, family="rows").kernel
        assert isinstance(kernel, Rows)
        assert kernel.lines == 1


def test_many_dense_channels_of_which_few_come_are_lanes() -> None:
    few = spec((16, 16, 64), 64, 1, 3, 2)
    assert plan(few).kernel.family == "dots"
    assert plan(adjoint(spec((16, 16, 64), 1, 64, 3, 2))).kernel.family == "dots"
    assert plan(few, input_channels_dense=False).kernel.family == "rows"
    assert plan(spec((16, 16, 64), 62, 1, 3, 2)).kernel.family == "rows"  # no whole vectors


def test_parts_of_a_convolution_s_input_share_tiles() -> None:
    """Where minimal filtering is chosen, and where one size of tile serves all parts."""
    posed = adjoint(spec((16, 16, 16), 64, 64, 3, 2))
    found = make_plan(posed, HOST, Access(), 2, algorithm="auto").filtered
    assert found is not None
    assert all(len({tile for tile, _ in axis}) == 1 for axis in found.kinds)
    assert {taps for axis in found.kinds for _, taps in axis} == {1, 2}
    assert found.products < plan(posed).products


def test_deep_layers_are_filtered_where_filters_are_bound() -> None:
    """Their filters at the points are many: made for every call they would take longer than they save."""
    deep = spec((4, 4, 4), 256, 256, 4, 2)
    deep = dataclasses.replace(deep, batch=8)
    families = [
        make_plan(deep, HOST, Access(), 1, algorithm="auto", bound=bound).kernel.family
        for bound in (False, True)
    ]
    assert families == ["channels", "filtering"]


@pytest.mark.parametrize("into", [1, 64])
def test_filters_that_are_not_finite_meet_no_padded_lane(into: int) -> None:
    posed = spec((16, 16, 64), into, 1, 4, 2)
    made = make_plan(posed, HOST, Access(), 2, finite=False)
    assert made.kernel.family == "channels"
    assert "not finite" in made.reason


def test_a_family_that_can_not_serve_says_so() -> None:
    with pytest.raises(ValueError, match="rows can't serve a width whose taps reach this far"):
        plan(spec((2, 2, 2), 1, 1, 65, 1), family="rows")
    with pytest.raises(ValueError, match="dots can't serve input channels that"):
        plan(spec((2, 2, 2), 6, 1, 3, 1), family="dots")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("data_format", ["NDHWC", "NCDHW"])
@pytest.mark.parametrize("family", ["channels", "rows"])
def test_names_spell_what_the_code_depends_on(family: str, data_format: str, dtype: Any) -> None:
    made = plan(spec((8, 8, 40), 3, 40, 3, 2, data_format=data_format, dtype=dtype), family=family)
    wide = "f64" if dtype == np.float64 else "f32"
    code = {"float16": "f16", "bfloat16": "bf16", "float32": "f32", "float64": "f64"}[str(dtype)]
    assert made.kernel.name.startswith(f"{wide}_{family}_")
    assert made.pack.name.startswith(f"{wide}_filters_")
    assert made.pack.name.endswith(f"_from_{code}")
    if dtype.itemsize == 2:
        assert f"_from_{code}_" in made.kernel.name
        assert made.kernel.name.endswith(f"_{code}")
    swapped = plan(made.spec, family=family, input_swapped=True, filters_swapped=True)
    assert f"_from_{code}x" in swapped.kernel.name
    assert swapped.pack.name.endswith(f"_from_{code}x")


seen: dict[str, Any] = {}


@examples(40)
@given(st.data(), st.sampled_from(FAMILIES), st.booleans(), st.booleans())
def test_a_name_belongs_to_one_kernel(
    data: st.DataObject, family: str, contiguous: bool, swapped: bool
) -> None:
    """Code is kept under the name, so whatever it depends on must be in it."""
    posed = data.draw(either_way(problems_of(family))).spec
    try:
        made = plan(posed, 2, family, output_contiguous=contiguous, input_swapped=swapped)
    except ValueError:
        return
    for kernel in (made.kernel, made.pack, made.transform):
        if kernel is None:
            continue
        assert seen.setdefault(kernel.name, kernel) == kernel


def test_small_problems_stay_on_one_thread() -> None:
    assert plan(spec((2, 2, 2), 3, 3, 3, 2), 8).threads == 1
    assert plan(spec((32, 32, 32), 16, 16, 3, 2), 8).threads == 8
    assert plan(spec((32, 32, 32), 16, 16, 3, 2), 8).tasks >= 8


def test_a_plan_is_made_once_and_can_not_be_changed() -> None:
    posed = spec((8, 8, 8), 16, 16, 3, 2)
    made = plan(posed)
    assert plan(spec((8, 8, 8), 16, 16, 3, 2)) is made
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.threads = 3  # type: ignore[misc]
    for part in (made.kernel.name, "chunks=", "threads=", "workspace=", "reason="):
        assert part.split("_")[0] in repr(made)
