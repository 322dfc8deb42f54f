"""Every argument by itself: what is accepted, what is refused, and how the refusal reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from convt.arguments import (
    parse_data_format,
    parse_dtype,
    parse_integer,
    parse_output_shape,
    parse_padding,
    parse_per_axis,
    parse_shape,
)
from oracles import DTYPES

INT64_MAX = 2**63 - 1
UNFIT = "does not fit a signed 64-bit integer"
FLOAT32 = np.dtype(np.float32)


class Vector:
    """What a framework's vector of integers looks like from outside."""

    def __init__(self, *values: Any) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values)


class Integer:
    """What a framework's integer looks like from outside."""

    def __init__(self, value: int, dtype: str = "int32") -> None:
        self.value, self.dtype = value, dtype

    def __index__(self) -> int:
        return self.value


def refuses(kind: type[Exception], message: str) -> Any:
    """Expect an error with exactly this message."""
    return pytest.raises(kind, match=f"^{re.escape(message)}$")


# --- dtypes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtype(dtype: np.dtype[Any]) -> None:
    assert parse_dtype("input", dtype) is dtype
    assert parse_dtype("input", str(dtype)) is dtype
    assert parse_dtype("input", dtype.type) is dtype
    assert parse_dtype("filters", dtype, like=dtype) is dtype


@pytest.mark.parametrize("name", ["f2", "f4", "f8"])
def test_dtype_in_native_byte_order(name: str) -> None:
    for order in "<>":
        assert parse_dtype("input", np.dtype(order + name)) is np.dtype(name)


@pytest.mark.parametrize(
    ("dtype", "remedy"),
    [
        ("int8", "use input.astype(np.float32)"),
        ("uint16", "use input.astype(np.float32)"),
        ("int32", "use input.astype(np.float64)"),
        ("int64", "use input.astype(np.float64)"),
        ("bool", "use input.astype(np.float32)"),
        (np.longdouble, "use input.astype(np.float64)"),
        (ml_dtypes.float8_e5m2, "use input.astype(np.float32)"),
        ("object", "use input.astype(np.float64)"),
        ("complex64", "convolve input.real and input.imag one by one"),
        ("V2", "for bfloat16 from a .npy file use input.view(ml_dtypes.bfloat16)"),
    ],
)
def test_dtype_refused(dtype: Any, remedy: str) -> None:
    name = str(np.dtype(dtype))
    message = f"input dtype {name} must be float16, bfloat16, float32 or float64: {remedy}"
    with refuses(TypeError, message):
        parse_dtype("input", np.dtype(dtype))


def test_dtype_unknown() -> None:
    message = "input dtype 'float31' must be float16, bfloat16, float32 or float64"
    with refuses(TypeError, message):
        parse_dtype("input", "float31")


@pytest.mark.parametrize("dtype", ["float64", "int64", "complex64"])
def test_dtype_unlike_the_input(dtype: str) -> None:
    message = f"bias dtype {dtype} must be the input's, float32: use bias.astype(input.dtype)"
    with refuses(TypeError, message):
        parse_dtype("bias", np.dtype(dtype), like=FLOAT32)


# --- data_format -----------------------------------------------------------------------------


def test_data_format() -> None:
    assert parse_data_format(None) == "NDHWC"
    assert parse_data_format("NDHWC") == "NDHWC"
    assert parse_data_format(np.str_("NCDHW")) == "NCDHW"


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (ValueError, "ndhwc", "'ndhwc': write \"NDHWC\""),
        (ValueError, "channels_first", "'channels_first': write \"NCDHW\""),
        (ValueError, "channels_last", "'channels_last': write \"NDHWC\""),
        (ValueError, "NHWC", "'NHWC'"),
        (ValueError, "", "''"),
        (TypeError, b"NDHWC", "b'NDHWC'"),
        (TypeError, 5, "5"),
    ],
)
def test_data_format_refused(kind: type[Exception], value: Any, message: str) -> None:
    with refuses(kind, f'data_format must be "NDHWC", "NCDHW" or None, got {message}'):
        parse_data_format(value)


# --- padding ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        [(0, 1), (2, 3), (4, 0)],
        ([0, 1], [2, 3], [4, 0]),
        np.array([[0, 1], [2, 3], [4, 0]], np.int16),
        Vector(Vector(0, 1), np.array([2, 3]), (Integer(4), np.int8(0))),
    ],
    ids=lambda value: type(value).__name__,
)
def test_padding_pairs(value: Any) -> None:
    pairs = parse_padding(value)
    assert pairs == ((0, 1), (2, 3), (4, 0))
    assert all(type(number) is int for pair in pairs for number in pair)


def test_padding_names() -> None:
    assert parse_padding("SAME") == "SAME"
    assert parse_padding(np.str_("VALID")) == "VALID"


NAMES = 'padding must be "SAME", "VALID" or three pairs [(before, after)] * 3, got '


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (ValueError, "same", NAMES + "'same': write \"SAME\""),
        (ValueError, "Valid", NAMES + "'Valid': write \"VALID\""),
        (ValueError, "FULL", NAMES + "'FULL'"),
        (ValueError, [(0, 0)] * 2, NAMES + "2: [(0, 0), (0, 0)]"),
        (ValueError, [], NAMES + "0: []"),
        (TypeError, 1, NAMES + "1 (int)"),
        (TypeError, None, NAMES + "None (NoneType)"),
        (TypeError, b"SAME", NAMES + "b'SAME' (bytes)"),
        (TypeError, {(0, 1)}, NAMES + "{(0, 1)} (set)"),
        (TypeError, [1, 1, 1], "padding[0] must be a (before, after) pair, got 1 (int)"),
        (ValueError, [(0, 0, 0)] * 3, "padding[0] = (0, 0, 0) must be a (before, after) pair"),
        (ValueError, [(0, 0), (0, 0), (-1, 1)], "padding[2][0] = -1 must be at least 0"),
        (ValueError, [(0, 2**63)] * 3, f"padding[0][1] = {2**63} {UNFIT}"),
        (TypeError, [(0, 1.5)] * 3, "padding[0][1] must be an integer, got 1.5 (float)"),
        (TypeError, [(True, 1)] * 3, "padding[0][0] must be an integer, got True (bool)"),
    ],
)
def test_padding_refused(kind: type[Exception], value: Any, message: str) -> None:
    with refuses(kind, message):
        parse_padding(value)


# --- strides and dilations -------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        2,
        [2],
        (2, 2, 2),
        [1, 2, 2, 2, 1],
        np.int64(2),
        np.array(2),
        np.array([2, 2, 2], np.uint8),
        np.array([2, 2, 2], ">i2"),
        range(2, 3),
        Integer(2),
        Vector(2, Integer(2), np.int8(2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_per_axis(value: Any) -> None:
    numbers = parse_per_axis("strides", value, "NDHWC")
    assert numbers == (2, 2, 2)
    assert all(type(number) is int for number in numbers)


def test_per_axis_orders() -> None:
    assert parse_per_axis("strides", None, "NDHWC") == (1, 1, 1)
    assert parse_per_axis("strides", (1, 2, 3), "NCDHW") == (1, 2, 3)
    assert parse_per_axis("strides", (1, 2, 3, 4, 1), "NDHWC") == (2, 3, 4)
    assert parse_per_axis("strides", (1, 1, 2, 3, 4), "NCDHW") == (2, 3, 4)
    assert parse_per_axis("strides", INT64_MAX, "NDHWC") == (INT64_MAX,) * 3


PER_AXIS = " must be an integer, or 1, 3 or 5 integers"


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (ValueError, 0, " = 0 must be at least 1"),
        (ValueError, -2, " = -2 must be at least 1"),
        (ValueError, (2, 0, 2), "[1] = 0 must be at least 1"),
        (ValueError, 2**63, f" = {2**63} {UNFIT}"),
        (ValueError, (2, 2), PER_AXIS + " (5: in the order of NDHWC), got 2: (2, 2)"),
        (ValueError, [], PER_AXIS + " (5: in the order of NDHWC), got 0: []"),
        (ValueError, (2, 1, 1, 1, 1), "[0] = 2 belongs to the batch in NDHWC: it must be 1"),
        (ValueError, (1, 1, 1, 1, 3), "[4] = 3 belongs to the channels in NDHWC: it must be 1"),
        (TypeError, True, PER_AXIS + ", got True (bool)"),
        (TypeError, 2.0, PER_AXIS + ", got 2.0 (float)"),
        (TypeError, "2", PER_AXIS + ", got '2' (str)"),
        (TypeError, iter([2]), None),
        (TypeError, np.True_, None),
        (TypeError, np.array([True]), "[0] must be an integer, got True (bool)"),
        (TypeError, (2, 2.0, 2), "[1] must be an integer, got 2.0 (float)"),
        (TypeError, (2, None, 2), "[1] must be an integer, got None (NoneType)"),
        (TypeError, np.array([2.0, 2.0, 2.0]), "[0] must be an integer, got 2.0 (float)"),
    ],
)
@pytest.mark.parametrize("name", ["strides", "dilations"])
def test_per_axis_refused(
    name: str, kind: type[Exception], value: Any, message: str | None
) -> None:
    # Versions of NumPy and Python print some values differently: the rule alone is checked there.
    expected = re.escape(name + (message or PER_AXIS)) + ("$" if message else "")
    with pytest.raises(kind, match=f"^{expected}"):
        parse_per_axis(name, value, "NDHWC")


def test_per_axis_channels_of_the_other_layout() -> None:
    with refuses(ValueError, "strides[1] = 2 belongs to the channels in NCDHW: it must be 1"):
        parse_per_axis("strides", (1, 2, 2, 2, 1), "NCDHW")


# --- output_shape ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        (2, 7, -1, 8, 16),
        [2, 7, None, 8, 16],
        np.array([2, 7, -1, 8, 16], np.int32),
        np.array([2, 7, None, 8, 16], object),
        [np.int64(2), np.uint8(7), None, Integer(8), 16],
        Vector(2, 7, Integer(-1), np.array(8), 16),
    ],
    ids=lambda value: type(value).__name__,
)
def test_output_shape(value: Any) -> None:
    shape = parse_output_shape(value, "NDHWC")
    assert shape == (2, 7, -1, 8, 16)
    assert all(type(number) is int for number in shape)


def test_output_shape_left_out() -> None:
    assert parse_output_shape(None, "NDHWC") == (-1,) * 5
    assert parse_output_shape(np.array([2, 7, 7, 8, 9], np.uint64), "NDHWC") == (2, 7, 7, 8, 9)


RULE = "output_shape must be None or 5 integers"
NDHWC = "[batch, depth, height, width, channels]"
NCDHW = "[batch, channels, depth, height, width]"


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (TypeError, 8, f"{RULE}, got 8 (int)"),
        (TypeError, "28888", f"{RULE}, got '28888' (str)"),
        (TypeError, {8}, f"{RULE}, got {{8}} (set)"),
        (TypeError, {2: 8}, f"{RULE}, got {{2: 8}} (dict)"),
        (TypeError, np.array(5), f"{RULE}, got array(5) (ndarray)"),
        (TypeError, (2, 8, 8, 8, True), "output_shape[4] must be an integer, got True (bool)"),
        (TypeError, np.array([True] * 5), "output_shape[0] must be an integer, got True (bool)"),
        (TypeError, (2, 8.0, 8, 8, 16), "output_shape[1] must be an integer, got 8.0 (float)"),
        (TypeError, np.ones(5), "output_shape[0] must be an integer, got 1.0 (float)"),
        (TypeError, np.array([2j] * 5), "output_shape[0] must be an integer, got 2j (complex)"),
        (TypeError, [[2, 8]], "output_shape[0] must be an integer, got [2, 8] (list)"),
        (ValueError, (8, 8, 8), f"{RULE} {NDHWC}, got 3: (8, 8, 8)"),
        (ValueError, [], f"{RULE} {NDHWC}, got 0: []"),
        (
            ValueError,
            (2, 8, -2, 8, 16),
            "output_shape[2] = -2 must be at least -1 (-1 or None: inferred)",
        ),
        (ValueError, (2, 8, 2**63, 8, 16), f"output_shape[2] = {2**63} {UNFIT}"),
    ],
)
def test_output_shape_refused(kind: type[Exception], value: Any, message: str) -> None:
    with refuses(kind, message):
        parse_output_shape(value, "NDHWC")


def test_output_shape_with_a_framework_s_bool() -> None:
    with pytest.raises(TypeError, match=r"^output_shape\[4\] must be an integer, got .*Integer"):
        parse_output_shape((2, 8, 8, 8, Integer(1, "torch.bool")), "NDHWC")


def test_output_shape_names_the_layout() -> None:
    with refuses(ValueError, f"{RULE} {NCDHW}, got 2: [8, 8]"):
        parse_output_shape([8, 8], "NCDHW")


def test_long_values_are_cut_short() -> None:
    with pytest.raises(ValueError, match=r", got 1000: \[1, 1, 1, 1, 1, 1, \.\.\.\]$"):
        parse_output_shape([1] * 1000, "NDHWC")
    with pytest.raises(TypeError, match=r", got .{,60} \(ndarray\)$"):
        parse_per_axis("strides", np.array("2" * 1000), "NDHWC")


# --- shapes and groups -----------------------------------------------------------------------


def test_shape() -> None:
    assert parse_shape("input", [2, 0, np.int64(4), 4, 8], NDHWC) == (2, 0, 4, 4, 8)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (ValueError, (), f"input must have 5 dimensions {NDHWC}, got shape ()"),
        (ValueError, (4, 4, 4, 8), f"input must have 5 dimensions {NDHWC}, got shape (4, 4, 4, 8)"),
        (ValueError, (2, 4, -4, 4, 8), "input.shape[2] = -4 must be at least 0"),
        (TypeError, (2, None, 4, 4, 8), "input.shape[1] must be an integer, got None (NoneType)"),
        (TypeError, 8, "input.shape must be 5 integers, got 8 (int)"),
    ],
)
def test_shape_refused(kind: type[Exception], value: Any, message: str) -> None:
    with refuses(kind, message):
        parse_shape("input", value, NDHWC)


def test_integer() -> None:
    assert [parse_integer("groups", value, 1) for value in (1, np.uint8(2), Integer(3))] == [
        1,
        2,
        3,
    ]


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (ValueError, 0, "groups = 0 must be at least 1"),
        (TypeError, True, "groups must be an integer, got True (bool)"),
        (TypeError, None, "groups must be an integer, got None (NoneType)"),
        (TypeError, 1.0, "groups must be an integer, got 1.0 (float)"),
        (TypeError, "1", "groups must be an integer, got '1' (str)"),
    ],
)
def test_integer_refused(kind: type[Exception], value: Any, message: str) -> None:
    with refuses(kind, message):
        parse_integer("groups", value, 1)
