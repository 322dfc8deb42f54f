"""Minimal filtering on one axis: F(m, r), m outputs of an r-tap correlation by m + r - 1 products.

Toom and Cook's construction, in exact fractions: outputs, filters and inputs are coefficients of
polynomials, and a product of polynomials is known from its values at as many points as it has
coefficients. With matrices named as in Winograd's and Lavin's texts,

    y = output @ ((filter @ w) * (input @ x)),      y[i] = sum(x[i + k] * w[k] for k in range(r))

holds exactly; floating point adds rounding errors that grow with the points' size. Hence small points.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import prod

__all__ = ["Matrix", "Transform", "transform"]

Matrix = tuple[tuple[Fraction, ...], ...]
# In this order: each next point costs more accuracy than the ones before.
_HALF = Fraction(1, 2)
_POINTS = (*map(Fraction, (0, 1, -1, 2, -2)), _HALF, -_HALF, Fraction(3), Fraction(-3))
# Of some numbers of points, others lose less: measured over random data.
_BETTER = {
    2: (Fraction(1), Fraction(-1)),
    4: (Fraction(1), Fraction(-1), _HALF, -_HALF),
    5: (Fraction(0), Fraction(1), Fraction(-1), _HALF, Fraction(-2)),
}


@dataclass(frozen=True, slots=True)
class Transform:
    """F(outputs, taps): the matrices of one axis."""

    outputs: int  # m
    taps: int  # r
    output: Matrix  # m x n
    filter: Matrix  # n x r
    input: Matrix  # n x n

    @property
    def points(self) -> int:
        """Products: m + r - 1."""
        return self.outputs + self.taps - 1


@lru_cache(maxsize=64)
def transform(outputs: int, taps: int) -> Transform:
    """The matrices of F(`outputs`, `taps`).

    Raises
    ------
    ValueError
        If it takes more points than there are small ones.

    Examples
    --------
    >>> t = transform(2, 2)
    >>> [[int(v) for v in row] for row in t.input]
    [[1, 1, 0], [-1, 1, 0], [-1, 0, 1]]
    """
    if outputs == 1 or taps == 1:
        return _direct(outputs, taps)
    finite = outputs + taps - 2
    if finite > len(_POINTS):
        raise ValueError(f"F({outputs}, {taps}) takes {finite} points; there are {len(_POINTS)}")
    points = _BETTER.get(finite, _POINTS[:finite])
    one, zero = Fraction(1), Fraction(0)
    scales = [prod((p - q for q in points if q != p), start=one) for p in points]
    last = outputs - 1
    output = tuple((*(p**i for p in points), one if i == last else zero) for i in range(outputs))
    rows = [tuple(p**k / s for k in range(taps)) for p, s in zip(points, scales, strict=True)]
    rows.append(tuple(one if k == taps - 1 else zero for k in range(taps)))
    inputs = [_coefficients(tuple(q for q in points if q != p), finite + 1) for p in points]
    inputs.append(_coefficients(points, finite + 1))
    return Transform(outputs, taps, output, tuple(rows), tuple(inputs))


def _direct(outputs: int, taps: int) -> Transform:
    """One tap, or one output: nothing to save; a product for each pair."""
    one, zero = Fraction(1), Fraction(0)
    size = outputs + taps - 1

    def unit(n: int) -> Matrix:
        return tuple(tuple(one if i == j else zero for j in range(n)) for i in range(n))

    output = unit(outputs) if taps == 1 else ((one,) * taps,)
    filters = ((one,),) * outputs if taps == 1 else unit(taps)
    return Transform(outputs, taps, output, filters, unit(size))


def _coefficients(roots: tuple[Fraction, ...], length: int) -> tuple[Fraction, ...]:
    """The polynomial with these roots and leading coefficient 1, lowest power first."""
    result = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *result]
        result = [s - root * c for s, c in zip(shifted, [*result, Fraction(0)], strict=True)]
    return (*result, *[Fraction(0)] * (length - len(result)))
