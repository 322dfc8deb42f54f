"""F(m, r): exact in rational arithmetic, for every m and r that there are points for."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convt.transforms import Matrix, transform
from problems import examples

POINTS = 9  # finite ones, at most
# Those that "auto" may use.
AUTOMATIC = [(1, 1), (2, 2), (3, 2), (2, 3)]
EVERY = list(product(range(1, 7), range(1, 7)))


def exists(outputs: int, taps: int) -> bool:
    return 1 in (outputs, taps) or outputs + taps - 2 <= POINTS


KINDS = [kind for kind in EVERY if exists(*kind)]


def times(matrix: Matrix, values: Sequence[Fraction]) -> list[Fraction]:
    return [sum((c * v for c, v in zip(row, values, strict=True)), Fraction(0)) for row in matrix]


@pytest.mark.parametrize(("outputs", "taps"), KINDS)
def test_it_is_a_correlation(outputs: int, taps: int) -> None:
    """For every tap and input alone, and so for any: both sides are linear in each."""
    made = transform(outputs, taps)
    for i, j, k in product(range(outputs), range(made.points), range(taps)):
        terms = zip(made.output[i], made.filter, made.input, strict=True)
        reached = sum((a * g[k] * b[j] for a, g, b in terms), Fraction(0))
        assert reached == (j == i + k)


fractions = st.fractions(-1000, 1000, max_denominator=1000)


@examples(30)
@given(st.sampled_from(KINDS), st.data())
def test_any_values(kind: tuple[int, int], data: st.DataObject) -> None:
    outputs, taps = kind
    made = transform(*kind)
    x = data.draw(st.lists(fractions, min_size=made.points, max_size=made.points))
    w = data.draw(st.lists(fractions, min_size=taps, max_size=taps))
    products = [a * b for a, b in zip(times(made.filter, w), times(made.input, x), strict=True)]
    expected = [sum(x[i + k] * w[k] for k in range(taps)) for i in range(outputs)]
    assert times(made.output, products) == expected


@pytest.mark.parametrize(("outputs", "taps"), KINDS)
def test_it_takes_one_product_a_point(outputs: int, taps: int) -> None:
    made = transform(outputs, taps)
    assert made.points == outputs + taps - 1
    assert [len(row) for row in made.output] == [made.points] * outputs
    assert [len(row) for row in made.filter] == [taps] * made.points
    assert [len(row) for row in made.input] == [made.points] * made.points


@pytest.mark.parametrize(("outputs", "taps"), [k for k in KINDS if 1 not in k])
def test_points_are_small(outputs: int, taps: int) -> None:
    """The powers that take a value to a point and back are those of the point: the second row."""
    points = transform(outputs, taps).output[1][:-1]
    assert len(set(points)) == outputs + taps - 2
    assert all(abs(p.numerator) <= 3 and p.denominator <= 2 for p in points)


@pytest.mark.parametrize(("outputs", "taps"), AUTOMATIC)
def test_automatic_transforms_add_and_halve(outputs: int, taps: int) -> None:
    made = transform(outputs, taps)
    coefficients = {c for matrix in (made.input, made.output) for row in matrix for c in row}
    assert coefficients <= {-1, 0, 1}
    assert {abs(c) for row in made.filter for c in row} <= {0, Fraction(1, 2), 1}


@pytest.mark.parametrize(("outputs", "taps"), [k for k in EVERY if k not in KINDS])
def test_others_have_no_points(outputs: int, taps: int) -> None:
    needed = outputs + taps - 2
    message = rf"F\({outputs}, {taps}\) takes {needed} points; there are {POINTS}"
    with pytest.raises(ValueError, match=message):
        transform(outputs, taps)
