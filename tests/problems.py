"""Hypothesis strategies for problems of every geometry, and for arrays of every memory layout.

Constraints of this file: problems, values and layouts are made without convt; a problem's methods
ask it, or its definition, for the answer, and `compute` calls its stages. Sizes are drawn small
enough for the definition in NumPy to take milliseconds, and large enough to fill tiles and leave
rests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st

import convt
from convt import reference, run
from convt.plan import Access, Plan, make_plan
from convt.spec import Spec, make_convolution_spec, make_spec
from convt.target import Target
from oracles import BFLOAT16, DTYPES, Array, forward_size, integers

FAMILIES = ("channels", "rows", "dots", "filtering")
# What a test gives for `forward`.
DIRECTIONS = [pytest.param(False, id="transposed"), pytest.param(True, id="convolution")]

_PRODUCTS = 2_000_000  # at most, in one problem
_OUTPUTS = 200_000
_GAP = 0xFF  # fills what lies between an array's elements: NaN in every dtype


Check = TypeVar("Check", bound=Callable[..., None])


def examples(count: int) -> Callable[[Check], Check]:
    """Search through `count` examples, the same ones in every run."""
    slow_to_make = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    return settings(
        max_examples=count, derandomize=True, deadline=None, suppress_health_check=slow_to_make
    )


@dataclass(frozen=True, slots=True)
class Problem:
    """The arguments of one call, but for the arrays' values."""

    batch: int
    in_channels: int  # of all groups
    out_channels: int
    groups: int
    input_size: tuple[int, ...]  # voxels: depth, height, width
    kernel: tuple[int, ...]
    output_size: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: Any
    data_format: str
    dtype: np.dtype[Any]
    bias: bool
    forward: bool = False  # a convolution: what the transposed one is the adjoint of

    @property
    def adjoint(self) -> Problem:
        """The problem that leads from the outputs back to the inputs."""
        return replace(
            self,
            in_channels=self.out_channels,
            out_channels=self.in_channels,
            input_size=self.output_size,
            output_size=self.input_size,
            forward=not self.forward,
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.shape(self.input_size, self.in_channels)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.shape(self.output_size, self.out_channels)

    @property
    def filters_shape(self) -> tuple[int, ...]:
        into, out = self.in_channels // self.groups, self.out_channels
        return (*self.kernel, into, out) if self.forward else (*self.kernel, out, into)

    def shape(self, size: tuple[int, ...], channels: int) -> tuple[int, ...]:
        if self.data_format == "NDHWC":
            return (self.batch, *size, channels)
        return (self.batch, channels, *size)

    @property
    def arguments(self) -> dict[str, Any]:
        """Everything but the arrays, by the names that convt and its reference share."""
        given: dict[str, Any] = {} if self.forward else {"output_shape": self.output_shape}
        return given | {
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
            "dilations": self.dilations,
            "groups": self.groups,
        }

    @property
    def spec(self) -> Spec:
        """The problem as convt's stages take it."""
        make = make_convolution_spec if self.forward else make_spec
        made: Spec = make(
            input_shape=self.input_shape,
            input_dtype=self.dtype,
            filters_shape=self.filters_shape,
            filters_dtype=self.dtype,
            bias_shape=(self.out_channels,) if self.bias else None,
            bias_dtype=self.dtype if self.bias else None,
            **self.arguments,
        )
        return made

    def call(self, x: Array, w: Array, bias: Array | None = None, **more: Any) -> Array:
        """What convt's function answers."""
        function = convt.conv3d if self.forward else convt.conv3d_transpose
        return function(x, w, **self.arguments, bias=bias, **more)

    def define(self, x: Array, w: Array, bias: Array | None = None, dtype: Any = None) -> Array:
        """What the definition answers."""
        if not self.forward:
            return reference.conv3d_transpose(x, w, **self.arguments, bias=bias, dtype=dtype)
        # The definition has the filters of the transposed convolution, whose outputs are in groups.
        into, out = (c // self.groups for c in (self.in_channels, self.out_channels))
        w = w.reshape(*self.kernel, into, self.groups, out).swapaxes(3, 4)
        w = w.reshape(*self.kernel, self.in_channels, out)
        return reference.input_gradient(
            x, w, self.output_size, **self.arguments, bias=bias, dtype=dtype
        )

    def integers(self, seed: int = 0) -> tuple[Array, Array, Array | None]:
        """Input, filters and bias of small integers: their sums are exact in float32."""
        rng = np.random.default_rng(seed)
        x = integers(rng, self.input_shape, self.dtype)
        w = integers(rng, self.filters_shape, self.dtype)
        return x, w, integers(rng, (self.out_channels,), self.dtype) if self.bias else None

    def normal(self, seed: int = 0) -> tuple[Array, Array, Array | None]:
        """Input, filters and bias of values that every sum rounds."""
        rng = np.random.default_rng(seed)
        x = rng.standard_normal(self.input_shape).astype(self.dtype)
        w = rng.standard_normal(self.filters_shape).astype(self.dtype)
        bias = rng.standard_normal(self.out_channels).astype(self.dtype)
        return x, w, bias if self.bias else None


def box(size: Any, into: int, out: int, kernel: Any, strides: Any, **given: Any) -> Problem:
    """A problem in float32, padded to SAME, unless `given` says otherwise."""
    made = Problem(
        batch=1,
        in_channels=into,
        out_channels=out,
        groups=1,
        input_size=size,
        kernel=kernel,
        output_size=tuple(n * s for n, s in zip(size, strides, strict=True)),
        strides=strides,
        dilations=(1, 1, 1),
        padding="SAME",
        data_format="NDHWC",
        dtype=np.dtype(np.float32),
        bias=False,
    )
    return replace(made, **given)


def convolution(size: Any, into: int, out: int, kernel: Any, strides: Any, **given: Any) -> Problem:
    """The same of a convolution."""
    made = box(size, into, out, kernel, strides, forward=True, **given)
    pads = [made.padding] * 3 if isinstance(made.padding, str) else made.padding
    axes = zip(size, kernel, strides, made.dilations, pads, strict=True)
    return replace(made, output_size=tuple(forward_size(*axis) for axis in axes))


@st.composite
def problems(draw: st.DrawFn, channels: int = 70) -> Problem:
    """Problems of every kind that is accepted, with up to `channels` channels on a side."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 5]))
    ci, co = (draw(_channels(channels // groups)) for _ in range(2))
    batch = draw(st.sampled_from([1, 1, 1, 2, 2, 3, 3, 0]))
    products = max(batch, 1) * max(ci, 1) * max(co, 1) * groups
    explicit = draw(st.booleans())
    padding = draw(st.sampled_from(["SAME", "VALID"]))
    axes = []
    for longest in (4, 5, 40):
        axis = draw(_axes("pairs" if explicit else padding, longest, _PRODUCTS // products))
        products *= max(axis[0], 1) * axis[1]
        axes.append(axis)
    sizes, kernel, strides, dilations, pads, outputs = zip(*axes, strict=True)
    assume(max(batch, 1) * prod(outputs) * groups * co <= _OUTPUTS)
    return Problem(
        batch=batch,
        in_channels=groups * ci,
        out_channels=groups * co,
        groups=groups,
        input_size=sizes,
        kernel=kernel,
        output_size=outputs,
        strides=strides,
        dilations=dilations,
        padding=pads if explicit else padding,
        data_format=draw(st.sampled_from(["NDHWC", "NCDHW"])),
        dtype=draw(st.sampled_from(DTYPES)),
        bias=draw(st.booleans()),
    )


@st.composite
def filterable(draw: st.DrawFn, taps: int = 3) -> Problem:
    """Problems that minimal filtering serves: dense phases of up to `taps` taps, whole vectors.

    Code for many taps on every axis takes long to compile, so most have them on one or two axes.
    """
    into, out = (draw(st.sampled_from([8, *range(8, 26), 32, 40, 64, 70])) for _ in range(2))
    if draw(st.sampled_from([False] * 9 + [True])):
        into, out = draw(st.integers(250, 300)), min(out, 20)
    batch = draw(st.integers(1, 2))
    products = batch * into * out
    padding = draw(st.sampled_from(["SAME", "VALID", "pairs"]))
    many = draw(st.sampled_from([(0,), (1,), (2,), (2,), (0, 2), (1, 2), (0, 1, 2)]))
    axes = []
    for axis, longest in enumerate((5, 6, 20)):
        found = draw(
            _dense_axes(padding, longest, taps if axis in many else 1, 4 * _PRODUCTS // products)
        )
        products *= max(found[0], 1) * found[1]
        axes.append(found)
    sizes, kernel, strides, dilations, pads, outputs = zip(*axes, strict=True)
    return Problem(
        batch=batch,
        in_channels=into,
        out_channels=out,
        groups=1,
        input_size=sizes,
        kernel=kernel,
        output_size=outputs,
        strides=strides,
        dilations=dilations,
        padding=pads if padding == "pairs" else padding,
        data_format=draw(st.sampled_from(["NDHWC", "NCDHW"])),
        dtype=draw(st.sampled_from([*DTYPES, np.dtype(np.float32)])),
        bias=draw(st.booleans()),
    )


def problems_of(family: str) -> st.SearchStrategy[Problem]:
    """Problems of which a family serves many."""
    if family == "dots":
        return problems().map(_with_whole_vectors)
    return filterable() if family == "filtering" else problems()


def _with_whole_vectors(problem: Problem) -> Problem:
    """The same with dense channels, four or eight times as many as there are up to eight."""
    groups, factor = problem.groups, 4 + problem.out_channels % 2 * 4
    into, out = (
        groups * factor * -(-min(c // groups, 8) // (1 if c // groups < 3 else 4))
        for c in (problem.in_channels, problem.out_channels)
    )
    return replace(problem, in_channels=into, out_channels=out, data_format="NDHWC")


def either_way(found: st.SearchStrategy[Problem]) -> st.SearchStrategy[Problem]:
    """Transposed convolutions, and as many convolutions."""
    return found | adjoints(found)


def adjoints(found: st.SearchStrategy[Problem]) -> st.SearchStrategy[Problem]:
    """The convolutions that belong to transposed ones."""
    return found.map(lambda problem: problem.adjoint)


def _channels(most: int) -> st.SearchStrategy[int]:
    """One side's channels: few, any, and seldom none."""
    return st.sampled_from([*range(1, 5), *range(1, most + 1), 0])


Drawn = tuple[Any, ...]  # one axis: input, kernel, stride, dilation, padding, output


@st.composite
def _axes(draw: st.DrawFn, padding: str, longest: int, products: int) -> Drawn:
    """An axis of any kind."""
    kernel, stride, dilation = draw(st.integers(1, 7)), draw(st.integers(1, 5)), 1
    if kernel > 1:
        dilation = draw(st.sampled_from([1, 1, 2, 3]))
    longest = max(min(longest, products // kernel), 1)
    seldom_none = draw(st.sampled_from([1] * 12 + [0]))
    size = draw(st.integers(seldom_none, longest))
    return draw(_allowed(padding, size, kernel, stride, dilation, seldom_none))


@st.composite
def _dense_axes(draw: st.DrawFn, padding: str, longest: int, taps: int, products: int) -> Drawn:
    """An axis each phase of which has one to `taps` taps that read neighbours."""
    stride, dilation = draw(st.integers(1, 4 if taps > 1 else 2)), 1
    kernel = draw(st.integers(stride + (taps > 1), stride * taps))
    if kernel == stride and stride % 3:  # a tap a phase, and the dilation leaves it one
        dilation = draw(st.sampled_from([1, 3]))
    size = draw(st.integers(1, max(min(longest, products // kernel), 1)))
    return draw(_allowed(padding, size, kernel, stride, dilation, 1))


@st.composite
def _allowed(
    draw: st.DrawFn, padding: str, size: int, kernel: int, stride: int, dilation: int, least: int
) -> Drawn:
    """An axis of an output that is allowed, of `least` voxels or more."""
    if padding == "SAME":
        out = draw(st.integers(max((size - 1) * stride + 1, 0), size * stride))
        return size, kernel, stride, dilation, padding, out
    # The forward convolution of `out` voxels has `size` windows, the last of which starts at
    # stride * (size - 1); up to stride - 1 voxels more do not make room for another.
    most = size * stride + (kernel - 1) * dilation
    before = after = 0
    if padding == "pairs":
        before = draw(st.integers(0, min(most - least, (kernel - 1) * dilation + 2)))
        after = draw(st.integers(0, min(most - least - before, (kernel - 1) * dilation + 2)))
    most -= before + after
    out = draw(st.integers(min(max(most - stride + 1, least), most), most))
    return size, kernel, stride, dilation, (before, after), out


@dataclass(frozen=True, slots=True)
class Layout:
    """How an array lies in memory."""

    order: tuple[int, ...]  # its axes, from the slowest in memory to the fastest
    steps: tuple[int, ...]  # along each axis: elements to the next one; 0 repeats the first
    offset: int = 0  # bytes from where the dtype would be aligned
    swapped: bool = False  # in foreign byte order
    readonly: bool = False

    def array(self, values: Array) -> Array:
        """An array of this layout that holds `values`; where a step is 0, their first entry."""
        order, steps = self.order, [self.steps[axis] for axis in self.order]
        dtype = values.dtype.newbyteorder() if self.swapped else values.dtype
        room = [values.shape[a] * abs(s) or min(values.shape[a], 1)
                for a, s in zip(order, steps, strict=True)]  # fmt: skip
        memory = np.full(prod(room) * dtype.itemsize + self.offset, _GAP, np.uint8)
        block = np.ndarray(room, dtype, memory, self.offset)
        block = block[tuple(slice(None, None, step or 1) for step in steps)]
        block = np.transpose(block, np.argsort(order))
        firsts = tuple(slice(None) if step else slice(1) for step in self.steps)
        block[...] = values[firsts]
        if 0 in self.steps:
            block = np.broadcast_to(block, values.shape)
        if self.readonly:
            block = block[...]
            block.flags.writeable = False
        assert block.shape == values.shape
        return block


@st.composite
def layouts(
    draw: st.DrawFn, dimensions: int, dtype: np.dtype[Any], *, written: bool = False
) -> Layout:
    """Layouts that NumPy views may have; if `written`, those that a result may be written to."""
    order = tuple(range(dimensions))
    if draw(st.booleans()):
        order = tuple(draw(st.permutations(order)))
    step = st.sampled_from([1, 1, 1, 2, 3, -1, -2] if written else [1, 1, 1, 2, 3, -1, -2, 0])
    steps = (1,) * dimensions if draw(st.booleans()) else draw(st.tuples(*[step] * dimensions))
    foreign = dtype != BFLOAT16 and not written  # ml_dtypes has native byte order only
    return Layout(
        order=order,
        steps=steps,
        offset=draw(st.sampled_from([0, 0, 1, dtype.itemsize - 1])),
        swapped=foreign and draw(st.booleans()),
        readonly=not written and draw(st.booleans()),
    )


def untouched(array: Array) -> bool:
    """Whether the memory around the elements of a `Layout`'s array is as it was made."""
    memory = array
    while isinstance(memory.base, np.ndarray):
        memory = memory.base
    kept = memory.copy()
    array.view(f"u{array.itemsize}")[...] = 2 ** (8 * array.itemsize) - 1
    clean = bool(np.all(memory == _GAP))
    memory[...] = kept
    return clean


def plan_of(
    problem: Problem, family: str, target: Target, *, threads: int, contiguous: bool = True
) -> Plan | None:
    """The plan of one family for C-contiguous arrays, or None where it can't serve the problem.

    Only if `contiguous` may it make use of a result without gaps, from a cache line on.
    """
    last = problem.data_format == "NDHWC"
    access = Access(
        input_channels_dense=last or problem.in_channels == 1,
        output_channels_dense=last or problem.out_channels == 1,
        output_width_dense=not last or problem.out_channels == 1,
        output_contiguous=contiguous,
    )
    algorithm = "auto" if family == "filtering" else "direct"
    try:
        plan = make_plan(problem.spec, target, access, threads, family=family, algorithm=algorithm)
    except ValueError:
        return None
    assert plan.kernel.family == family
    return plan


def compute(
    problem: Problem,
    x: Array,
    w: Array,
    bias: Array | None,
    family: str,
    target: Target,
    *,
    threads: int,
    contiguous: bool = True,
) -> Array | None:
    """What that plan computes."""
    plan = plan_of(problem, family, target, threads=threads, contiguous=contiguous)
    if plan is None:
        return None
    size = prod(problem.output_shape) * problem.dtype.itemsize
    memory = np.full(size + 64, _GAP, np.uint8)
    y = memory[-memory.ctypes.data % 64 :][:size].view(problem.dtype).reshape(problem.output_shape)
    w = w.swapaxes(3, 4) if problem.forward else w
    run.execute(plan, x, run.pack_filters(plan, w, threads), bias, y)
    return y
