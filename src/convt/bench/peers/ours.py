"""convt itself."""

from __future__ import annotations

import convt
from convt.bench.peers import Array, Ready
from convt.bench.problems import Problem

__all__ = ["prepare", "start"]


def start(threads: int, variant: str) -> None:
    """Use so many threads."""
    del variant
    convt.set_num_threads(threads)


def prepare(problem: Problem, input: Array, filters: Array, bound: bool) -> Ready:
    """Arrays in the problem's own layout."""
    spec = problem.spec
    options = (problem.strides, problem.padding, problem.data_format)
    if bound:
        layer = convt.ConvTranspose3D(filters, *options)
        return Ready(lambda: layer(input, output_shape=spec.output_shape), _same)
    return Ready(lambda: convt.conv3d_transpose(input, filters, spec.output_shape, *options), _same)


def _same(array: Array) -> Array:
    return array
