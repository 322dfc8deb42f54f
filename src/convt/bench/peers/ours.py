"""convt itself."""

from __future__ import annotations

from typing import Any

import convt
from convt.bench.peers import Array, Ready
from convt.bench.problems import Problem

__all__ = ["prepare", "prepare_gradients", "start"]


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


def prepare_gradients(problem: Problem, input: Array, filters: Array, gradient: Array) -> Ready:
    """By the vector-Jacobian product."""
    shape = problem.spec.output_shape
    options = (problem.strides, problem.padding, problem.data_format)

    def call() -> Any:
        output, pullback = convt.conv3d_transpose_vjp(input, filters, shape, *options)
        return (output, *pullback(gradient))

    return Ready(call, _same)


def _same(result: Any) -> Any:
    return result
