"""The gradient's kernel on its own: every instruction set, every kind of tile, bounded plans."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convt import jit, reference, target
from convt.gradient_plan import GradientPlan, make_gradient_plan, reaches
from convt.gradient_run import execute_gradient
from convt.spec import Spec, make_gradient_spec
from convt.target import ISAS, Target, named
from oracles import DTYPES, assert_identical, integers
from problems import Problem, examples, problems

HOST = target.host()


def make_spec(
    into: int,
    out: int,
    size: Any = (3, 4, 11),
    kernel: Any = (2, 3, 4),
    strides: Any = (1, 2, 2),
    *,
    dtype: Any = np.float32,
    groups: int = 1,
    batch: int = 1,
    data_format: str = "NDHWC",
    dilations: Any = 1,
) -> Spec:
    """A problem with SAME padding and the largest output."""
    outputs = tuple(n * s for n, s in zip(size, strides, strict=True))
    last = data_format == "NDHWC"
    return make_gradient_spec(
        input_shape=(batch, *size, into) if last else (batch, into, *size),
        input_dtype=dtype,
        gradient_shape=(batch, *outputs, out) if last else (batch, out, *outputs),
        gradient_dtype=dtype,
        filters_shape=(*kernel, out, into // groups),
        strides=strides,
        padding="SAME",
        data_format=data_format,
        dilations=dilations,
        groups=groups,
    )


def check(plan: GradientPlan, threads: int = 1) -> None:
    """Compute a plan on small integers, whose sums are exact, and compare with the definition."""
    spec, rng = plan.spec, np.random.default_rng(0)
    x, g = (integers(rng, shape, spec.dtype) for shape in (spec.input_shape, spec.output_shape))
    y = np.full(spec.filters_shape, 7, spec.dtype)
    execute_gradient(plan, x, g, y, threads)
    expected = reference.filter_gradient(
        x, g, spec.filters_shape, spec.strides, spec.padding, spec.data_format, spec.dilations,
        groups=spec.groups,
    )  # fmt: skip
    assert_identical(y, expected)


# (channels in, out, groups): each kind of tile, with rests of rows and of lanes.
KINDS = [(24, 13, 1), (3, 41, 1), (2, 3, 1), (1, 1, 1), (24, 2, 1), (19, 19, 19)]


def lower() -> list[Target]:
    """This processor used as far as each instruction set that it has."""
    features = set(HOST.features.split(","))
    return [
        named(isa.level, HOST.triple, isa)
        for isa in ISAS
        if isa.level.startswith("x86-64") and features >= {f"+{name}" for name in isa.needs}
    ]


@pytest.mark.skipif(not HOST.triple.startswith("x86_64"), reason="levels are those of x86-64")
@pytest.mark.parametrize("processor", lower(), ids=lambda processor: processor.cpu)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_level_of_this_processor(kind: tuple[int, int, int], processor: Target) -> None:
    into, out, groups = kind
    check(make_gradient_plan(make_spec(into, out, groups=groups), processor))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [KINDS[0], KINDS[2], KINDS[5]], ids=str)
@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_every_instruction_set_compiles(isa: target.Isa, kind: tuple[int, int, int]) -> None:
    into, out, groups = kind
    arm = "aarch64-unknown-linux-gnu"
    processor = named(isa.level, HOST.triple if isa.level.startswith("x86-64") else arm, isa)
    plan = make_gradient_plan(make_spec(into, out, groups=groups), processor)
    assert "run" in jit.assembly(plan.kernel, processor)


@pytest.mark.slow
@pytest.mark.parametrize("finite", [True, False])
@examples(25)
@given(problems(channels=20), st.integers(1, 3))
def test_with_and_without_folded_taps(finite: bool, problem: Problem, threads: int) -> None:
    if 0 in (*problem.input_shape, *problem.output_shape, *problem.filters_shape):
        return
    given = {k: v for k, v in problem.arguments.items() if k != "output_shape"}
    spec = make_gradient_spec(
        input_shape=problem.input_shape,
        input_dtype=problem.dtype,
        gradient_shape=problem.output_shape,
        gradient_dtype=problem.dtype,
        filters_shape=problem.filters_shape,
        **given,
    )
    check(make_gradient_plan(spec, HOST, finite=finite), threads)


# --- plans --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("channels", "along", "swapped", "folded"),
    [
        ((64, 32, 1), "channels", False, False),
        ((3, 40, 1), "channels", True, False),
        ((64, 1, 1), "channels", False, True),
        ((2, 1, 1), "positions", False, True),
        ((32, 32, 32), "groups", False, False),
    ],
)
def test_what_lanes_are(channels: Any, along: str, swapped: bool, folded: bool) -> None:
    into, out, groups = channels
    kernel = make_gradient_plan(make_spec(into, out, groups=groups), HOST).kernel
    assert (kernel.along, kernel.swapped, kernel.folded) == (along, swapped, folded)


def test_without_folded_taps_where_values_are_not_finite() -> None:
    for into in (64, 2):
        assert make_gradient_plan(make_spec(into, 1), HOST).kernel.folded
        assert not make_gradient_plan(make_spec(into, 1), HOST, finite=False).kernel.folded


LARGE = [
    make_spec(320, 320, (40, 48, 56), (2, 2, 2), (2, 2, 2)),
    make_spec(1024, 512, (8, 8, 8), (4, 4, 4), (2, 2, 2)),
    make_spec(64, 1, (300, 300, 300), (5, 5, 5), (1, 1, 1)),
    make_spec(1, 1, (512, 512, 512), (4, 4, 4), (2, 2, 2)),
    make_spec(8, 8, (60, 60, 60), (3, 3, 3), (1, 1, 1), dilations=50),
    make_spec(2, 1, (1, 1, 5), (1, 1, 3), (1, 1, 1), dilations=1 << 40),
    make_spec(1, 9, (2, 2, 2), (3, 3, 3), (1 << 15, 1, 1), dilations=1 << 20),
    make_spec(4, 4, (1, 1, 90000), (1, 1, 3000), (1, 1, 7)),
    make_spec(16, 16, (30, 30, 30), (1, 1, 1), (9, 9, 9), dtype=np.float64),
    make_spec(256, 256, (64, 64, 64), (3, 3, 3), (1, 1, 1), groups=256),
]


@pytest.mark.parametrize("spec", LARGE, ids=lambda s: f"{s.in_channels}-{s.kernel}-{s.input_size}")
def test_memory_is_bounded(spec: Spec) -> None:
    plan = make_gradient_plan(spec, HOST)
    assert sum(plan.workspace) <= 16 << 20
    assert plan.partial_bytes <= 16 << 20


@pytest.mark.parametrize("dilation", [1 << 10, 1 << 40])
@pytest.mark.parametrize(("into", "out"), [(2, 1), (9, 1), (9, 9)])
def test_far_taps(into: int, out: int, dilation: int) -> None:
    spec = make_spec(into, out, (1, 2, 5), (1, 3, 3), (1, 1, 1), dilations=dilation)
    check(make_gradient_plan(spec, HOST))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_chains_are_short(dtype: Any) -> None:
    for into, out in ((64, 32), (1, 1), (9, 1)):
        plan = make_gradient_plan(make_spec(into, out, (64, 64, 64), dtype=dtype), HOST)
        positions = int(np.prod(plan.box))
        if plan.kernel.along == "positions":
            positions //= plan.kernel.lanes
        assert positions <= 512


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation"),
    [(5, 3, 2, 1), (4, 4, 2, 1), (7, 1, 3, 1), (6, 5, 1, 3), (1, 9, 4, 2), (30, 2, 5, 1)],
)
def test_reaches_by_the_definition(size: int, kernel: int, stride: int, dilation: int) -> None:
    spec = make_spec(1, 1, (1, 1, size), (1, 1, kernel), (1, 1, stride), dilations=(1, 1, dilation))
    for tap, reach in enumerate(reaches(spec, 2)):
        found = [
            i
            for i in range(size)
            if 0 <= stride * i + dilation * tap - spec.pad_before[2] < spec.output_size[2]
        ]
        assert found == list(range(reach.first, reach.end))
