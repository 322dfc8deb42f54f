"""The one form behind the three operations, for frameworks that differentiate them.

``sum(output * conv3d_transpose(input, filters))`` is linear in each of its three arrays. Its derivative in
one is computed from the other two: in the output by the transposed convolution, in the input by the
convolution, in the filters by the filters' gradient. So derivatives of any order stay within the three.

Constraints of this file: it computes on NumPy arrays and knows no framework; filters are ``[depth, height,
width, out_channels, in_channels / groups]`` in all three operations.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from convt.algorithm import parse_algorithm
from convt.api import conv3d_transpose
from convt.gradient import conv3d, conv3d_transpose_filter_gradient
from convt.layouts import convolution_filters
from convt.spec import Spec, adjoint
from convt.threads import parse_threads

__all__ = [
    "KINDS",
    "Kind",
    "Problem",
    "decode",
]

Array = npt.NDArray[Any]
Kind: TypeAlias = Literal["input", "filters", "output"]
KINDS: tuple[Kind, ...] = ("input", "filters", "output")


@dataclass(frozen=True, slots=True)
class Problem:
    """One form: the sizes of its three arrays, and how to compute."""

    spec: Spec  # of the transposed convolution, without bias
    threads: int | None = None  # None: the process' own, when it is computed
    algorithm: str | None = None  # likewise

    def __post_init__(self) -> None:
        if self.threads is not None:
            parse_threads(self.threads)
        if self.algorithm is not None:
            parse_algorithm(self.algorithm)

    @classmethod
    def of(cls, spec: Spec, threads: int | None, algorithm: str | None) -> Problem:
        """The form of a transposed convolution or of a convolution."""
        if spec.forward:
            spec = adjoint(spec)
        return cls(replace(spec, bias=False) if spec.bias else spec, threads, algorithm)

    def shape(self, kind: Kind) -> tuple[int, ...]:
        """The shape of the form's array of that kind."""
        shape: tuple[int, ...] = getattr(self.spec, f"{kind}_shape")
        return shape

    def batched(self, count: int) -> Problem:
        """The same form with `count` times the batch."""
        return replace(self, spec=replace(self.spec, batch=self.spec.batch * count))

    def compute(
        self, kind: Kind, a: Array, b: Array, bias: Array | None = None, out: Array | None = None
    ) -> Array:
        """Compute the form's derivative in the array of that kind.

        Parameters
        ----------
        kind : {"input", "filters", "output"}
            What is computed.
        a, b : numpy.ndarray
            The other two arrays, in the order of `KINDS`.
        bias : numpy.ndarray, optional
            One value per channel of the result, which is no filters then.
        out : numpy.ndarray, optional
            Where to write the result.
        """
        s = self.spec
        geometry = (s.strides, s.padding, s.data_format, s.dilations)
        shared: dict[str, Any] = {"groups": s.groups, "out": out, "threads": self.threads}
        if kind == "filters":
            return conv3d_transpose_filter_gradient(a, b, s.filters_shape, *geometry, **shared)
        shared |= {"bias": bias, "algorithm": self.algorithm}
        if kind == "input":
            return conv3d(b, convolution_filters(a, s.groups), *geometry, **shared)
        return conv3d_transpose(a, b, s.output_shape, *geometry, **shared)

    def encode(self, kind: Kind) -> str:
        """The problem and what is computed of it as text, which `decode` reads in any process."""
        return json.dumps({"kind": kind, **asdict(self)}, default=str)


@lru_cache(maxsize=1024)
def decode(text: str | bytes) -> tuple[Kind, Problem]:
    """The kind and the problem that `Problem.encode` wrote.

    Examples
    --------
    >>> from convt.spec import make_spec
    >>> spec = make_spec(
    ...     input_shape=(1, 4, 4, 4, 8), input_dtype="bfloat16",
    ...     filters_shape=(3, 3, 3, 16, 8), filters_dtype="bfloat16",
    ...     output_shape=None, strides=2, padding="SAME", data_format=None, dilations=None)
    >>> problem = Problem(spec, threads=2)
    >>> decode(problem.encode("input")) == ("input", problem)
    True
    """
    fields = json.loads(text)
    spec = {name: _tuples(value) for name, value in fields["spec"].items()}
    spec["dtype"] = np.dtype(spec["dtype"])
    return fields["kind"], Problem(Spec(**spec), fields["threads"], fields["algorithm"])


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
