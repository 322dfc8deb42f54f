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
    plain = _plain(arguments)
    key = (function, *layouts, *plain) if plain else None
    found: Found | None = _found.get(key)
    if found is None:
        found = function(*[a and Layout(*a) for a in layouts], *arguments)
        if key:
            if len(_found) >= _REMEMBERED:
                _found.clear()
            _found[key] = found
    return found


def _plain(arguments: tuple[Any, ...]) -> list[Any] | None:
    """The arguments with tuples for lists; None if one of them is not plain."""
    found: list[Any] = []
    for value in arguments:
        kind = type(value)
        if kind is tuple or kind is list:
            if not _PLAIN.issuperset(map(type, value)):
                return None
            value = tuple(value)
        elif kind not in _PLAIN:
            return None
        found.append(value)
    return found
