"""What "auto" may lose: the error of minimal filtering beside that of the direct sum.

`pytest -s tests/test_accuracy.py` prints the ratios. They are of the largest and of the root mean
square error over a result, both sums in float32, against the definition in float64, with filtering
forced where it would not pay. The tables of a change to the transforms, or to the order of sums,
are what `convt.algorithm` and ARCHITECTURE.md state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from convt import target
from oracles import Array
from problems import Problem, box, compute

HOST = target.host()
BOUND = 4.0  # times the direct sum's error
slow = pytest.mark.slow

Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]


def lognormal(sigma: float, *, signed: bool) -> Draw:
    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        values = np.exp(sigma * rng.standard_normal(shape))
        return values * rng.choice([-1.0, 1.0], shape) if signed else values

    return draw


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal(shape)


def uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.random(shape)


# Of inputs and of filters. Within a few powers of ten of each other:
EVEN: dict[str, tuple[Draw, Draw]] = {
    "normal": (normal, normal),
    "uniform, positive": (uniform, uniform),
    "positive half of normal": (lambda rng, s: np.maximum(normal(rng, s), 0), normal),
    "normal around 10": (lambda rng, s: normal(rng, s) + 10, normal),
}
# Over many powers of ten: a few products make up the result.
WIDE: dict[str, tuple[Draw, Draw]] = {
    f"lognormal, sigma {sigma}{', signed' if signed else ''}": (
        lognormal(sigma, signed=signed),
        lognormal(sigma, signed=signed),
    )
    for sigma in (2, 3)
    for signed in (False, True)
}


PROBLEMS = {
    "k3s1, F(2, 3), 16 channels": box((5, 5, 5), 16, 16, (3, 3, 3), (1, 1, 1)),
    "k3s1, F(2, 3), 64 channels": box((5, 5, 5), 64, 16, (3, 3, 3), (1, 1, 1)),
    "k3s1, F(2, 3), 256 channels": box((4, 4, 4), 256, 16, (3, 3, 3), (1, 1, 1)),
    "k4s2, F(2, 2), 16 channels": box((4, 4, 4), 16, 16, (4, 4, 4), (2, 2, 2)),
    "k4s2, F(2, 2), 64 channels": box((4, 4, 4), 64, 16, (4, 4, 4), (2, 2, 2)),
    "k4s2, F(3, 2), 64 channels": box((5, 5, 5), 64, 16, (4, 4, 4), (2, 2, 2)),
    "k4s2, F(3, 2), 256 channels": box((3, 3, 3), 256, 16, (4, 4, 4), (2, 2, 2)),
    "k3s2, F(2, 2), 64 channels": box((4, 4, 4), 64, 16, (3, 3, 3), (2, 2, 2)),
    "k344 s122, F(2, 3) and F(3, 2)": box((4, 5, 5), 64, 16, (3, 4, 4), (1, 2, 2)),
}
# Convolutions to 16 channels, in which the products of parts of the input add up.
PROBLEMS |= {
    f"convolution {name}": box((size,) * 3, 16, into, (kernel,) * 3, (stride,) * 3).adjoint
    for name, size, into, kernel, stride in (
        ("k3s2, F(2, 2) and F(2, 1), 16 channels", 4, 16, 3, 2),
        ("k3s2, F(2, 2) and F(2, 1), 64 channels", 4, 64, 3, 2),
        ("k3s2, F(3, 2) and F(3, 1), 64 channels", 3, 64, 3, 2),
        ("k3s2, F(3, 2) and F(3, 1), 256 channels", 3, 256, 3, 2),
        ("k4s2, F(2, 2), 64 channels", 4, 64, 4, 2),
        ("k4s2, F(3, 2), 64 channels", 3, 64, 4, 2),
        ("k5s2, F(2, 3) and F(2, 2), 64 channels", 4, 64, 5, 2),
        ("k5s3, F(2, 2) and F(2, 1), 64 channels", 4, 64, 5, 3),
        ("k3s1, F(2, 3), 64 channels", 5, 64, 3, 1),
    )
}
QUICK = "k3s1, F(2, 3), 16 channels"
CASES = [pytest.param(name, marks=() if name == QUICK else slow) for name in PROBLEMS]


def errors(y: Array, exact: Array) -> Array:
    error = np.abs(y - exact)
    return np.array([np.max(error), np.sqrt(np.mean(error**2))], np.float64)


def ratios(problem: Problem, draws: tuple[Draw, Draw], seed: int) -> Array:
    """Largest and root mean square error, of minimal filtering by those of the direct sum."""
    rng = np.random.default_rng(seed)
    x = draws[0](rng, problem.input_shape).astype(problem.dtype)
    w = draws[1](rng, problem.filters_shape).astype(problem.dtype)
    more: Any = np.longdouble if problem.dtype == np.float64 else np.float64
    exact = problem.define(x, w, dtype=more)
    direct = problem.call(x, w, algorithm="direct")
    filtered = compute(problem, x, w, None, "filtering", HOST, threads=1)
    assert filtered is not None
    return errors(filtered, exact) / errors(direct, exact)


def show(name: str, values: str, found: Array) -> None:
    line = f"{name:54}{values:28}largest {found[0]:5.2f}   root mean square {found[1]:5.2f}"
    print(line)  # noqa: T201 - for `pytest -s`


@pytest.mark.parametrize("name", CASES)
def test_even_values_lose_no_more_in_any_case(name: str) -> None:
    for values, draws in EVEN.items():
        found = np.max([ratios(PROBLEMS[name], draws, seed) for seed in range(4)], axis=0)
        show(name, values, found)
        assert np.all(found <= BOUND), (values, found)


# Of a result that a few products make up, the direct sum's error is a matter of luck: one rounding
# where such a product comes last in its chain, dozens where it comes first. So single cases tell
# nothing, and the geometric mean over many is compared.
@pytest.mark.parametrize("name", CASES)
def test_wide_ranges_lose_no_more_on_average(name: str) -> None:
    for values, draws in WIDE.items():
        some = [ratios(PROBLEMS[name], draws, seed) for seed in range(40)]
        found = np.exp(np.mean(np.log(some), axis=0))
        show(name, values, found)
        assert np.all(found <= BOUND), (values, found)


@slow
@pytest.mark.parametrize("name", ["k3s1, F(2, 3), 16 channels", "k4s2, F(2, 2), 16 channels"])
def test_float64_loses_no_more(name: str) -> None:
    problem = replace(PROBLEMS[name], dtype=np.dtype(np.float64))
    for values, draws in EVEN.items():
        found = ratios(problem, draws, 0)
        show(f"float64, {name}", values, found)
        assert np.all(found <= BOUND), (values, found)


# Roundings are those of a tile, so a large value spoils small outputs nearby: those of the tiles
# that read it, and no others.
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (4, 2)])
def test_a_large_value_spoils_the_tiles_that_read_it_alone(kernel: int, stride: int) -> None:
    problem = box((12, 3, 3), 16, 16, (kernel,) * 3, (stride,) * 3)
    x, w, _ = problem.normal()
    before = compute(problem, x, w, None, "filtering", HOST, threads=1)
    x[0, 6, 1, 1, 5] = 1e20
    after = compute(problem, x, w, None, "filtering", HOST, threads=1)
    assert before is not None
    assert after is not None
    changed = np.flatnonzero(np.any(before != after, axis=(0, 2, 3, 4)))
    # Taps reach a kernel's width of outputs; a tile adds up to two of its phase on each side.
    reach = kernel // 2 + 2 * stride
    assert 6 * stride - reach <= changed[0] <= changed[-1] <= 6 * stride + stride - 1 + reach
