"""Whether a result is right, judged at voxels drawn at random by the sum that defines them, in float64.

All channels of each voxel are compared; voxels near the borders are drawn more often. A library passes if
its error stays below a bound: a few roundings, in the element type, of the sum of the absolute products. So
those pass, too, that keep the sums of float16 and bfloat16 in the short type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convt.bench.problems import Problem

__all__ = ["Expected", "bound", "draw_places", "expected", "pick"]

Array = npt.NDArray[Any]
_PLACES = 1024  # voxels compared
_BORDER = 4  # outputs from an end that count as near it
_EPSILON = {"float16": 2.0**-8, "bfloat16": 2.0**-5, "float32": 2.0**-20, "float64": 2.0**-49}


@dataclass(frozen=True, slots=True)
class Expected:
    """The right answers at the places drawn."""

    exact: Array
    bound: Array  # of the same shape: the largest error that is let pass

    def error(self, found: Array) -> float:
        """The largest error, as a multiple of the bound; not a number counts as infinite."""
        with np.errstate(invalid="ignore"):
            ratio = np.abs(found - self.exact) / self.bound
        return float(np.nan_to_num(ratio, nan=np.inf).max(initial=0.0))


def draw_places(*lengths: int) -> npt.NDArray[np.int64]:
    """Rows of indices into axes of these lengths: batch, depth, height and width."""
    rng = np.random.default_rng(0)
    columns = []
    for length in lengths:
        anywhere = rng.integers(0, length, _PLACES)
        border = rng.integers(-_BORDER, _BORDER, _PLACES) % length
        columns.append(np.where(rng.random(_PLACES) < 0.25, border, anywhere))
    return np.stack(columns, axis=1)


def pick(problem: Problem, output: Array) -> npt.NDArray[np.float64]:
    """The channels of `output`, in the problem's layout, at the places drawn."""
    if output.shape != problem.spec.output_shape:
        raise ValueError(f"the result has shape {output.shape}, not {problem.spec.output_shape}")
    last = output if problem.data_format == "NDHWC" else np.moveaxis(output, 1, -1)
    found: Array = last[tuple(_places(problem).T)]
    return found.astype(np.float64)


def expected(problem: Problem, input: Array, filters: Array) -> Expected:
    """Sum up the products of every tap that reaches the places drawn."""
    spec, places = problem.spec, _places(problem)
    x = input if problem.data_format == "NDHWC" else np.moveaxis(input, 1, -1)
    exact = np.zeros((len(places), problem.out_channels))
    size = np.zeros_like(exact)
    for tap in np.ndindex(problem.kernel):
        at, rest = np.divmod(places[:, 1:] + spec.pad_before - tap, problem.strides)
        hits = ((rest == 0) & (at >= 0) & (at < problem.size)).all(axis=1)
        values = x[(places[hits, 0], *at[hits].T)].astype(np.float64)
        weights = filters[tap].astype(np.float64).T
        exact[hits] += values @ weights
        size[hits] += np.abs(values) @ np.abs(weights)
    return Expected(exact, bound(problem, size))


def bound(problem: Problem, size: Array) -> Array:
    """The largest error that is let pass in sums whose absolute products add up to `size`."""
    most: Array = size * _EPSILON[problem.dtype] + np.finfo(np.float32).tiny
    return most


def _places(problem: Problem) -> npt.NDArray[np.int64]:
    return draw_places(problem.batch, *problem.spec.output_size)
