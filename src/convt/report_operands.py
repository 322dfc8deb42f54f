"""Arrays, or shapes in their place -> what a plan depends on: shape, dtype and strides.

Constraints of this file: no array's memory is read, so a volume on disk or in a framework is as
good as one in NumPy; what is wrong with a shape or a dtype is left for `spec` to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Operand", "fill", "laid_out", "parse_operand"]


class Operand(NamedTuple):
    """An array as far as it is known."""

    shape: Any
    dtype: Any = None  # None: as its neighbours
    strides: tuple[int, ...] | None = None  # bytes; None: those of a C-contiguous array


def parse_operand(value: Any) -> Operand:
    """Describe an array of any kind, or the array that has the shape `value`."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or dtype is None:
        if _holds_numbers(value):
            return parse_operand(np.asarray(value))
        return Operand(value)
    dtype = _parse_dtype(dtype)
    if len(shape) == 1 and isinstance(dtype, np.dtype) and dtype.kind in "iu":
        return Operand(value)  # no operand is a vector of integers, but a shape may be
    strides = value.strides if isinstance(value, np.ndarray) else None
    return Operand(tuple(shape), dtype, strides)


def _holds_numbers(value: Any) -> bool:
    """Whether `value` is a list of numbers or of lists, as arrays are written, and not a shape."""
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        return False
    return any(isinstance(entry, (float, Sequence)) for entry in value)


def fill(operands: Iterable[Operand | None], dtype: Any) -> list[Any]:
    """Give every operand a dtype: that of the first array, or `dtype` where there is none."""
    operands = list(operands)
    dtype = _parse_dtype(dtype)
    for operand in operands:
        if operand is not None and operand.dtype is not None:
            dtype = operand.dtype
            break
    return [o if o is None or o.dtype is not None else o._replace(dtype=dtype) for o in operands]


def _parse_dtype(value: Any) -> Any:
    """Return NumPy's dtype; of a framework's, by its name."""
    if value is None:
        raise TypeError("dtype must be float16, bfloat16, float32 or float64, got None")
    try:
        return np.dtype(value)
    except TypeError:
        name = getattr(value, "name", None) or str(value).rpartition(".")[2]
    try:
        return np.dtype(name)
    except TypeError:
        return value


def laid_out(operand: Operand, shape: tuple[int, ...]) -> Operand:
    """`operand` with strides: its own, or those of a C-contiguous array of `shape`."""
    if operand.strides is not None:
        return operand
    return operand._replace(strides=_contiguous(shape, operand.dtype.itemsize))


def _contiguous(shape: tuple[int, ...], item: int) -> tuple[int, ...]:
    strides: list[int] = []
    for size in reversed(shape):
        strides.insert(0, item)
        item *= max(size, 1)
    return tuple(strides)
