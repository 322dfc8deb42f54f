"""Phases, segments and hits of one axis against the equation that defines them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convt.geometry import Axis, axes
from convt.spec import adjoint, make_spec
from problems import examples

# Any numbers at all: what an axis does follows from the equation, also for sizes that no padding
# allows.
any_axis = st.builds(
    Axis,
    input=st.integers(0, 9),
    output=st.integers(0, 40),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 6),
    dilation=st.integers(1, 4),
    pad_before=st.integers(0, 12),
    forward=st.booleans(),
)


def pairs(axis: Axis) -> list[set[tuple[int, int]]]:
    """For every output the pairs of tap and input that it sums: out = stride * in + ... .

    Of a convolution the same with inputs and outputs in each other's place.
    """
    found: list[set[tuple[int, int]]] = [set() for _ in range(axis.output)]
    sizes = (axis.output, axis.input) if axis.forward else (axis.input, axis.output)
    for place in range(sizes[0]):
        for tap in range(axis.kernel):
            reached = axis.stride * place + axis.dilation * tap - axis.pad_before
            if 0 <= reached < sizes[1]:
                out, i = (place, reached) if axis.forward else (reached, place)
                found[out].add((tap, i))
    return found


def listed(axis: Axis, start: int, stop: int) -> dict[int, set[tuple[int, int]]]:
    """The same, as segments tell it; each output once."""
    found: dict[int, set[tuple[int, int]]] = {}
    for segment in axis.segments(start, stop):
        assert segment.count > 0
        for j in range(segment.count):
            out = segment.out_first + axis.pitch * j
            first = segment.in_first + axis.step * j
            assert out not in found
            found[out] = {(tap.index, first - tap.shift) for tap in segment.taps}
            assert len(found[out]) == len(segment.taps)
    return found


whole_strides = st.builds(
    lambda input, taps, stride, more, pad: Axis(
        input, stride + more, taps * stride, stride, dilation=1, pad_before=pad
    ),
    st.integers(0, 9), st.integers(1, 3), st.integers(1, 4), st.integers(0, 30), st.integers(0, 9),
)  # fmt: skip


@examples(100)
@given(whole_strides, st.integers(0, 40), st.integers(0, 40))
def test_groups_list_every_output_of_a_range(axis: Axis, start: int, stop: int) -> None:
    start, stop = sorted((min(start, axis.output), min(stop, axis.output)))
    found: dict[int, set[tuple[int, int]]] = {}
    for segment in axis.groups(start, stop) if start < stop else ():
        for j, phase in itertools.product(range(segment.count), range(axis.stride)):
            out = segment.out_first + axis.stride * j + phase
            assert out not in found
            found[out] = {
                (tap.index + phase, segment.in_first + j - tap.shift) for tap in segment.taps
            }
    wanted = pairs(axis)
    assert {out: found[out] for out in range(start, stop)} == dict(
        zip(range(start, stop), wanted[start:stop], strict=True)
    )
    beyond = {out for out in found if not start <= out < stop}
    assert all(start - axis.stride < out < stop + axis.stride for out in beyond)


@examples(100)
@given(any_axis)
def test_segments_list_every_output_with_what_it_sums(axis: Axis) -> None:
    assert listed(axis, 0, axis.output) == dict(enumerate(pairs(axis)))


@examples(100)
@given(any_axis, st.integers(0, 40), st.integers(0, 40))
def test_so_they_do_for_a_range(axis: Axis, start: int, stop: int) -> None:
    start, stop = sorted((min(start, axis.output), min(stop, axis.output)))
    everything = pairs(axis)
    assert listed(axis, start, stop) == {out: everything[out] for out in range(start, stop)}


@examples(100)
@given(any_axis, st.integers(0, 40), st.integers(0, 40))
def test_the_range_of_inputs_is_what_the_outputs_read(axis: Axis, start: int, stop: int) -> None:
    start, stop = sorted((min(start, axis.output), min(stop, axis.output)))
    reads = {i for found in pairs(axis)[start:stop] for _, i in found}
    first, end = axis.input_range(start, stop)
    assert 0 <= first <= end <= axis.input
    if reads:
        assert (first, end) == (min(reads), max(reads) + 1)
    else:
        assert first == end


@examples(100)
@given(any_axis)
def test_hits_are_the_products(axis: Axis) -> None:
    assert axis.hits == sum(map(len, pairs(axis)))


@examples(100)
@given(any_axis)
def test_phases_share_out_the_taps(axis: Axis) -> None:
    phases = axis.phases
    residues = [phase.residue for phase in phases]
    assert residues == sorted(set(residues))
    outputs = {(out + axis.lead) % axis.pitch for out in range(axis.output)}
    assert set(residues) == outputs
    for phase in phases:
        assert [tap.shift for tap in phase.taps] == sorted(tap.shift for tap in phase.taps)
        for tap in phase.taps:
            reach = axis.dilation * tap.index
            if axis.forward:
                assert reach == axis.pad_before - tap.shift
            else:
                assert reach == axis.stride * tap.shift + phase.residue
    assert sum(map(axis.outputs, phases)) == axis.output


@examples(100)
@given(any_axis)
def test_correlations_list_every_output_with_what_it_sums(axis: Axis) -> None:
    """Steps of 1 on both sides: through the outputs of a phase, or through a part of the input."""
    found: list[set[tuple[int, int]]] = [set() for _ in range(axis.output)]
    for phase in axis.correlations:
        shifts = [tap.shift for tap in phase.taps]
        assert shifts == sorted(set(shifts))
        for m in range(axis.output + axis.pad_before + 1):
            out = m if axis.forward else axis.stride * m + phase.residue - axis.pad_before
            if not 0 <= out < axis.output:
                continue
            for tap in phase.taps:
                place = m - tap.shift
                i = axis.stride * place + phase.residue if axis.forward else place
                if 0 <= i < axis.input:
                    assert (tap.index, i) not in found[out]
                    found[out].add((tap.index, i))
    assert found == pairs(axis)


@examples(100)
@given(any_axis)
def test_neighbouring_segments_differ(axis: Axis) -> None:
    """A segment is as long as can be, but where taps come and go at once."""
    segments = axis.segments(0, axis.output)
    for before, after in itertools.pairwise(segments):
        if before.phase == after.phase and before.taps:
            assert before.taps != after.taps


def test_a_worked_example() -> None:
    """4 voxels, kernel 3, stride 2, SAME to 8: tap 2 of the last voxel falls off the end."""
    axis = Axis(input=4, output=8, kernel=3, stride=2, dilation=1, pad_before=0)
    even, odd = axis.phases
    assert [(tap.index, tap.shift) for tap in even.taps] == [(0, 0), (2, 1)]
    assert [(tap.index, tap.shift) for tap in odd.taps] == [(1, 0)]
    assert [(s.out_first, s.count, len(s.taps)) for s in axis.segments(0, 8)] == [
        (0, 1, 1),
        (2, 3, 2),
        (1, 4, 1),
    ]
    assert axis.hits == 11
    assert axis.input_range(4, 6) == (1, 3)


def test_a_worked_example_of_a_convolution() -> None:
    """8 voxels, kernel 3, stride 2, SAME to 4: tap 2 of the last output reads beyond the end."""
    axis = Axis(input=8, output=4, kernel=3, stride=2, dilation=1, pad_before=0, forward=True)
    (phase,) = axis.phases
    assert [(tap.index, tap.shift) for tap in phase.taps] == [(2, -2), (1, -1), (0, 0)]
    assert [(s.out_first, s.count, len(s.taps)) for s in axis.segments(0, 4)] == [
        (0, 3, 3),
        (3, 1, 2),
    ]
    assert axis.hits == 11
    assert axis.input_range(1, 3) == (2, 7)
    even, odd = axis.correlations
    assert [(tap.index, tap.shift) for tap in even.taps] == [(2, -1), (0, 0)]
    assert [(tap.index, tap.shift) for tap in odd.taps] == [(1, 0)]


def test_the_axes_of_a_problem() -> None:
    spec = make_spec(
        input_shape=(1, 8, 4, 5, 6),
        input_dtype=np.float32,
        filters_shape=(3, 2, 1, 16, 8),
        filters_dtype=np.float32,
        output_shape=(1, 16, 7, 15, 6),
        strides=(2, 3, 1),
        padding="SAME",
        data_format="NCDHW",
        dilations=(1, 4, 2),
    )
    assert axes(spec) == (
        Axis(input=4, output=7, kernel=3, stride=2, dilation=1, pad_before=1),
        Axis(input=5, output=15, kernel=2, stride=3, dilation=4, pad_before=1),
        Axis(input=6, output=6, kernel=1, stride=1, dilation=2, pad_before=0),
    )
    assert axes(adjoint(spec)) == (
        Axis(7, 4, kernel=3, stride=2, dilation=1, pad_before=1, forward=True),
        Axis(15, 5, kernel=2, stride=3, dilation=4, pad_before=1, forward=True),
        Axis(6, 6, kernel=1, stride=1, dilation=2, pad_before=0, forward=True),
    )


@pytest.mark.parametrize(
    "axis",
    [
        Axis(input=10**12, output=2 * 10**12, kernel=3, stride=2, dilation=1, pad_before=0),
        Axis(input=1, output=1, kernel=2, stride=10**18, dilation=1, pad_before=0),
        Axis(input=2, output=2, kernel=2, stride=1, dilation=10**18, pad_before=5 * 10**17),
        Axis(2 * 10**12, 10**12, kernel=3, stride=2, dilation=1, pad_before=0, forward=True),
        Axis(10**18, 2, kernel=2, stride=10**18, dilation=1, pad_before=0, forward=True),
        Axis(2, 2, kernel=2, stride=1, dilation=10**18, pad_before=5 * 10**17, forward=True),
        pytest.param(
            Axis(input=1, output=10**5, kernel=10**5, stride=1, dilation=1, pad_before=0),
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda axis: f"in {axis.input}, stride {axis.stride}, dilation {axis.dilation}",
)
def test_numbers_of_any_size_take_no_time(axis: Axis) -> None:
    """What counts is the number of taps: a loop over voxels here would never end."""
    segments = axis.segments(0, axis.output)
    assert sum(segment.count for segment in segments) == axis.output
    assert len(segments) <= 2 * axis.kernel + len(axis.phases)
    first, end = axis.input_range(0, axis.output)
    assert 0 <= first <= end <= axis.input
