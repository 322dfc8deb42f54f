"""One raw argument at a time -> plain Python values; `spec` then checks them against each other.

Constraints of this file: integers may come in any kind of container that users hold (tuples, NumPy
and framework vectors, 0-d arrays); bools and floats are never integers; what comes out is Python
ints that fit a signed 64-bit integer. The common case costs a few comparisons, and a message, which
names the argument, the rule, what came and what would be right, is built once a check has failed.
"""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import ml_dtypes
import numpy as np

Pair: TypeAlias = tuple[int, int]
Triple: TypeAlias = tuple[int, int, int]
Padding: TypeAlias = Literal["SAME", "VALID"] | tuple[Pair, Pair, Pair]

INT64_MAX = 2**63 - 1
LAYOUTS = {
    "NDHWC": "[batch, depth, height, width, channels]",
    "NCDHW": "[batch, channels, depth, height, width]",
}
FILTERS_LAYOUT = "[depth, height, width, out_channels, in_channels / groups]"
CONVOLUTION_FILTERS_LAYOUT = "[depth, height, width, in_channels / groups, out_channels]"

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_NATIVE: dict[np.dtype[Any], np.dtype[Any]] = {
    dtype: native
    for native in map(np.dtype, (np.float16, np.float32, np.float64))
    for dtype in (native, native.newbyteorder())
}
_NATIVE[_BFLOAT16] = _BFLOAT16  # ml_dtypes has it in native byte order only
_PADDING = '"SAME", "VALID" or three pairs [(before, after)] * 3'
_DTYPES = "float16, bfloat16, float32 or float64"


def parse_data_format(value: Any) -> str:
    """Return "NDHWC" or "NCDHW"; None is "NDHWC"."""
    if value is None:
        return "NDHWC"
    text = isinstance(value, str)
    if text and value in LAYOUTS:
        return str(value)
    keras = {"channels_last": "NDHWC", "channels_first": "NCDHW"}
    meant = keras.get(value, value.upper()) if text else None
    hint = f': write "{meant}"' if meant in LAYOUTS else ""
    kind = ValueError if text else TypeError
    raise kind(f'data_format must be "NDHWC", "NCDHW" or None, got {_show(value)}{hint}')


def parse_padding(value: Any) -> Padding:
    """Return "SAME", "VALID" or one (before, after) pair per axis."""
    if isinstance(value, str):
        if value == "SAME":
            return "SAME"
        if value == "VALID":
            return "VALID"
        meant = value.upper()
        hint = f': write "{meant}"' if meant in ("SAME", "VALID") else ""
        raise ValueError(f"padding must be {_PADDING}, got {_show(value)}{hint}")
    pairs = list(_entries("padding", value, _PADDING))
    if len(pairs) != 3:
        raise ValueError(f"padding must be {_PADDING}, got {len(pairs)}: {_show(value)}")
    d, h, w = (_parse_pair(f"padding[{i}]", pair) for i, pair in enumerate(pairs))
    return d, h, w


def _parse_pair(name: str, value: Any) -> Pair:
    values = parse_integers(name, value, 0, "a (before, after) pair")
    if len(values) != 2:
        raise ValueError(f"{name} = {_show(values)} must be a (before, after) pair")
    return values[0], values[1]


def parse_per_axis(name: str, value: Any, data_format: str) -> Triple:
    """Return depth, height and width of an integer, or of 1, 3 or 5 integers; None is 1."""
    if value is None:
        return 1, 1, 1
    if type(value) not in (tuple, list) and _is_integer(value):
        value = parse_integer(name, value, 1)
        return value, value, value
    rule = "an integer, or 1, 3 or 5 integers"
    values = parse_integers(name, value, 1, rule)
    if len(values) == 1:
        return values[0], values[0], values[0]
    if len(values) == 3:
        return values[0], values[1], values[2]
    if len(values) != 5:
        rule += f" (5: in the order of {data_format})"
        raise ValueError(f"{name} must be {rule}, got {len(values)}: {_show(value)}")
    first, channel = (1, 4) if data_format == "NDHWC" else (2, 1)
    for position, role in ((0, "batch"), (channel, "channels")):
        if values[position] != 1:
            belongs = f"belongs to the {role} in {data_format}"
            raise ValueError(f"{name}[{position}] = {values[position]} {belongs}: it must be 1")
    return values[first], values[first + 1], values[first + 2]


def parse_output_shape(value: Any, data_format: str) -> tuple[int, ...]:
    """Return five integers, -1 for each that is to be inferred."""
    if value is None:
        return -1, -1, -1, -1, -1
    values = parse_integers("output_shape", value, -1, "None or 5 integers")
    if len(values) != 5:
        rule = f"None or 5 integers {LAYOUTS[data_format]}"
        raise ValueError(f"output_shape must be {rule}, got {len(values)}: {_show(value)}")
    return values


def parse_shape(name: str, value: Any, layout: str) -> tuple[int, ...]:
    """Return the five sizes of an array's shape."""
    values = parse_integers(f"{name}.shape", value, 0, "5 integers")
    if len(values) != 5:
        raise ValueError(f"{name} must have 5 dimensions {layout}, got shape {_show(values)}")
    return values


def parse_integers(name: str, value: Any, low: int, rule: str) -> tuple[int, ...]:
    """Return the entries of a sequence as Python ints from `low` to `INT64_MAX`."""
    values = value if type(value) in (tuple, list) else _entries(name, value, rule)
    for entry in values:
        if type(entry) is not int or not low <= entry <= INT64_MAX:
            return tuple(parse_integer(f"{name}[{i}]", v, low) for i, v in enumerate(values))
    return tuple(values)


def parse_integer(name: str, value: Any, low: int) -> int:
    """Return one integer from `low` to `INT64_MAX`; a `low` of -1 lets None stand for -1."""
    if type(value) is int and low <= value <= INT64_MAX:
        return value
    if value is None and low == -1:
        return -1
    if not _is_integer(value):
        raise TypeError(f"{name} must be an integer, got {_show(value)} ({type(value).__name__})")
    number = operator.index(value)
    if number > INT64_MAX:
        raise ValueError(f"{name} = {number} does not fit a signed 64-bit integer")
    if number < low:
        infer = " (-1 or None: inferred)" if low == -1 else ""
        raise ValueError(f"{name} = {number} must be at least {low}{infer}")
    return number


def _entries(name: str, value: Any, rule: str) -> Sequence[Any]:
    """Return the entries of a sequence of any kind: NumPy or framework vector, range, shape."""
    try:
        if isinstance(value, (str, bytes, dict, set, frozenset)):
            raise TypeError
        len(value)  # refuses iterators and 0-d arrays
        return value.tolist() if isinstance(value, np.ndarray) else list(value)
    except TypeError:
        got = f"{_show(value)} ({type(value).__name__})"
        raise TypeError(f"{name} must be {rule}, got {got}") from None


def _is_integer(value: Any) -> bool:
    """Whether `value` is one integer of any kind (int, NumPy scalar, 0-d array), but no bool."""
    if type(value) is int:
        return True
    if isinstance(value, bool) or "bool" in str(getattr(value, "dtype", "")):
        return False
    try:
        operator.index(value)
    except (TypeError, AttributeError):  # the latter from TensorFlow's tensors of floats
        return False
    return True


def parse_dtype(name: str, value: Any, like: np.dtype[Any] | None = None) -> np.dtype[Any]:
    """Return one of the four dtypes served, in native byte order; it must be `like` if given."""
    try:
        dtype = np.dtype(value)
    except TypeError:
        raise TypeError(f"{name} dtype {_show(value)} must be {_DTYPES}") from None
    found = _NATIVE.get(dtype)
    if like is not None and found is not like:
        use = f"{name}.astype(input.dtype)"
        raise TypeError(f"{name} dtype {dtype} must be the input's, {like}: use {use}")
    if found is None:
        raise TypeError(f"{name} dtype {dtype} must be {_DTYPES}: {_remedy(name, dtype)}")
    return found


def _remedy(name: str, dtype: np.dtype[Any]) -> str:
    if dtype.kind == "c":
        return f"convolve {name}.real and {name}.imag one by one"
    if dtype == np.dtype("V2"):
        return f"for bfloat16 from a .npy file use {name}.view(ml_dtypes.bfloat16)"
    exact_in_float32 = dtype.itemsize < 4 or dtype.kind == "b"
    return f"use {name}.astype(np.{'float32' if exact_in_float32 else 'float64'})"


def _show(value: Any) -> str:
    """Return a short `repr` on one line."""
    return " ".join(_SHORT.repr(value).split())


_SHORT = reprlib.Repr()
_SHORT.maxother = _SHORT.maxstring = 60
