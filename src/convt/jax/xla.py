"""The same operations in XLA's own convolution: what devices other than the CPU run.

Constraints of this file: one formula, that of the transposed convolution; the other two operations are its
transposes, which JAX derives. Crop and padding come from the `Spec`, so results have TensorFlow's meaning.
"""

from __future__ import annotations

from typing import Any

import jax
from jax import lax
from jax import numpy as jnp

from convt.spec import Spec
from convt.trilinear import Kind, Problem

__all__ = ["compute"]


def compute(kind: Kind, problem: Problem, a: Any, b: Any, bias: Any = None) -> Any:
    """Compute what `Problem.compute` does, for JAX arrays."""
    spec = problem.spec
    shape, dtype = problem.shape(kind), spec.dtype
    if 0 in (*shape, *a.shape, *b.shape):
        result = jnp.zeros(shape, dtype)
    elif kind == "output":
        result = _transposed(spec, a, b)
    else:
        wanted = jax.ShapeDtypeStruct(shape, dtype)
        if kind == "input":
            turned = jax.linear_transpose(lambda x: _transposed(spec, x, a), wanted)
        else:
            turned = jax.linear_transpose(lambda w: _transposed(spec, a, w), wanted)
        (result,) = turned(b)
    return result if bias is None else result + _per_channel(spec, bias)


def _transposed(spec: Spec, x: Any, w: Any) -> Any:
    """Convolve the zero-filled input with the filters turned round."""
    padding = []
    axes = zip(
        spec.input_size, spec.output_size, spec.kernel, spec.strides, spec.dilations,
        spec.pad_before, strict=True,
    )  # fmt: skip
    for size, out, kernel, stride, dilation, before in axes:
        reach = (kernel - 1) * dilation
        first = reach - before
        padding.append((first, out + reach - first - ((size - 1) * stride + 1)))
    layout = spec.data_format
    return lax.conv_general_dilated(
        x, jnp.flip(w, (0, 1, 2)),
        window_strides=(1, 1, 1),
        padding=padding,
        lhs_dilation=spec.strides,
        rhs_dilation=spec.dilations,
        dimension_numbers=(layout, "DHWOI", layout),
        feature_group_count=spec.groups,
    )  # fmt: skip


def _per_channel(spec: Spec, bias: Any) -> Any:
    return bias if spec.data_format == "NDHWC" else bias[:, None, None, None]
