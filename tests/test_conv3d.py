"""The convolution as users call it: what it takes, what it returns, what it refuses.

Its values have their tests beside those of the transposed convolution, in `test_properties`.
"""

from __future__ import annotations

import inspect
from contextlib import suppress
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given

import convt
from convt import jit, reference
from oracles import BFLOAT16, DTYPES, Array, assert_identical
from problems import Problem, adjoints, convolution, examples, problems

slow = pytest.mark.slow
SOME = [pytest.param(d, marks=() if d == np.float32 else slow) for d in DTYPES]
# 5x7x8 voxels, 6 -> 5 channels, kernel 3, stride 2, SAME: to 3x4x4.
PLAIN = convolution((5, 7, 8), 6, 5, (3, 3, 3), (2, 2, 2), batch=2)


def call(x: Any, w: Any, **changes: Any) -> Array:
    arguments: dict[str, Any] = {"strides": 2, "padding": "SAME"}
    return convt.conv3d(x, w, **(arguments | changes))


# --- what comes back ----------------------------------------------------------------------------
def test_positional_arguments_have_tensorflow_s_order() -> None:
    x, w, _ = PLAIN.integers()
    y = convt.conv3d(x, w, (1, 2, 2, 2, 1), "SAME", "NDHWC", (1, 1, 1, 1, 1), "down")
    assert_identical(y, PLAIN.define(x, w))


def test_extensions_are_keywords_only() -> None:
    kinds = inspect.signature(convt.conv3d).parameters
    extensions = [n for n, p in kinds.items() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    assert extensions == ["bias", "groups", "out", "threads", "algorithm"]


@pytest.mark.parametrize("dtype", SOME, ids=str)
def test_the_result_is_new_contiguous_and_native(dtype: Any) -> None:
    x, w, _ = replace(PLAIN, dtype=dtype).integers()
    kept = x.copy(), w.copy()
    if dtype != BFLOAT16:
        x, w = x.astype(x.dtype.newbyteorder()), w.astype(w.dtype.newbyteorder())
    y = call(x, w)
    assert type(y) is np.ndarray
    assert y.dtype.isnative
    assert y.flags.c_contiguous
    assert y.flags.writeable
    assert_identical(y, replace(PLAIN, dtype=dtype).define(*kept))
    for array, before in zip((x, w), kept, strict=True):
        assert np.array_equal(array, before)


def test_lists_are_arrays() -> None:
    y = convt.conv3d([[[[[1.0], [2.0], [3.0]]]]], [[[[[10.0]], [[1.0]]]]], 1, "VALID")
    assert y.dtype == np.float64
    assert y.ravel().tolist() == [12.0, 23.0]


@pytest.mark.parametrize(
    ("padding", "dilations", "size"),
    [
        ("SAME", 1, (3, 4, 4)),
        ("SAME", 3, (3, 4, 4)),
        ("VALID", 1, (2, 3, 3)),
        ("VALID", (2, 1, 3), (1, 3, 1)),
        ([(1, 0), (0, 0), (2, 5)], 1, (2, 3, 7)),
        ([(0, 9), (0, 0), (0, 0)], 2, (5, 2, 2)),
    ],
)
def test_sizes(padding: Any, dilations: Any, size: Any) -> None:
    x, w, _ = PLAIN.integers()
    y = call(x, w, padding=padding, dilations=dilations)
    assert y.shape == (2, *size, 5)
    shared: Any = (2, padding, "NDHWC", dilations)
    assert_identical(y, reference.input_gradient(x, w, size, *shared))


def test_each_group_is_convolved_by_itself() -> None:
    problem = replace(PLAIN, groups=3, out_channels=9)
    x, w, _ = problem.integers()
    parts = [
        call(x[..., 2 * g : 2 * g + 2], w[..., 3 * g : 3 * g + 3]) for g in range(problem.groups)
    ]
    assert_identical(problem.call(x, w), np.concatenate(parts, axis=-1))


@pytest.mark.parametrize("data_format", ["NDHWC", "NCDHW"])
def test_depthwise(data_format: str) -> None:
    size, taps, strides = (4, 6, 9), (3, 2, 3), (1, 2, 2)
    given: dict[str, Any] = {"groups": 21, "data_format": data_format, "bias": True}
    problem = convolution(size, 21, 21, taps, strides, **given)
    arrays = problem.integers()
    assert_identical(problem.call(*arrays), problem.define(*arrays))


@pytest.mark.parametrize("data_format", ["NDHWC", "NCDHW"])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("into", [1, 3, 40])
def test_strides_with_dilations(into: int, padding: str, data_format: str) -> None:
    """Few and many channels: taps whose inputs lie side by side, or apart."""
    for strides, dilations in (
        ((2, 1, 2), (1, 2, 3)),
        ((1, 1, 1), (1, 1, 2)),
        ((1, 3, 2), (2, 1, 1)),
    ):
        given: dict[str, Any] = {"dilations": dilations, "padding": padding}
        shape: Any = ((5, 7, 9), into, 24, (2, 3, 3), strides)
        problem = convolution(*shape, data_format=data_format, **given)
        x, w, _ = problem.integers()
        assert_identical(problem.call(x, w), problem.define(x, w))


@pytest.mark.parametrize("data_format", ["NDHWC", "NCDHW"])
def test_padding_adds_nothing(data_format: str) -> None:
    """Where no tap meets the input the answer is the bias, or 0 without a sign."""
    pads = ((9, 0), (0, 4), (6, 6))
    shape: Any = ((2, 3, 4), 3, 17, (3, 2, 3), (2, 1, 2))
    problem = convolution(*shape, padding=pads, data_format=data_format, bias=True)
    x, w, b = problem.integers()
    y = problem.call(x, w, b)
    assert_identical(y, problem.define(x, w, b))
    assert b is not None
    corner = (0, 0, 0, 0) if data_format == "NDHWC" else (0, slice(None), 0, 0, 0)
    assert_identical(y[corner], b)
    bare = problem.call(-np.abs(x), np.abs(w))
    assert not np.any(np.signbit(bare[bare == 0]))


# Strides and dilations that leave one voxel of an axis, or one tap.
@pytest.mark.parametrize(
    ("strides", "dilations", "padding"),
    [(10**12, 1, "SAME"), (1, 10**12, "SAME"), (10**12, 10**9, [(0, 10**10)] * 3)],
)
def test_strides_and_dilations_of_any_size(strides: int, dilations: int, padding: Any) -> None:
    x, w, _ = PLAIN.integers()
    y = call(x, w, strides=strides, dilations=dilations, padding=padding)
    shared: Any = (strides, padding, "NDHWC", dilations)
    assert_identical(y, reference.input_gradient(x, w, y.shape[1:4], *shared))


@pytest.mark.parametrize("data_format", ["NDHWC", "NCDHW"])
@pytest.mark.parametrize("empty", ["batch", "in", "out", "depth", "width", "window"])
def test_empty_arrays(empty: str, data_format: str) -> None:
    given: dict[str, Any] = {"batch": 0} if empty == "batch" else {}
    into, out = 0 if empty == "in" else 6, 0 if empty == "out" else 5
    size = (0 if empty == "depth" else 3, 4, 0 if empty == "width" else 5)
    if empty == "window":  # between two strides of a kernel that does not fit
        size, given = (2, 4, 5), {"padding": "VALID"}
    shape: Any = (size, into, out, (3, 3, 3), (2, 2, 2))
    problem = convolution(*shape, bias=True, data_format=data_format, **given)
    arrays = problem.integers()
    y = problem.call(*arrays)
    assert_identical(y, problem.define(*arrays))
    assert y.size == 0 or empty == "in"


# --- how it is computed -------------------------------------------------------------------------
@pytest.mark.parametrize("width", [0, 4, 8, 12])
@pytest.mark.parametrize("channel", [0, 4, 8, 12])
def test_a_lone_channel_s_stride_says_nothing(width: int, channel: int) -> None:
    """Columns may be as far from each other as channels claim to be: a gradient of ones, say."""
    memory = np.arange(16, dtype=np.float32)
    x = np.lib.stride_tricks.as_strided(memory, (1, 1, 1, 4, 1), (0, 0, 0, width, channel))
    w = np.array([1, 3], np.float32).reshape(1, 1, 2, 1, 1)
    y = call(x, w, strides=1, padding="VALID")
    assert_identical(y, call(x.copy(), w, strides=1, padding="VALID"))


# Input size, channels, kernel, strides: enough work to be cut into tasks of every family.
SHAPES: list[Any] = [
    ((13, 14, 18), 24, 40, (3, 3, 3), (2, 2, 2)),
    ((20, 24, 66), 2, 1, (4, 4, 4), (2, 2, 2)),
    ((9, 9, 9), 40, 33, (3, 3, 3), (1, 1, 1)),
    ((5, 6, 7), 19, 300, (2, 3, 1), (1, 2, 2)),
]


@pytest.mark.parametrize("dtype", SOME, ids=str)
@pytest.mark.parametrize("data_format", ["NDHWC", "NCDHW"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_number_of_threads_gives_the_same_bits(
    shape: Any, data_format: str, dtype: Any
) -> None:
    problem = convolution(*shape, batch=2, bias=True, data_format=data_format, dtype=dtype)
    arrays = problem.normal()
    one = problem.call(*arrays, threads=1)
    for threads in (2, 5, None):
        assert problem.call(*arrays, threads=threads).tobytes() == one.tobytes()


LARGE = convolution((16, 24, 24), 32, 32, (3, 3, 3), (1, 1, 1))


@slow
def test_each_algorithm() -> None:
    """Minimal filtering is chosen where it is allowed, and is close to the direct sum."""
    x, w, _ = LARGE.normal()
    direct = LARGE.call(x, w, algorithm="direct")
    scale = LARGE.call(np.abs(x), np.abs(w))
    before = convt.get_algorithm()
    try:
        for algorithm in ("auto", "fast"):
            y = LARGE.call(x, w, algorithm=algorithm)
            assert not np.array_equal(y, direct)
            assert np.max(np.abs(y - direct)) < 64 * 2.0**-23 * np.max(scale)
            convt.set_algorithm(algorithm)
            assert_identical(LARGE.call(x, w), y)
    finally:
        convt.set_algorithm(before)


@slow
def test_minimal_filtering_keeps_nan_in_its_place() -> None:
    x, w, _ = LARGE.integers()
    x[0, 0, 11, 23, 7] = np.nan
    x[0, 8, 5, 0, 30] = -np.inf
    assert_identical(LARGE.call(x, w), LARGE.define(x, w))
    w[1, 2, 0, 7, 3] = np.inf
    assert_identical(LARGE.call(x, w), LARGE.define(x, w))


def test_a_new_size_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for channels in (6, 40):
        for size in ((5, 7, 8), (9, 4, 6)):
            problem = convolution(size, channels, 20, (3, 3, 3), (2, 2, 2))
            arrays = problem.integers()
            assert_identical(problem.call(*arrays), problem.define(*arrays))
            monkeypatch.setattr(jit, "emit", None)  # whoever compiles calls it
        monkeypatch.undo()


@examples(15)
@given(adjoints(problems(channels=12)))
def test_the_definition_answers_where_no_code_can_run(problem: Problem) -> None:
    arrays = problem.integers()
    with mock.patch.object(jit, "can_execute", return_value=False):
        with suppress(RuntimeWarning):  # once a process, to which a warning is an error here
            problem.call(*arrays)
        with mock.patch.object(jit, "load", None):
            assert_identical(problem.call(*arrays), problem.define(*arrays))


def test_the_warning_names_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convt.api._warned", False)
    monkeypatch.setattr(jit, "can_execute", lambda: False)
    with pytest.warns(RuntimeWarning, match="convt computes with NumPy") as caught:
        call(*PLAIN.integers()[:2])
    assert [warning.filename for warning in caught] == [__file__]


# --- out ----------------------------------------------------------------------------------------
def test_out_may_be_a_part_of_a_larger_array() -> None:
    x, w, _ = PLAIN.integers()
    volume = np.full((2, 6, 4, 8, 9), 7.0, np.float32)
    part = volume[:, ::-2, :, 4:, 1:6]
    assert call(x, w, out=part) is part
    assert_identical(part, PLAIN.define(x, w))
    part[...] = 7.0
    assert np.all(volume == 7.0)


SHAPE = PLAIN.output_shape
FROZEN = np.zeros(SHAPE, np.float32)
FROZEN.flags.writeable = False
REFUSED_OUTS: list[tuple[Any, type[Exception], str]] = [
    ([0.0], TypeError, "out must be a numpy.ndarray, got list"),
    (
        np.zeros((2, 3, 4, 4, 6), np.float32),
        ValueError,
        r"out\.shape = \(2, 3, 4, 4, 6\) must be the output's: \(2, 3, 4, 4, 5\)",
    ),
    (np.zeros(SHAPE), TypeError, r"out\.dtype = float64 must be the input's .*: float32"),
    (np.zeros(SHAPE, ">f4"), TypeError, r"out\.dtype = >f4 must be .* native order: float32"),
    (FROZEN, ValueError, "out must be writeable"),
    (np.broadcast_to(np.float32(0), SHAPE).view(), ValueError, "out must be writeable"),
    (
        np.lib.stride_tricks.as_strided(np.zeros(1000, np.float32), SHAPE, (0, 80, 20, 20, 4)),
        ValueError,
        r"out\.strides = \(0, 80, 20, 20, 4\) let elements of out share memory",
    ),
]


@pytest.mark.parametrize(("out", "kind", "message"), REFUSED_OUTS, ids=lambda value: str(value)[:9])
def test_out_is_refused(out: Any, kind: type[Exception], message: str) -> None:
    x, w, _ = PLAIN.integers()
    with pytest.raises(kind, match=message):
        call(x, w, out=out)


@pytest.mark.parametrize("name", ["input", "filters", "bias"])
def test_out_is_refused_where_it_overlaps(name: str) -> None:
    x, w, b = replace(PLAIN, bias=True).integers()
    given: dict[str, Any] = {"input": x, "filters": w, "bias": b}
    memory = np.ones(10_000, np.float32)
    out = memory[: int(np.prod(SHAPE))].reshape(SHAPE)
    shared = given[name]
    first = out.size - 1  # one element in common
    given[name] = memory[first : first + shared.size].reshape(shared.shape)
    with pytest.raises(ValueError, match=f"out shares memory with {name}: pass a copy of one"):
        convt.conv3d(**given, strides=2, padding="SAME", out=out)
    assert np.all(memory == 1)  # refused before anything was written


# --- refused ------------------------------------------------------------------------------------
# What `make_convolution_spec` refuses has its tests in `test_spec`; these show that the call passes
# everything on.
REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"strides": 0}, ValueError, "strides = 0 must be at least 1"),
    ({"dilations": (1, 0, 1)}, ValueError, r"dilations\[1\] = 0 must be at least 1"),
    ({"padding": "same"}, ValueError, "got 'same': write \"SAME\""),
    ({"padding": None}, TypeError, "padding must be .* got None"),
    ({"padding": "VALID", "dilations": 4}, ValueError, r"input\.shape\[1\] = 5 .* at least 9"),
    ({"data_format": "NHWC"}, ValueError, 'data_format must be "NDHWC", "NCDHW" or None'),
    ({"data_format": "NCDHW"}, ValueError, r"filters\.shape\[3\] = 6 must be the input's channels"),
    ({"groups": 4}, ValueError, "groups = 4 must divide the input's channels, 6"),
    ({"threads": 0}, ValueError, "threads = 0 must be at least 1"),
    ({"algorithm": "best"}, ValueError, "algorithm must be .* got 'best'"),
    ({"bias": np.ones(6, np.float32)}, ValueError, r"bias\.shape = \(6,\) must be \(5,\)"),
    ({"bias": [1, 2, 3, 4, 5]}, TypeError, "bias dtype int64 must be the input's, float32"),
]


@pytest.mark.parametrize(("changes", "kind", "message"), REFUSED, ids=str)
def test_arguments_are_refused(changes: Any, kind: type[Exception], message: str) -> None:
    x, w, _ = PLAIN.integers()
    with pytest.raises(kind, match=message):
        call(x, w, **changes)


def test_arrays_are_refused() -> None:
    x, w, _ = PLAIN.integers()
    with pytest.raises(ValueError, match=r"input must have 5 dimensions .* shape \(5, 7, 8, 6\)"):
        call(x[0], w)
    with pytest.raises(ValueError, match=r"filters must have 5 dimensions .* shape \(3, 3, 6, 5\)"):
        call(x, w[0])
    with pytest.raises(TypeError, match="filters dtype float64 must be the input's, float32"):
        call(x, w.astype(np.float64))
    with pytest.raises(TypeError, match=r"input dtype int16 .*: use input\.astype\(np\.float32\)"):
        call(x.astype(np.int16), w)
    with pytest.raises(ValueError, match="are the last two axes swapped"):
        call(x, w.swapaxes(3, 4))
