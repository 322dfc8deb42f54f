"""JAX: XLA's convolution of a dilated input with mirrored filters, compiled for the shapes."""

from __future__ import annotations

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convt.bench.peers import Array, Ready
from convt.bench.problems import Problem

__all__ = ["prepare", "start"]


def start(threads: int, variant: str) -> None:
    """Keep the process to so many processors: XLA has a thread for each that it sees."""
    del variant
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def prepare(problem: Problem, input: Array, filters: Array, bound: bool) -> Ready:
    """Arrays in the problem's own layout, and filters in theirs."""
    del bound
    spec = problem.spec
    x, w = jnp.asarray(input), jnp.asarray(filters)
    axes = zip(
        spec.input_size, spec.strides, spec.kernel, spec.pad_before, spec.output_size, strict=True
    )
    pads = [(k - 1 - b, o + b - (i - 1) * s - 1) for i, s, k, b, o in axes]
    layout = problem.data_format

    def operation(x: Any, w: Any) -> Any:
        return jax.lax.conv_general_dilated(
            x,
            w[::-1, ::-1, ::-1],
            window_strides=(1, 1, 1),
            padding=pads,
            lhs_dilation=spec.strides,
            dimension_numbers=(layout, "DHWOI", layout),
        )

    compiled = jax.jit(operation).lower(x, w).compile()
    return Ready(lambda: compiled(x, w).block_until_ready(), np.asarray)
