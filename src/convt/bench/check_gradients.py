"""Whether gradients are right, judged as `check` judges results, from the sums that define them.

The input's gradient is compared at voxels drawn at random, the filters' at all taps of a few channels.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from convt.bench.check import Expected, bound, draw_places, expected, pick
from convt.bench.problems import Problem

__all__ = ["expected_gradients", "pick_gradients"]

Array = npt.NDArray[Any]
_CHANNELS = 8  # of each side whose filters are compared


def pick_gradients(
    problem: Problem, output: Array, input_gradient: Array, filters_gradient: Array
) -> npt.NDArray[np.float64]:
    """What is compared of a result and its two gradients, one after the other."""
    spec = problem.spec
    arrays = {"input": input_gradient, "filters": filters_gradient}
    for name, found in arrays.items():
        wanted = getattr(spec, f"{name}_shape")
        if found.shape != wanted:
            raise ValueError(f"the gradient in the {name} has shape {found.shape}, not {wanted}")
    last = _channels_last(problem, input_gradient)
    dx = last[tuple(_input_places(problem).T)]
    outputs, inputs = _channels(problem)
    dw = filters_gradient[..., outputs, :][..., inputs]
    return np.concatenate(
        [part.astype(np.float64).ravel() for part in (pick(problem, output), dx, dw)]
    )


def expected_gradients(problem: Problem, input: Array, filters: Array, gradient: Array) -> Expected:
    """The right answers, in the order of `pick_gradients`."""
    y = expected(problem, input, filters)
    x, g = (_channels_last(problem, array) for array in (input, gradient))
    parts = [(y.exact, y.bound), _of_input(problem, filters, g), _of_filters(problem, x, g)]
    exact, most = (
        np.concatenate([part.ravel() for part in side]) for side in zip(*parts, strict=True)
    )
    return Expected(exact, most)


def _of_input(problem: Problem, filters: Array, gradient: Array) -> tuple[Array, Array]:
    spec, places = problem.spec, _input_places(problem)
    exact = np.zeros((len(places), problem.in_channels))
    size = np.zeros_like(exact)
    for tap in np.ndindex(problem.kernel):
        at = places[:, 1:] * problem.strides + tap - np.array(spec.pad_before)
        hits = ((at >= 0) & (at < spec.output_size)).all(axis=1)
        values = gradient[(places[hits, 0], *at[hits].T)].astype(np.float64)
        weights = filters[tap].astype(np.float64)
        exact[hits] += values @ weights
        size[hits] += np.abs(values) @ np.abs(weights)
    return exact, bound(problem, size)


def _of_filters(problem: Problem, input: Array, gradient: Array) -> tuple[Array, Array]:
    spec = problem.spec
    outputs, inputs = _channels(problem)
    x, g = input[..., inputs].astype(np.float64), gradient[..., outputs].astype(np.float64)
    exact = np.zeros((*problem.kernel, len(outputs), len(inputs)))
    size = np.zeros_like(exact)
    geometry = (problem.kernel, problem.strides, spec.pad_before, spec.input_size, spec.output_size)
    ranges = [_ranges(*axis) for axis in zip(*geometry, strict=True)]
    for tap in product(*map(range, problem.kernel)):
        read, written = zip(*(axis[t] for axis, t in zip(ranges, tap, strict=True)), strict=True)
        values = x[(slice(None), *read)].reshape(-1, len(inputs))
        weights = g[(slice(None), *written)].reshape(-1, len(outputs))
        exact[tap] = weights.T @ values
        size[tap] = np.abs(weights).T @ np.abs(values)
    return exact, bound(problem, size)


def _ranges(
    kernel: int, stride: int, pad: int, inputs: int, outputs: int
) -> list[tuple[slice, slice]]:
    """For each tap of an axis: the inputs that it takes to an output, and those outputs."""
    found = []
    for tap in range(kernel):
        first = max(-((tap - pad) // stride), 0)
        end = max(min((outputs - 1 + pad - tap) // stride + 1, inputs), first)
        start = first * stride + tap - pad
        found.append((slice(first, end), slice(start, start + (end - first) * stride, stride)))
    return found


def _input_places(problem: Problem) -> npt.NDArray[np.int64]:
    """Rows of batch, depth, height, width of inputs."""
    return draw_places(problem.batch, *problem.size)


def _channels(problem: Problem) -> tuple[Array, Array]:
    """Output and input channels that are drawn."""
    rng = np.random.default_rng(0)
    sides = (problem.out_channels, problem.in_channels)
    d = [rng.permutation(count)[:_CHANNELS] for count in sides]
    return d[0], d[1]


def _channels_last(problem: Problem, array: Array) -> Array:
    return array if problem.data_format == "NDHWC" else np.moveaxis(array, 1, -1)
