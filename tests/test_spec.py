"""Every argument that is accepted or refused, and what is inferred."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convt.spec import (
    Spec,
    adjoint,
    make_convolution_spec,
    make_gradient_spec,
    make_spec,
    size_range,
)
from oracles import DTYPES, forward_pads, forward_size

INT64_MAX = 2**63 - 1


def spec(**changes: Any) -> Spec:
    """Make the problem of a 4x4x4 volume, 8 -> 16 channels, kernel 3, stride 2, with changes."""
    arguments: dict[str, Any] = {
        "input_shape": (2, 4, 4, 4, 8),
        "input_dtype": np.dtype(np.float32),
        "filters_shape": (3, 3, 3, 16, 8),
        "filters_dtype": np.dtype(np.float32),
        "output_shape": (2, 8, 8, 8, 16),
        "strides": 2,
        "padding": "SAME",
        "data_format": "NDHWC",
        "dilations": None,
    }
    return make_spec(**(arguments | changes))


def dtyped(dtype: Any) -> Spec:
    return spec(input_dtype=dtype, filters_dtype=dtype)


# --- what is accepted ------------------------------------------------------------------------


def test_every_field() -> None:
    assert spec(bias_shape=(16,), bias_dtype="float32") == Spec(
        batch=2,
        in_channels=8,
        out_channels=16,
        groups=1,
        input_size=(4, 4, 4),
        kernel=(3, 3, 3),
        output_size=(8, 8, 8),
        strides=(2, 2, 2),
        dilations=(1, 1, 1),
        pad_before=(0, 0, 0),
        padding="SAME",
        data_format="NDHWC",
        dtype=np.dtype(np.float32),
        bias=True,
    )


def test_shapes_follow_the_layout() -> None:
    last = spec()
    assert last.input_shape == (2, 4, 4, 4, 8)
    assert last.filters_shape == (3, 3, 3, 16, 8)
    assert last.output_shape == (2, 8, 8, 8, 16)
    first = spec(input_shape=(2, 8, 3, 4, 5), output_shape=(2, 16, 5, 7, 9), data_format="NCDHW")
    assert first.input_size == (3, 4, 5)
    assert first.input_shape == (2, 8, 3, 4, 5)
    assert first.output_shape == (2, 16, 5, 7, 9)


def test_a_spec_is_frozen_and_hashable() -> None:
    problem = spec()
    with pytest.raises(dataclasses.FrozenInstanceError):
        problem.batch = 3  # type: ignore[misc]
    assert {problem: 1}[spec(strides=[2, 2, 2])] == 1


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(dtype: np.dtype[Any]) -> None:
    assert dtyped(dtype).dtype is dtype


@pytest.mark.parametrize("name", ["f2", "f4", "f8"])
def test_byte_order_is_normalised(name: str) -> None:
    big = spec(input_dtype=np.dtype(f">{name}"), filters_dtype=np.dtype(f"<{name}"))
    assert big.dtype == np.dtype(name)
    assert big.dtype.isnative


def test_strides_and_dilations_per_axis() -> None:
    size = {"output_shape": None}
    assert spec(strides=(1, 2, 3), **size).strides == (1, 2, 3)
    assert spec(strides=(1, 1, 2, 3, 1), **size).strides == (1, 2, 3)
    assert spec(dilations=(1, 2, 3), **size).dilations == (1, 2, 3)
    first = {"input_shape": (2, 8, 4, 4, 4), "data_format": "NCDHW", "output_shape": None}
    assert spec(strides=(1, 1, 2, 3, 4), **first).strides == (2, 3, 4)


def test_none_is_one() -> None:
    problem = spec(strides=None, dilations=None, output_shape=None)
    assert (problem.strides, problem.dilations) == ((1, 1, 1), (1, 1, 1))
    assert spec(data_format=None) == spec(data_format="NDHWC")


@pytest.mark.parametrize(
    ("padding", "stride", "dilation", "kernel", "size"),
    [
        ("SAME", 1, 1, 3, 4),
        ("SAME", 2, 1, 3, 8),
        ("SAME", 5, 1, 3, 20),
        ("SAME", 2, 3, 3, 8),
        ("VALID", 1, 1, 3, 6),
        ("VALID", 2, 1, 3, 9),
        ("VALID", 5, 1, 3, 18),
        ("VALID", 2, 3, 3, 13),
        ([(1, 1)] * 3, 2, 1, 3, 7),
        ([(0, 2)] * 3, 2, 3, 3, 11),
        ([(4, 5)] * 3, 2, 1, 3, 0),
    ],
)
def test_inferred_sizes(padding: Any, stride: int, dilation: int, kernel: int, size: int) -> None:
    changes = {"padding": padding, "strides": stride, "dilations": dilation}
    filters = (kernel, kernel, kernel, 16, 8)
    expected = (2, size, size, size, 16)
    for shape in (None, [-1] * 5, [None] * 5):
        assert spec(filters_shape=filters, output_shape=shape, **changes).output_shape == expected


@pytest.mark.parametrize(
    ("out", "kernel", "stride", "dilation", "before"),
    [
        (8, 3, 2, 1, 0),
        (7, 3, 2, 1, 1),
        (8, 4, 2, 1, 1),
        (8, 3, 2, 2, 1),
        (4, 3, 1, 1, 1),
        (16, 3, 4, 1, 0),
    ],
)
def test_same_pads_before(out: int, kernel: int, stride: int, dilation: int, before: int) -> None:
    problem = spec(
        filters_shape=(kernel,) * 3 + (16, 8),
        output_shape=(2, out, out, out, 16),
        strides=stride,
        dilations=dilation,
    )
    assert problem.pad_before == (before,) * 3


def test_explicit_padding() -> None:
    pairs = [(0, 1), [1, 2], np.array([2, 0])]
    problem = spec(padding=pairs, output_shape=None)
    assert problem.padding == ((0, 1), (1, 2), (2, 0))
    assert problem.pad_before == (0, 1, 2)
    assert problem.output_size == (8, 6, 7)
    assert spec(padding=np.array([[0, 1], [1, 2], [2, 0]]), output_shape=None) == problem


def test_valid_pads_nothing() -> None:
    assert spec(padding="VALID", output_shape=None).pad_before == (0, 0, 0)


@given(
    size=st.integers(1, 6),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 5),
    dilation=st.integers(1, 3),
    padding=st.sampled_from(["SAME", "VALID"]) | st.tuples(st.integers(0, 6), st.integers(0, 6)),
)
def test_allowed_sizes_are_those_that_the_forward_convolution_maps_back(
    size: int, kernel: int, stride: int, dilation: int, padding: Any
) -> None:
    axis: dict[str, Any] = {"size": size, "kernel": kernel, "stride": stride, "dilation": dilation}
    low, high = size_range(padding=padding, **axis)
    mapped = [
        out for out in range(60) if forward_size(out, kernel, stride, dilation, padding) == size
    ]
    assert list(range(low, high + 1)) == mapped
    pads = padding if isinstance(padding, str) else [padding, (0, 0), (0, 0)]
    for out in range(max(low - 2, 0), high + 3):
        changes: dict[str, Any] = {
            "input_shape": (1, size, 1, 1, 1),
            "filters_shape": (kernel, 1, 1, 1, 1),
            "output_shape": (1, out, 1, 1, 1),
            "strides": (stride, 1, 1),
            "dilations": (dilation, 1, 1),
            "padding": pads,
        }
        if out in mapped:
            problem = spec(**changes)
            assert problem.output_size == (out, 1, 1)
            before, _ = forward_pads(out, kernel, stride, dilation, padding)
            assert problem.pad_before == (before, 0, 0)
        else:
            with pytest.raises(ValueError, match=rf"output_shape\[1\] = {out} \(depth\)"):
                spec(**changes)


# --- empty problems --------------------------------------------------------------------------


def test_zero_batch_and_zero_channels() -> None:
    assert spec(input_shape=(0, 4, 4, 4, 8), output_shape=None).output_shape == (0, 8, 8, 8, 16)
    nothing_in = spec(input_shape=(2, 4, 4, 4, 0), filters_shape=(3, 3, 3, 16, 0), groups=2)
    assert nothing_in.in_channels == 0
    assert nothing_in.filters_shape == (3, 3, 3, 16, 0)
    nothing_out = spec(filters_shape=(3, 3, 3, 0, 8), output_shape=None)
    assert nothing_out.output_shape == (2, 8, 8, 8, 0)


@pytest.mark.parametrize(
    ("padding", "kernel", "stride", "allowed", "inferred"),
    [
        ("SAME", 3, 2, (0, 0), 0),
        ("VALID", 3, 2, (1, 2), 1),
        ("VALID", 1, 3, (0, 0), 0),
        ([(1, 1)] * 3, 3, 2, (0, 0), 0),
    ],
)
def test_an_empty_axis(
    padding: Any, kernel: int, stride: int, allowed: tuple[int, int], inferred: int
) -> None:
    changes: dict[str, Any] = {
        "input_shape": (2, 4, 0, 4, 8),
        "filters_shape": (kernel, kernel, kernel, 16, 8),
        "strides": stride,
        "padding": padding,
    }
    assert spec(output_shape=None, **changes).output_size[1] == inferred
    axis: dict[str, Any] = {"size": 0, "kernel": kernel, "stride": stride, "dilation": 1}
    axis["padding"] = padding if isinstance(padding, str) else padding[1]
    assert size_range(**axis) == allowed
    for out in range(allowed[0], allowed[1] + 1):
        assert spec(output_shape=(2, None, out, None, 16), **changes).output_size[1] == out
    with pytest.raises(ValueError, match=rf"output_shape\[2\] = {allowed[1] + 1} \(height\)"):
        spec(output_shape=(2, None, allowed[1] + 1, None, 16), **changes)


# --- what is refused -------------------------------------------------------------------------

FILTERS = "filters are [depth, height, width, out_channels, in_channels / groups]"
SWAPPED = "are the last two axes swapped?"
TWO = "with stride 2, kernel 3, dilation 1, padding"
FROM = "can't come from input"


def refuses(message: str) -> Any:
    """Expect a ValueError with exactly this message."""
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


@pytest.mark.parametrize(
    ("last", "groups", "message"),
    [
        ((16, 7), 1, f"7 must be the input's channels, 8; {FILTERS}"),
        ((8, 16), 1, f"16 must be the input's channels, 8; {FILTERS}; {SWAPPED}"),
        ((16, 8), 2, f"8 must be the input's channels, 8 / 2 groups = 4; {FILTERS}"),
    ],
)
def test_filters_channels_refused(last: tuple[int, int], groups: int, message: str) -> None:
    with refuses(f"filters.shape[4] = {message}"):
        spec(filters_shape=(3, 3, 3, *last), groups=groups, output_shape=None)


def test_groups_refused() -> None:
    with refuses("groups = 3 must divide the input's channels, 8"):
        spec(groups=3)
    with refuses("groups = 8 must divide the filters' output channels, 12"):
        spec(groups=8, filters_shape=(3, 3, 3, 12, 1))


@pytest.mark.parametrize(("axis", "name"), list(enumerate(["depth", "height", "width"])))
def test_an_empty_kernel_refused(axis: int, name: str) -> None:
    kernel = [3, 3, 3]
    kernel[axis] = 0
    message = f"filters.shape[{axis}] = 0 ({name}): a kernel needs at least 1 tap per axis"
    with refuses(message):
        spec(filters_shape=(*kernel, 16, 8))


def test_output_batch_and_channels_refused() -> None:
    with refuses("output_shape[0] = 3 (batch) must be the input's batch, 2"):
        spec(output_shape=(3, 8, 8, 8, 16))
    with refuses("output_shape[4] = 8 (channels) must be the filters' out_channels, 16"):
        spec(output_shape=(2, 8, 8, 8, 8))


@pytest.mark.parametrize(
    ("size", "padding", "position", "what", "shown", "allowed"),
    [
        ((6, 8, 8), "SAME", 1, "6 (depth)", "SAME", "7 to 8"),
        ((8, 9, 8), "SAME", 2, "9 (height)", "SAME", "7 to 8"),
        ((8, 8, 0), "SAME", 3, "0 (width)", "SAME", "7 to 8"),
        ((8, 9, 9), "VALID", 1, "8 (depth)", "VALID", "9 to 10"),
        ((9, 9, 11), "VALID", 3, "11 (width)", "VALID", "9 to 10"),
        ((9, 9, 8), [(0, 0), (0, 0), (1, 2)], 3, "8 (width)", "(1, 2)", "6 to 7"),
        ((8, 8, 8), [(9, 9)] * 3, 1, "8 (depth)", "(9, 9)", "none"),
        ((-1, 8, 8), [(9, 9)] * 3, 1, "-9 (depth, inferred)", "(9, 9)", "none"),
        ((-1, 8, 8), [(5, 5)] * 3, 1, "-1 (depth, inferred)", "(5, 5)", "only 0"),
    ],
)
def test_output_size_refused(
    size: Any, padding: Any, position: int, what: str, shown: str, allowed: str
) -> None:
    source = f"input {('depth', 'height', 'width')[position - 1]} 4"
    with refuses(
        f"output_shape[{position}] = {what} can't come from {source} with stride 2, kernel 3, "
        f"dilation 1, padding {shown}: allowed {allowed}"
    ):
        spec(output_shape=(2, *size, 16), padding=padding)


def test_output_shape_refused_with_stride_1_and_dilation() -> None:
    geometry = "with stride 1, kernel 3, dilation 2, padding"
    with refuses(f"output_shape[3] = 5 (width) {FROM} width 4 {geometry} SAME: allowed only 4"):
        spec(output_shape=(2, 4, 4, 5, 16), strides=1, dilations=2)
    with refuses(f"output_shape[1] = 4 (depth) {FROM} depth 4 {geometry} VALID: allowed only 8"):
        spec(output_shape=(2, 4, 4, 4, 16), strides=1, dilations=2, padding="VALID")


def test_output_shape_positions_follow_the_layout() -> None:
    first = {"input_shape": (2, 8, 4, 4, 4), "data_format": "NCDHW"}
    with refuses(f"output_shape[3] = 9 (height) {FROM} height 4 {TWO} SAME: allowed 7 to 8"):
        spec(output_shape=(2, 16, 8, 9, 8), **first)
    with refuses("output_shape[1] = 8 (channels) must be the filters' out_channels, 16"):
        spec(output_shape=(2, 8, 8, 8, 16), **first)


@pytest.mark.parametrize("shape", [(15,), (), (1, 16), (16, 1)])
def test_bias_refused(shape: tuple[int, ...]) -> None:
    with refuses(f"bias.shape = {shape} must be (16,), one value per output channel"):
        spec(bias_shape=shape, bias_dtype="float32")


@pytest.mark.parametrize(
    ("stride", "dilation"), [(2**61, 1), (2**62, 1), (INT64_MAX, 1), (2, 2**62), (2, INT64_MAX)]
)
def test_extents_beyond_64_bits_refused(stride: int, dilation: int) -> None:
    with refuses(
        f"input depth 4 with stride {stride}, kernel 3, dilation {dilation}, padding SAME "
        "spans more voxels than a signed 64-bit integer counts"
    ):
        spec(strides=stride, dilations=dilation, output_shape=None)


BIG, HUGE = 2**32, 2**60


@pytest.mark.parametrize(
    ("changes", "array"),
    [
        ({"input_shape": (HUGE, 4, 4, 4, 8)}, f"input of shape ({HUGE}, 4, 4, 4, 8)"),
        ({"filters_shape": (3, 3, 3, HUGE, 8)}, f"filters of shape (3, 3, 3, {HUGE}, 8)"),
        ({"strides": 2**30}, f"output of shape (2, {BIG}, {BIG}, {BIG}, 16)"),
        (
            {"strides": 2**30, "input_shape": (0, 4, 4, 4, 8)},
            f"output of shape (0, {BIG}, {BIG}, {BIG}, 16)",
        ),
    ],
)
def test_bytes_beyond_64_bits_refused(changes: dict[str, Any], array: str) -> None:
    rule = "and dtype float32 takes more bytes than a signed 64-bit integer counts"
    with refuses(f"{array} {rule}"):
        spec(output_shape=None, **changes)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (ValueError, {"input_shape": (4, 4, 4, 8)}, "input must have 5 dimensions [batch, depth"),
        (ValueError, {"filters_shape": ()}, "filters must have 5 dimensions [depth, height"),
        (TypeError, {"input_dtype": "int16"}, "input dtype int16 must be float16"),
        (TypeError, {"filters_dtype": "float64"}, "filters dtype float64 must be the input's"),
        (TypeError, {"output_shape": 8}, "output_shape must be None or 5 integers"),
        (ValueError, {"strides": 0}, "strides = 0 must be at least 1"),
        (ValueError, {"dilations": 0}, "dilations = 0 must be at least 1"),
        (ValueError, {"padding": "same"}, 'padding must be "SAME", "VALID" or three pairs'),
        (ValueError, {"data_format": "ndhwc"}, 'data_format must be "NDHWC", "NCDHW" or None'),
        (ValueError, {"groups": 0}, "groups = 0 must be at least 1"),
        (TypeError, {"bias_shape": (16,), "bias_dtype": "f2"}, "bias dtype float16 must be the in"),
        (TypeError, {"bias_shape": 16, "bias_dtype": "f4"}, "bias.shape must be 1 integer"),
    ],
)
def test_each_argument_is_checked(
    kind: type[Exception], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(kind, match=f"^{re.escape(message)}"):
        spec(**changes)


def test_a_refused_float_is_not_let_in_by_an_equal_integer_before_it() -> None:
    spec(strides=(2, 2, 2), padding="SAME")
    with pytest.raises(TypeError, match=r"strides\[0\] must be an integer, got 2\.0"):
        spec(strides=(2.0, 2, 2), padding="SAME")


def test_the_largest_strides() -> None:
    widest = {"input_shape": (2, 1, 1, 1, 8), "filters_shape": (1, 1, 1, 16, 8)}
    problem = spec(strides=INT64_MAX, output_shape=(2, 3, 4, 5, 16), **widest)
    assert problem.strides == (INT64_MAX,) * 3
    with pytest.raises(ValueError, match="output of shape"):
        spec(strides=INT64_MAX, output_shape=None, **widest)


# --- convolutions ----------------------------------------------------------------------------


def convolved(**changes: Any) -> Spec:
    """Make the convolution of an 8x8x8 volume, 16 -> 8 channels, kernel 3, stride 2, with changes."""
    arguments: dict[str, Any] = {
        "input_shape": (2, 8, 8, 8, 16),
        "input_dtype": np.dtype(np.float32),
        "filters_shape": (3, 3, 3, 16, 8),
        "filters_dtype": np.dtype(np.float32),
        "strides": 2,
        "padding": "SAME",
        "data_format": "NDHWC",
        "dilations": None,
    }
    return make_convolution_spec(**(arguments | changes))


def test_a_convolution_is_the_adjoint() -> None:
    assert convolved() == adjoint(spec())
    assert convolved(bias_shape=(8,), bias_dtype="float32") == Spec(
        batch=2,
        in_channels=16,
        out_channels=8,
        groups=1,
        input_size=(8, 8, 8),
        kernel=(3, 3, 3),
        output_size=(4, 4, 4),
        strides=(2, 2, 2),
        dilations=(1, 1, 1),
        pad_before=(0, 0, 0),
        padding="SAME",
        data_format="NDHWC",
        dtype=np.dtype(np.float32),
        bias=True,
        forward=True,
    )


@given(
    size=st.integers(0, 30),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 5),
    dilation=st.integers(1, 3),
    padding=st.sampled_from(["SAME", "VALID"]) | st.tuples(st.integers(0, 6), st.integers(0, 6)),
    axis=st.integers(0, 2),
    data_format=st.sampled_from(["NDHWC", "NCDHW"]),
)
def test_sizes_of_convolutions(
    size: int, kernel: int, stride: int, dilation: int, padding: Any, axis: int, data_format: str
) -> None:
    def along(value: Any, other: Any) -> list[Any]:
        return [value if a == axis else other for a in range(3)]

    last = data_format == "NDHWC"
    sizes = along(size, 1)
    arguments: dict[str, Any] = {
        "input_shape": (1, *sizes, 16) if last else (1, 16, *sizes),
        "filters_shape": (*along(kernel, 1), 16, 8),
        "strides": along(stride, 1),
        "dilations": along(dilation, 1),
        "padding": padding if isinstance(padding, str) else along(padding, (0, 0)),
        "data_format": data_format,
    }
    pads = (0, 0) if isinstance(padding, str) else padding
    reach = (kernel - 1) * dilation + 1
    if padding != "SAME" and size + sum(pads) < reach - stride:
        with pytest.raises(ValueError, match=f"need at least {reach - sum(pads)}$"):
            convolved(**arguments)
        return
    made = convolved(**arguments)
    assert made.output_size[axis] == forward_size(size, kernel, stride, dilation, padding)
    before, _ = forward_pads(size, kernel, stride, dilation, padding)
    assert made.pad_before[axis] == before
    # What it maps to may be mapped back.
    back = make_spec(
        input_shape=made.output_shape,
        input_dtype=made.dtype,
        filters_dtype=made.dtype,
        output_shape=made.input_shape,
        **{k: v for k, v in arguments.items() if k != "input_shape"},
    )
    assert adjoint(back) == made


CONVOLUTION = "filters are [depth, height, width, in_channels / groups, out_channels]"


@pytest.mark.parametrize(
    ("last", "groups", "message"),
    [
        ((15, 8), 1, f"15 must be the input's channels, 16; {CONVOLUTION}"),
        ((8, 16), 1, f"8 must be the input's channels, 16; {CONVOLUTION}; {SWAPPED}"),
        ((16, 8), 2, f"16 must be the input's channels, 16 / 2 groups = 8; {CONVOLUTION}"),
    ],
)
def test_channels_of_convolutions_refused(last: tuple[int, int], groups: int, message: str) -> None:
    with refuses(f"filters.shape[3] = {message}"):
        convolved(filters_shape=(3, 3, 3, *last), groups=groups)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": 3}, "groups = 3 must divide the input's channels, 16"),
        (
            {"groups": 8, "filters_shape": (3, 3, 3, 2, 12)},
            "groups = 8 must divide the filters' output channels, 12",
        ),
        (
            {"filters_shape": (3, 0, 3, 16, 8)},
            "filters.shape[1] = 0 (height): a kernel needs at least 1 tap per axis",
        ),
        (
            {"bias_shape": (16,), "bias_dtype": "float32"},
            "bias.shape = (16,) must be (8,), one value per output channel",
        ),
        (
            {"padding": "VALID", "dilations": (1, 5, 1)},
            "input.shape[2] = 8 (height) is less than the kernel spans: 3 taps with dilation 5 and "
            "padding VALID need at least 11",
        ),
        (
            {
                "padding": [(0, 0), (0, 0), (1, 2)],
                "dilations": (1, 1, 9),
                "data_format": "NCDHW",
                "input_shape": (2, 16, 8, 8, 8),
            },
            "input.shape[4] = 8 (width) is less than the kernel spans: 3 taps with dilation 9 and "
            "padding (1, 2) need at least 16",
        ),
        (
            {"dilations": 2**62},
            f"input depth 8 with kernel 3, dilation {2**62}, padding SAME spans more voxels than a "
            "signed 64-bit integer counts",
        ),
        (
            {"padding": [(0, 0), (2**62, 2**62), (0, 0)]},
            f"input height 8 with kernel 3, dilation 1, padding {(2**62, 2**62)} spans more voxels "
            "than a signed 64-bit integer counts",
        ),
        (
            {"input_shape": (HUGE, 8, 8, 8, 16)},
            f"input of shape ({HUGE}, 8, 8, 8, 16) and dtype float32 takes more bytes than a signed "
            "64-bit integer counts",
        ),
        (
            {"filters_shape": (3, 3, 3, 16, HUGE)},
            f"filters of shape (3, 3, 3, {HUGE}, 16) and dtype float32 takes more bytes than a signed "
            "64-bit integer counts",
        ),
        (
            {"padding": [(2**21, 0)] * 3, "strides": 1},
            f"output of shape (2, {(2**21 + 6)}, {(2**21 + 6)}, {(2**21 + 6)}, 8) and dtype float32 "
            "takes more bytes than a signed 64-bit integer counts",
        ),
    ],
    ids=str,
)
def test_convolutions_refused(changes: dict[str, Any], message: str) -> None:
    with refuses(message):
        convolved(**changes)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (ValueError, {"input_shape": (8, 8, 8, 16)}, "input must have 5 dimensions [batch, depth"),
        (
            ValueError,
            {"filters_shape": ()},
            "filters must have 5 dimensions [depth, height, width, in_channels / groups, out",
        ),
        (TypeError, {"input_dtype": "int16"}, "input dtype int16 must be float16"),
        (TypeError, {"filters_dtype": "float64"}, "filters dtype float64 must be the input's"),
        (ValueError, {"strides": 0}, "strides = 0 must be at least 1"),
        (ValueError, {"dilations": 0}, "dilations = 0 must be at least 1"),
        (ValueError, {"padding": "same"}, 'padding must be "SAME", "VALID" or three pairs'),
        (ValueError, {"padding": [(0, -1)] * 3}, "padding[0][1] = -1 must be at least 0"),
        (ValueError, {"data_format": "ndhwc"}, 'data_format must be "NDHWC", "NCDHW" or None'),
        (ValueError, {"groups": 0}, "groups = 0 must be at least 1"),
        (TypeError, {"bias_shape": (8,), "bias_dtype": "f2"}, "bias dtype float16 must be the in"),
    ],
)
def test_each_argument_of_a_convolution_is_checked(
    kind: type[Exception], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(kind, match=f"^{re.escape(message)}"):
        convolved(**changes)


# --- gradients in the filters ----------------------------------------------------------------


def differentiated(**changes: Any) -> Spec:
    """The problem of `spec`, for the gradient in its filters."""
    arguments: dict[str, Any] = {
        "input_shape": (2, 4, 4, 4, 8),
        "input_dtype": np.dtype(np.float32),
        "gradient_shape": (2, 8, 8, 8, 16),
        "gradient_dtype": np.dtype(np.float32),
        "filters_shape": [3, 3, 3, 16, 8],
        "strides": 2,
        "padding": "SAME",
        "data_format": "NDHWC",
        "dilations": None,
    }
    return make_gradient_spec(**(arguments | changes))


def test_a_gradient_has_the_problem_of_the_operation() -> None:
    assert differentiated() == spec()
    assert differentiated(gradient_shape=(2, 7, 8, 7, 16)).pad_before == (1, 0, 1)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (TypeError, {"gradient_dtype": "f8"}, "output_gradient dtype float64 must be the input's"),
        (ValueError, {"gradient_shape": (8, 8, 16)}, "output_gradient must have 5 dimensions [bat"),
        (
            ValueError,
            {"gradient_shape": (3, 8, 8, 8, 16)},
            "output_gradient.shape[0] = 3 (batch) must be the input's batch, 2",
        ),
        (
            ValueError,
            {"gradient_shape": (2, 8, 8, 8, 15)},
            "output_gradient.shape[4] = 15 (channels) must be the filters' out_channels, 16",
        ),
        (
            ValueError,
            {"gradient_shape": (2, 8, 9, 8, 16)},
            f"output_gradient.shape[2] = 9 (height) {FROM} height 4 {TWO} SAME: allowed 7 to 8",
        ),
        (
            ValueError,
            {"filters_shape": (3, 3, 3, 8, 16)},
            f"filters.shape[4] = 16 must be the input's channels, 8; {FILTERS}; {SWAPPED}",
        ),
        (ValueError, {"filters_shape": (3, 3, 16, 8)}, "filters must have 5 dimensions [depth, h"),
        (TypeError, {"filters_shape": 3}, "filters.shape must be 5 integers, got 3 (int)"),
        (TypeError, {"filters_shape": (3, 3, 3, 16, 8.0)}, "filters.shape[4] must be an integer"),
        (
            ValueError,
            {"filters_shape": (3, 3, 3, 16, -8)},
            "filters.shape[4] = -8 must be at least",
        ),
        (ValueError, {"groups": 3}, "groups = 3 must divide the input's channels, 8"),
    ],
)
def test_each_argument_of_a_gradient_is_checked(
    kind: type[Exception], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(kind, match=f"^{re.escape(message)}"):
        differentiated(**changes)
