"""Which sums may be computed: the definition's own products, or fewer by minimal filtering.

"auto" uses minimal filtering where it is faster and its rounding error is bounded: the largest and the root
mean square error over a result are at most four times those of the direct float32 sum, as
``tests/test_accuracy.py`` measures: case by case on data of even size, on average over many cases where
sizes range widely. (A small output beside a large one can lose more: errors are shared within a tile.)
"direct" never uses it. "fast" uses it where it is faster, with larger tiles too, whose error has no stated
bound.
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
        computes the definition's own products; "fast" filters where it is faster, whatever the error.

    Examples
    --------
    >>> import convt
    >>> convt.set_algorithm("direct")
    >>> convt.get_algorithm()
    'direct'
    >>> convt.set_algorithm("auto")
    """
    global _default
    if algorithm is None:
        raise TypeError('algorithm must be "auto", "direct" or "fast", got None')
    _default = parse_algorithm(algorithm)


def get_algorithm() -> str:
    """The algorithm of calls that name none."""
    return _default


def parse_algorithm(value: Any) -> str:
    """`value` as the name of an algorithm; None is the process' default."""
    if value is None:
        return _default
    if not isinstance(value, str) or value not in ALGORITHMS:
        kind = ValueError if isinstance(value, str) else TypeError
        raise kind(f'algorithm must be "auto", "direct" or "fast", got {value!r}')
    return str(value)
