"""Calls that repeat: what follows from their arguments alone is found by the arguments as they came.

Constraints of this file: nothing of an array is kept but its shape, strides and dtype, and a call that was
remembered means exactly what the earlier one did. As 1 == 1.0 == True, of which the last two are errors,
only plain arguments are looked up: ints, text, None, and lists and tuples of such.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

__all__ = ["Layout", "recall"]

Found = TypeVar("Found")
_REMEMBERED = 1024  # calls with different arguments
_PLAIN = frozenset({int, str, type(None)})

_found: dict[Any, Any] = {}


class Layout(NamedTuple):
    """How an array lies in memory."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]  # bytes
    dtype: np.dtype[Any]


def recall(function: Callable[..., Found], arrays: Sequence[Any], *arguments: Any) -> Found:
    """What `function` returns for the layouts of `arrays` and for `arguments`, now or before.

    It is a function of a module and depends on nothing else. An array that is None has no layout.

    Examples
    --------
    >>> def size_along(layout: Layout, axis: int) -> int:
    ...     return layout.shape[axis]
    >>> recall(size_along, [np.ones((2, 3))], 1)
    3
    """
    layouts = [a if a is None else (a.shape, a.strides, a.dtype) for a in arrays]
    plain = _plain(arguments, depth=1)
    key = (function, *layouts, *plain) if plain else None
    found: Found | None = _found.get(key)
    if found is None:
        found = function(*[a and Layout(*a) for a in layouts], *arguments)
        if key:
            if len(_found) >= _REMEMBERED:
                _found.clear()
            _found[key] = found
    return found


def _plain(values: Sequence[Any], depth: int) -> list[Any] | None:
    """The values with tuples for lists; None where one is not plain or nests deeper than `depth`."""
    found: list[Any] = []
    for value in values:
        if isinstance(value, (tuple, list)):
            if not _PLAIN.issuperset(map(type, value)):
                value = _plain(value, depth - 1) if depth else None
                if value is None:
                    return None
            value = tuple(value)
        elif type(value) not in _PLAIN:
            return None
        found.append(value)
    return found
