"""What a call says beside its tensors, and the problem it poses once sizes are known.

Constraints of this file: it sees shapes and dtypes, no tensor. In a graph, sizes may be known only when the
graph runs, so the same few lines check a call when it is traced, as far as they can, and when it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from convt.algorithm import parse_algorithm
from convt.arguments import (
    Padding,
    Triple,
    parse_data_format,
    parse_integer,
    parse_padding,
    parse_per_axis,
)
from convt.spec import make_convolution_spec, make_gradient_spec, make_spec
from convt.threads import parse_threads
from convt.trilinear import Kind, Problem

__all__ = ["Geometry", "Known"]


class Known(NamedTuple):
    """What is known of a tensor."""

    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class Geometry:
    """Arguments that are no arrays and hold for input, filters and output alike."""

    strides: Triple
    padding: Padding
    data_format: str
    dilations: Triple
    groups: int
    threads: int | None
    algorithm: str | None

    @classmethod
    def of(
        cls,
        strides: Any,
        padding: Any,
        data_format: Any,
        dilations: Any,
        groups: Any,
        threads: Any,
        algorithm: Any = None,
    ) -> Geometry:
        """Check arguments as the user gave them."""
        data_format = parse_data_format(data_format)
        return cls(
            parse_per_axis("strides", strides, data_format),
            parse_padding(padding),
            data_format,
            parse_per_axis("dilations", dilations, data_format),
            parse_integer("groups", groups, 1),
            None if threads is None else parse_threads(threads),
            None if algorithm is None else parse_algorithm(algorithm),
        )

    def problem(self, kind: Kind, a: Any, b: Any, sizes: Any = None, bias: Any = None) -> Problem:
        """The problem of computing `kind` from the other two, `a` and `b`, in the order of `KINDS`.

        Parameters
        ----------
        kind : {"input", "filters", "output"}
            What is computed.
        a, b, bias
            Anything with a shape and a dtype.
        sizes : sequence of int, optional
            The five sizes of the result, -1 where they are inferred; not asked for an input.

        Raises
        ------
        TypeError, ValueError
            As `convt.conv3d_transpose` and its companions do.
        """
        shared: dict[str, Any] = {
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
            "dilations": self.dilations,
            "groups": self.groups,
        }
        if kind == "filters":
            spec = make_gradient_spec(
                input_shape=a.shape,
                input_dtype=a.dtype,
                gradient_shape=b.shape,
                gradient_dtype=b.dtype,
                filters_shape=sizes,
                **shared,
            )
            return Problem.of(spec, self.threads, self.algorithm)
        if bias is not None:
            shared |= {"bias_shape": bias.shape, "bias_dtype": bias.dtype}
        if kind == "output":
            spec = make_spec(
                input_shape=a.shape,
                input_dtype=a.dtype,
                filters_shape=b.shape,
                filters_dtype=b.dtype,
                output_shape=sizes,
                **shared,
            )
        else:
            spec = make_convolution_spec(
                input_shape=b.shape,
                input_dtype=b.dtype,
                filters_shape=_convolution_shape(a.shape, self.groups),
                filters_dtype=a.dtype,
                **shared,
            )
        return Problem.of(spec, self.threads, self.algorithm)

    def result_shape(
        self, kind: Kind, a: Known, b: Known, sizes: Sequence[int | None] | None, bias: Any
    ) -> tuple[int | None, ...]:
        """The result's shape as far as it is known; errors that show already are raised.

        The batch may be unknown, which has no part in other sizes. Where others are, so is the result's,
        but for what `sizes` says.
        """
        inferred = sizes is None or kind == "input"
        asked = (None,) * 5 if sizes is None else tuple(sizes)
        batch = next(
            (t.shape[0] for t in _batched(kind, a, b) if t.shape and t.shape[0] is not None), None
        )
        if batch is None and kind == "output" and asked[0] not in (None, -1):
            batch = asked[0]
        a, b = (t._replace(shape=_filled(t, kind, i, batch)) for i, t in enumerate((a, b)))
        if None in (*a.shape, *b.shape) or (None in asked and not inferred):
            return tuple(None if size == -1 else size for size in asked)
        found = self.problem(kind, a, b, sizes, bias).shape(kind)
        return (batch, *found[1:]) if kind != "filters" else found


def _batched(kind: Kind, a: Known, b: Known) -> tuple[Known, ...]:
    """Those of `a` and `b` that have a batch, which is all but filters."""
    return {"output": (a,), "input": (b,), "filters": (a, b)}[kind]


def _filled(tensor: Known, kind: Kind, index: int, batch: int | None) -> tuple[int | None, ...]:
    """The shape, with a stand-in for a batch that is not known."""
    if not tensor.shape or index == {"output": 1, "input": 0}.get(kind):
        return tensor.shape or (None,)
    first = tensor.shape[0]
    return ((batch if batch is not None else 1) if first is None else first, *tensor.shape[1:])


def _convolution_shape(shape: Sequence[int], groups: int) -> tuple[int, ...]:
    """What `convolution_filters` makes of filters of this shape."""
    *kernel, out, into = shape
    return (*kernel, out // groups, groups * into)
