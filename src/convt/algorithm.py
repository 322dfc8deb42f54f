"""Which sums may be computed: the definition's own products, or fewer by minimal filtering.

"auto" uses minimal filtering where it is faster and its rounding error is bounded: in float32 at most four
times that of the direct sum. "direct" never uses it. "fast" uses it wherever it can, with larger tiles,
whose error has no stated bound.
"""

from __future__ import annotations

from typing import Any

__all__ = ["ALGORITHMS", "get_algorithm", "parse_algorithm", "set_algorithm"]

ALGORITHMS = ("auto", "direct", "fast")

_default = "auto"


def set_algorithm(algorithm: str) -> None:
    """Set the algorithm of calls that name none, in this process.

    Parameters
    ----------
    algorithm : {"auto", "direct", "fast"}
        "auto", the default, uses minimal filtering where it is faster and its error is bounded; "direct"
        computes the definition's own products; "fast" filters wherever it can.

    Examples
    --------
    >>> import convt
    >>> convt.set_algorithm("direct")
    >>> convt.get_algorithm()
    'direct'
    >>> convt.set_algorithm("auto")
    """
    global _default
    _default = parse_algorithm(algorithm)


def get_algorithm() -> str:
    """The algorithm of calls that name none."""
    return _default


def parse_algorithm(value: Any) -> str:
    """`value` as the name of an algorithm; None is the process' default."""
    if value is None:
        return _default
    if value not in ALGORITHMS:
        kind = ValueError if isinstance(value, str) else TypeError
        raise kind(f'algorithm must be "auto", "direct" or "fast", got {value!r}')
    return str(value)
