"""The definition against sums that are written another way. Integers make every sum exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convt.reference import conv3d_transpose
from convt.spec import make_spec
from oracles import (
    BFLOAT16,
    DTYPES,
    Array,
    assert_identical,
    conv3d,
    forward_pads,
    forward_size,
    integers,
    loops,
)

# One axis as (input, kernel, stride, dilation, padding): more taps than voxels, fewer taps than
# the stride, taps that hit nothing, strides and dilations with and without a common factor.
AXES = [
    (2, 3, 2, 1, "SAME"),
    (3, 2, 2, 1, "SAME"),
    (2, 1, 3, 1, "SAME"),
    (3, 3, 1, 2, "SAME"),
    (2, 4, 3, 2, "SAME"),
    (1, 5, 4, 1, "SAME"),
    (2, 3, 2, 1, "VALID"),
    (3, 2, 2, 2, "VALID"),
    (2, 1, 3, 1, "VALID"),
    (1, 4, 1, 3, "VALID"),
    (2, 3, 2, 1, (1, 1)),
    (3, 3, 2, 1, (0, 2)),
    (2, 4, 3, 2, (3, 1)),
    (3, 2, 1, 1, (2, 1)),
]


def sizes(size: int, kernel: int, stride: int, dilation: int, padding: Any) -> list[int]:
    """List the outputs that the forward convolution maps back to `size`."""
    reach = size * stride + kernel * dilation
    mapped = (forward_size(out, kernel, stride, dilation, padding) for out in range(reach + 1))
    return [out for out, found in enumerate(mapped) if found == size]


@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_each_axis_and_every_size_against_loops(position: int, axis: Any) -> None:
    rng = np.random.default_rng(position)
    kind = axis[4] if isinstance(axis[4], str) else (0, 1)
    axes = [(2, 2, 1, 1, kind)] * 3
    axes[position] = axis
    size, kernel, strides, dilations, pads = zip(*axes, strict=True)
    x = integers(rng, (2, *size, 3), np.float64)
    w = integers(rng, (*kernel, 2, 3), np.float64)
    assert sizes(*axis)
    for out in sizes(*axis):
        outs = [sizes(*other)[0] for other in axes]
        outs[position] = out
        before = [forward_pads(o, *a[1:])[0] for o, a in zip(outs, axes, strict=True)]
        shape = (2, *outs, 2)
        padding = kind if isinstance(kind, str) else pads
        actual = conv3d_transpose(x, w, shape, strides, padding, dilations=dilations)
        assert_identical(actual, loops(x, w, shape, strides, before, dilations))


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Any]:
    """Draw any geometry: three axes of their own, one kind of padding."""
    kind = draw(st.sampled_from(["SAME", "VALID", "pairs"]))
    axes = []
    for _ in range(3):
        kernel, stride, dilation = (draw(st.integers(1, n)) for n in (4, 4, 3))
        pad = (draw(st.integers(0, 3)), draw(st.integers(0, 3))) if kind == "pairs" else kind
        size = draw(st.integers(1, 4))
        outs = sizes(size, kernel, stride, dilation, pad)
        if not outs:  # the padding crops everything
            pad, outs = (0, 0), sizes(size, kernel, stride, dilation, "VALID")
        axes.append((size, kernel, stride, dilation, pad, draw(st.sampled_from(outs))))
    inputs, kernels, strides, dilations, pads, outputs = zip(*axes, strict=True)
    batch, into, outof = (draw(st.integers(1, n)) for n in (2, 3, 3))
    return {
        "x": (batch, *inputs, into),
        "w": (*kernels, outof, into),
        "output_shape": (batch, *outputs, outof),
        "strides": strides,
        "dilations": dilations,
        "padding": list(pads) if kind == "pairs" else kind,
    }


@given(problem=problems(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_it_is_the_adjoint_of_the_convolution(problem: dict[str, Any], seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape, strides = problem["output_shape"], problem["strides"]
    padding, dilations = problem["padding"], problem["dilations"]
    x = integers(rng, problem["x"], np.float64)
    w = integers(rng, problem["w"], np.float64)
    y = integers(rng, shape, np.float64)
    there = conv3d(y, w, strides, padding, dilations)
    back = conv3d_transpose(x, w, shape, strides, padding, dilations=dilations)
    assert there.shape == x.shape
    assert back.shape == shape
    assert np.vdot(there, x) == np.vdot(y, back)


def small(dtype: Any = np.float32) -> tuple[Array, Array, Array]:
    """Return an input of 4 channels, filters for 6 output channels, and their bias."""
    rng = np.random.default_rng(1)
    x, w = integers(rng, (2, 2, 3, 2, 4), dtype), integers(rng, (3, 2, 3, 6, 4), dtype)
    return x, w, integers(rng, 6, dtype)


# --- layouts, groups, bias, inference --------------------------------------------------------


def test_both_layouts() -> None:
    x, w, bias = small()
    last = conv3d_transpose(x, w, (2, 3, 6, 4, 6), (2, 2, 2), bias=bias)
    first = conv3d_transpose(
        np.moveaxis(x, -1, 1), w, (2, 6, 3, 6, 4), (1, 1, 2, 2, 2), "SAME", "NCDHW", bias=bias
    )
    assert_identical(first, np.moveaxis(last, -1, 1))
    assert first.flags.c_contiguous


def test_bias_is_added_everywhere() -> None:
    x, w, bias = small()
    shape, strides = (2, 6, 9, 6, 6), (3, 3, 3)
    plain = conv3d_transpose(x, w, shape, strides)
    assert not plain[:, :, 2::3].any()  # no tap reaches these
    assert_identical(conv3d_transpose(x, w, shape, strides, bias=bias), plain + bias)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("data_format", ["NDHWC", "NCDHW"])
def test_groups_are_separate_problems(groups: int, data_format: str) -> None:
    x, w, _ = small()
    channel = 4 if data_format == "NDHWC" else 1
    x = np.moveaxis(x, -1, channel)
    w = w[..., : 4 // groups]
    parts = [
        conv3d_transpose(part, filters, None, 2, "VALID", data_format)
        for part, filters in zip(np.split(x, groups, channel), np.split(w, groups, 3), strict=True)
    ]
    whole = conv3d_transpose(x, w, None, 2, "VALID", data_format, groups=groups)
    assert_identical(whole, np.concatenate(parts, channel))


@pytest.mark.parametrize("padding", ["SAME", "VALID", [(1, 0), (0, 1), (1, 1)]])
@pytest.mark.parametrize("given_shape", [None, [-1] * 5, (2, None, -1, None, 6)])
def test_inferred_sizes_are_those_of_spec(padding: Any, given_shape: Any) -> None:
    x, w, _ = small()
    strides, dilations = (3, 2, 1), (1, 3, 2)
    spec = make_spec(
        input_shape=x.shape,
        input_dtype=x.dtype,
        filters_shape=w.shape,
        filters_dtype=w.dtype,
        output_shape=None,
        strides=strides,
        padding=padding,
        data_format=None,
        dilations=dilations,
    )
    result = conv3d_transpose(x, w, given_shape, strides, padding, None, dilations)
    assert result.shape == spec.output_shape
    assert_identical(
        result, conv3d_transpose(x, w, spec.output_shape, strides, padding, None, dilations)
    )


@pytest.mark.parametrize("strides", [2, [2], (2, 2, 2), [1, 2, 2, 2, 1], np.array([2, 2, 2])])
def test_forms_of_strides_and_dilations(strides: Any) -> None:
    x, w, _ = small()
    expected = conv3d_transpose(x, w, None, (2, 2, 2), dilations=(2, 2, 2))
    assert_identical(conv3d_transpose(x, w, None, strides, dilations=strides), expected)


# --- dtypes and memory -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(dtype: np.dtype[Any]) -> None:
    exact = conv3d_transpose(*small(np.float64)[:2], None, 2, bias=small(np.float64)[2])
    x, w, bias = small(dtype)
    assert_identical(conv3d_transpose(x, w, None, 2, bias=bias), exact.astype(dtype))
    assert_identical(conv3d_transpose(x, w, None, 2, bias=bias, dtype=np.float64), exact)


@pytest.mark.parametrize(("dtype", "count"), [(np.float16, 4096), (BFLOAT16, 512)])
def test_half_precision_sums_in_float32(dtype: Any, count: int) -> None:
    # Summed in their own precision, ones would stop to count halfway.
    x, w = np.ones((1, 1, 1, 1, count), dtype), np.ones((1, 1, 1, 1, count), dtype)
    assert conv3d_transpose(x, w, None, 1).item() == count


@pytest.mark.parametrize(("dtype", "bits"), [(np.float16, 10), (BFLOAT16, 7)])
def test_half_precision_rounds_once(dtype: Any, bits: int) -> None:
    half = np.full(1, 2.0 ** (-bits - 1), dtype)
    x, w = np.ones((1, 1, 1, 1, 2), dtype), np.ones((1, 1, 1, 1, 2), dtype)
    x[..., 1] = half
    # 1 + half an epsilon rounds down to 1, twice; together with the bias it is exact.
    assert conv3d_transpose(x, w, None, 1, bias=half).item() == 1 + 2.0**-bits


def test_float64_sums_in_float64() -> None:
    x, w = np.full((1, 1, 1, 1, 2), [1, 2.0**-40]), np.ones((1, 1, 1, 1, 2))
    assert conv3d_transpose(x, w, None, 1).item() == 1 + 2.0**-40
    assert conv3d_transpose(x.astype(np.float32), w, None, 1, dtype=np.float64).item() > 1


def test_any_memory_layout_and_byte_order() -> None:
    x, w, bias = small()
    expected = conv3d_transpose(x, w, None, 2, bias=bias)
    odd_x = np.asfortranarray(x.astype(">f4"))[::-1][::-1]
    odd_w = np.repeat(w, 2, axis=4)[..., ::2]
    for array in (odd_x, odd_w):
        array.flags.writeable = False
    result = conv3d_transpose(odd_x, odd_w, None, 2, bias=bias.astype(">f4"))
    assert_identical(result, expected)
    assert result.dtype.isnative
    assert result.flags.c_contiguous


def test_arguments_are_left_alone() -> None:
    x, w, bias = small()
    before = x.copy(), w.copy(), bias.copy()
    result = conv3d_transpose(x, w[:1, :1, :1], None, 1, bias=bias)
    for array, copy in zip((x, w, bias), before, strict=True):
        assert_identical(array, copy)
        assert not np.shares_memory(result, array)


# --- NaN, infinity, nothing ------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("into", "outof"), [(1, 1), (1, 5), (3, 1), (17, 5)])
@pytest.mark.parametrize("where", ["input", "filters"])
def test_special_values_reach_what_the_definition_says(
    where: str, value: float, into: int, outof: int
) -> None:
    rng = np.random.default_rng(2)
    for _ in range(4):
        x = integers(rng, (1, 2, 2, 3, into), np.float32)
        w = integers(rng, (3, 1, 2, outof, into), np.float32)
        array = x if where == "input" else w
        array.flat[rng.integers(array.size)] = value
        with np.errstate(invalid="ignore"):
            expected = loops(x, w, (1, 3, 3, 5, outof), (2, 2, 2), (1, 0, 0), (1, 1, 1))
        assert not np.isfinite(expected).all()
        assert np.isfinite(expected).any()
        assert_identical(conv3d_transpose(x, w, (1, 3, 3, 5, outof), 2), expected)


def test_overflow_is_infinite_without_a_warning() -> None:
    x, w = np.full((1, 1, 1, 1, 1), 300, np.float16), np.full((1, 1, 1, 1, 1), 300, np.float16)
    assert conv3d_transpose(x, w, None, 1).item() == np.inf


def test_a_narrower_dtype_overflows_without_a_warning() -> None:
    x = np.full((1, 1, 1, 1, 1), 1e300)
    result = conv3d_transpose(x, np.ones_like(x), None, 1, dtype=np.float32)
    assert_identical(result, np.full((1, 1, 1, 1, 1), np.inf, np.float32))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("bias", [None, np.array([1, 2, 3], np.float32)])
def test_no_input_channels_give_zeros(padding: str, bias: Array | None) -> None:
    x, w = np.zeros((2, 2, 2, 2, 0), np.float32), np.zeros((3, 3, 3, 3, 0), np.float32)
    result = conv3d_transpose(x, w, None, 2, padding, bias=bias)
    size = 4 if padding == "SAME" else 5
    expected = np.zeros((2, size, size, size, 3), np.float32) + (0 if bias is None else bias)
    assert_identical(result, expected)


@pytest.mark.parametrize(
    ("shape", "outof", "size"),
    [
        ((0, 2, 2, 2, 3), 2, (4, 4, 4)),
        ((2, 2, 2, 2, 3), 0, (4, 4, 4)),
        ((2, 2, 0, 2, 3), 2, (4, 0, 4)),
        ((2, 0, 0, 0, 3), 2, (0, 0, 0)),
    ],
)
def test_empty_results(shape: Any, outof: int, size: Any) -> None:
    x, w = np.ones(shape, np.float32), np.ones((3, 3, 3, outof, 3), np.float32)
    result = conv3d_transpose(x, w, None, 2)
    assert_identical(result, np.zeros((shape[0], *size, outof), np.float32))


def test_an_empty_axis_that_gives_zeros() -> None:
    x, w = np.ones((1, 0, 2, 2, 3), np.float32), np.ones((3, 3, 3, 2, 3), np.float32)
    result = conv3d_transpose(x, w, (1, 2, 5, 5, 2), 2, "VALID")
    assert_identical(result, np.zeros((1, 2, 5, 5, 2), np.float32))


def test_a_huge_stride_and_dilation() -> None:
    x, w = np.ones((1, 2, 1, 1, 1), np.float32), np.ones((2, 1, 1, 1, 1), np.float32)
    far = 2**61
    pads = [(far, far), (0, 0), (0, 0)]
    result = conv3d_transpose(x, w, (1, 3, 1, 1, 1), far, pads, dilations=(far, 1, 1))
    assert_identical(result.ravel(), np.array([2, 0, 0], np.float32))
