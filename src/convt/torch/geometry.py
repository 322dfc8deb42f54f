"""What an operator is told beside its tensors, and the problem that it poses.

Constraints of this file: while a program is traced, sizes may be symbols, which stand for any size. Then
arithmetic alone is done on them and nothing is compared: problems are made of numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from convt.spec import Spec, make_convolution_spec, make_gradient_spec, make_spec
from convt.torch.views import DTYPES

__all__ = ["EXPLICIT", "Geometry", "convolution", "filter_gradient", "known", "transposed"]

EXPLICIT = "EXPLICIT"  # the padding where there are `pads`


class Geometry(NamedTuple):
    """What a transposed convolution shares with both of its derivatives."""

    strides: Sequence[int]  # depth, height, width
    padding: str  # "SAME", "VALID" or `EXPLICIT`
    pads: Sequence[int]  # before and after, axis by axis, if explicit; else none
    data_format: str  # "NDHWC" or "NCDHW"
    dilations: Sequence[int]  # depth, height, width
    groups: int

    @classmethod
    def of(cls, spec: Spec) -> Geometry:
        """The geometry of a problem."""
        rest = (spec.data_format, spec.dilations, spec.groups)
        if isinstance(spec.padding, str):
            return cls(spec.strides, spec.padding, (), *rest)
        d, h, w = spec.padding
        return cls(spec.strides, EXPLICIT, (*d, *h, *w), *rest)

    @property
    def arguments(self) -> dict[str, Any]:
        """The geometry as the rest of the package takes it, in that order."""
        pads = self.pads
        explicit = (pads[0:2], pads[2:4], pads[4:6])
        return {
            "strides": self.strides,
            "padding": explicit if self.padding == EXPLICIT else self.padding,
            "data_format": self.data_format,
            "dilations": self.dilations,
            "groups": self.groups,
        }

    @property
    def channel(self) -> int:
        """The axis of the channels."""
        return 1 if self.data_format == "NCDHW" else 4

    @property
    def first(self) -> int:
        """The axis of the depth."""
        return 2 if self.data_format == "NCDHW" else 1

    def output_shape(self, x: Sequence[Any], w: Sequence[Any], asked: Any) -> list[Any]:
        """The transposed convolution's shape: what is asked for, inferred where that is None or -1."""
        found = [-1 if size is None else size for size in asked or (None,) * 5]
        if len(found) != 5:
            raise ValueError(f"output_shape must be None or 5 integers, got {len(found)}")
        found[0] = _given(found[0], x[0])
        found[self.channel] = _given(found[self.channel], w[3])
        for axis in range(3):
            place, stride = self.first + axis, self.strides[axis]
            size = x[place] * stride
            if self.padding != "SAME":
                size += self._reach(w, axis) - stride - self._padded(axis)
            found[place] = _given(found[place], size)
        return found

    def input_shape(self, y: Sequence[Any], w: Sequence[Any]) -> list[Any]:
        """The convolution's shape, for filters as the transposed one has them."""
        found = list(y)
        found[self.channel] = w[4] * self.groups
        for axis in range(3):
            place, stride = self.first + axis, self.strides[axis]
            size = y[place]
            if self.padding != "SAME":
                size += self._padded(axis) - self._reach(w, axis) + 1
            found[place] = -(-size // stride)
        return found

    def _reach(self, w: Sequence[Any], axis: int) -> Any:
        """Voxels from the kernel's first tap to its last."""
        return (w[axis] - 1) * self.dilations[axis] + 1

    def _padded(self, axis: int) -> int:
        return sum(self.pads[2 * axis : 2 * axis + 2])


def _given(asked: Any, inferred: Any) -> Any:
    return inferred if isinstance(asked, int) and asked == -1 else asked


def known(*shapes: Sequence[Any]) -> bool:
    """Whether all sizes are numbers."""
    return all(type(size) is int for shape in shapes for size in shape)


def transposed(x: Any, w: Any, bias: Any, shape: Sequence[int], geometry: Geometry) -> Spec:
    """The problem of a transposed convolution; errors as `convt.spec.make_spec` raises them."""
    return _transposed(*_operands(x, w, bias), tuple(shape), geometry)


def convolution(y: Any, w: Any, bias: Any, shape: Sequence[int], geometry: Geometry) -> Spec:
    """The problem of a convolution, for filters as the transposed one has them."""
    spec = _convolution(*_operands(y, w, bias), geometry)
    if spec.output_shape != tuple(shape):
        raise ValueError(f"the shape of the result is {spec.output_shape}, not {tuple(shape)}")
    return spec


def filter_gradient(x: Any, y: Any, shape: Sequence[int], geometry: Geometry) -> Spec:
    """The problem of the transposed convolution whose filters' gradient is computed."""
    return _filter_gradient(*_operands(x, y, None)[:4], tuple(shape), geometry)


Dtype = np.dtype[Any]
Shape = tuple[int, ...]


def _operands(a: Any, b: Any, bias: Any) -> tuple[Shape, Dtype, Shape, Dtype, Any, Any]:
    both = (tuple(a.shape), DTYPES[a.dtype], tuple(b.shape), DTYPES[b.dtype])
    return (*both, None, None) if bias is None else (*both, tuple(bias.shape), DTYPES[bias.dtype])


@lru_cache(maxsize=1024)  # a network repeats its few problems
def _transposed(
    x: Shape, x_dtype: Dtype, w: Shape, w_dtype: Dtype, bias: Any, bias_dtype: Any,
    shape: Shape, geometry: Geometry,
) -> Spec:  # fmt: skip
    return make_spec(
        input_shape=x, input_dtype=x_dtype, filters_shape=w, filters_dtype=w_dtype,
        bias_shape=bias, bias_dtype=bias_dtype, output_shape=shape, **geometry.arguments,
    )  # fmt: skip


@lru_cache(maxsize=1024)
def _convolution(
    y: Shape, y_dtype: Dtype, w: Shape, w_dtype: Dtype, bias: Any, bias_dtype: Any,
    geometry: Geometry,
) -> Spec:  # fmt: skip
    groups = geometry.groups
    w = (*w[:3], w[3] // groups, w[4] * groups) if len(w) == 5 else w
    return make_convolution_spec(
        input_shape=y, input_dtype=y_dtype, filters_shape=w, filters_dtype=w_dtype,
        bias_shape=bias, bias_dtype=bias_dtype, **geometry.arguments,
    )  # fmt: skip


@lru_cache(maxsize=1024)
def _filter_gradient(
    x: Shape, x_dtype: Dtype, y: Shape, y_dtype: Dtype, shape: Shape, geometry: Geometry
) -> Spec:
    return make_gradient_spec(
        input_shape=x, input_dtype=x_dtype, gradient_shape=y, gradient_dtype=y_dtype,
        filters_shape=shape, **geometry.arguments,
    )  # fmt: skip
