"""`ConvTranspose3D`: filters bound once, called with many inputs.

Filters are packed when a kernel first asks for them and kept in that order; plans are remembered by the
input's shape and strides, so a call in a loop finds everything ready.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from convt import reference, run
from convt.algorithm import get_algorithm, parse_algorithm
from convt.api import check_out, choose_plan, compiled
from convt.arguments import (
    FILTERS_LAYOUT,
    parse_data_format,
    parse_dtype,
    parse_integer,
    parse_output_shape,
    parse_padding,
    parse_per_axis,
    parse_shape,
)
from convt.family import Access
from convt.memory import Block
from convt.plan import Plan
from convt.spec import Spec, make_spec
from convt.threads import get_num_threads, parse_threads

__all__ = ["ConvTranspose3D"]

Array = npt.NDArray[Any]
_REMEMBERED = 256  # calls of different shapes whose plans are kept
_NOTHING = Block(np.empty(0, np.uint8), 0)


class _Ready(NamedTuple):
    """What calls with inputs of one shape and layout share."""

    spec: Spec
    shape: tuple[int, ...]  # of the output
    plan: Plan | None  # None: by the definition
    packed: Block


class ConvTranspose3D:
    """A transposed 3-D convolution with its filters bound, as a trained layer has them.

    Parameters
    ----------
    filters : array_like
        Shape ``[depth, height, width, out_channels, in_channels / groups]``; copied.
    strides, padding, data_format, dilations, bias, groups
        As for `convt.conv3d_transpose`.
    threads : int, optional
        Threads that calls may use; default: what `convt.get_num_threads` says at each call.
    algorithm : {"auto", "direct", "fast"}, optional
        As for `convt.conv3d_transpose`; default: what `convt.get_algorithm` says at each call.

    Notes
    -----
    Safe to call from many threads at once, and picklable; packed filters are not pickled. Where minimal
    filtering serves, they take several times the memory of the filters, of up to 128 MiB at its points.

    Raises
    ------
    TypeError, ValueError
        As `convt.conv3d_transpose` does: for the filters when bound, for an input when called.

    Examples
    --------
    >>> import numpy as np
    >>> import convt
    >>> up = convt.ConvTranspose3D(np.ones((2, 2, 2, 16, 32), np.float32), strides=2, padding="VALID")
    >>> up(np.ones((1, 8, 8, 8, 32), np.float32)).shape
    (1, 16, 16, 16, 16)
    >>> up
    ConvTranspose3D(32 -> 16, kernel (2, 2, 2), strides (2, 2, 2), VALID, NDHWC, float32)
    """

    def __init__(
        self,
        filters: npt.ArrayLike,
        strides: Any,
        padding: Any = "SAME",
        data_format: str | None = "NDHWC",
        dilations: Any = None,
        *,
        bias: npt.ArrayLike | None = None,
        groups: int = 1,
        threads: int | None = None,
        algorithm: str | None = None,
    ) -> None:
        w = np.asarray(filters)
        dtype = parse_dtype("filters", w.dtype)
        parse_shape("filters", w.shape, FILTERS_LAYOUT)
        b = None if bias is None else np.asarray(bias)
        if b is not None:
            parse_dtype("bias", b.dtype, like=dtype)
        self._filters: Array = np.array(w, dtype, order="C")
        self._bias: Array | None = None if b is None else np.array(b, dtype, order="C")
        self._filters.flags.writeable = False
        self._data_format = parse_data_format(data_format)
        self._strides = parse_per_axis("strides", strides, self._data_format)
        self._dilations = parse_per_axis("dilations", dilations, self._data_format)
        self._padding = parse_padding(padding)
        self._groups = parse_integer("groups", groups, 1)
        self._threads = None if threads is None else parse_threads(threads)
        self._algorithm = None if algorithm is None else parse_algorithm(algorithm)
        self._finite = bool(np.isfinite(self._filters).all())
        self._forget()

    def __call__(
        self,
        input: npt.ArrayLike,
        output_shape: Any = None,
        *,
        out: Array | None = None,
        threads: int | None = None,
    ) -> Array:
        """Compute the transposed convolution of `input`; parameters as for `convt.conv3d_transpose`."""
        x = np.asarray(input)
        count = self._threads or get_num_threads() if threads is None else parse_threads(threads)
        shape = parse_output_shape(output_shape, self._data_format)
        algorithm = self._algorithm or get_algorithm()
        key = (x.shape, x.strides, x.dtype, shape, count, algorithm)
        ready = self._ready.get(key) if out is None else None
        if ready is None:
            ready = self._prepare(x, shape, out, count, algorithm)
            if out is None:
                if len(self._ready) >= _REMEMBERED:
                    self._ready.clear()
                self._ready[key] = ready
        y = run.empty_output(ready.shape, self._filters.dtype) if out is None else out
        if ready.plan is None:
            return self._define(ready.spec, x, y)
        run.execute(ready.plan, x, ready.packed, self._bias, y)
        return y

    def _prepare(
        self, x: Array, output_shape: Any, out: Array | None, threads: int, algorithm: str
    ) -> _Ready:
        spec = make_spec(
            input_shape=x.shape,
            input_dtype=x.dtype,
            filters_shape=self._filters.shape,
            filters_dtype=self._filters.dtype,
            output_shape=output_shape,
            strides=self._strides,
            padding=self._padding,
            data_format=self._data_format,
            dilations=self._dilations,
            bias_shape=None if self._bias is None else self._bias.shape,
            bias_dtype=None if self._bias is None else self._bias.dtype,
            groups=self._groups,
        )
        if out is not None:
            check_out(out, spec, {"input": x})
        if not compiled():
            return _Ready(spec, spec.output_shape, None, _NOTHING)
        access = Access.of(spec, x, self._filters, out)
        finite = self._finite
        plan = choose_plan(spec, access, threads, lambda: finite, algorithm, bound=True)
        return _Ready(spec, spec.output_shape, plan, self._packed(plan, threads))

    def _packed(self, plan: Plan, threads: int) -> Block:
        """The filters in the order of the plan's kernel, packed once."""
        kinds = plan.filtered and plan.filtered.kinds  # which decide where each phase's filters are
        key = (plan.pack, plan.transform, kinds, plan.computed.filters_shape)
        packed = self._orders.get(key)
        if packed is None:
            packed = self._orders[key] = run.pack_filters(plan, self._filters, threads)
        return packed

    def _define(self, spec: Spec, x: Array, y: Array) -> Array:
        """Fill `y` by the definition, where no code can be generated."""
        y[...] = reference.conv3d_transpose(
            x, self._filters, spec.output_shape, spec.strides, spec.padding, spec.data_format,
            spec.dilations, bias=self._bias, groups=spec.groups,
        )  # fmt: skip
        return y

    def _forget(self) -> None:
        self._ready: dict[Any, _Ready] = {}
        self._orders: dict[Any, Block] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("_ready", "_orders")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def __repr__(self) -> str:
        kernel, (outputs, inputs) = self._filters.shape[:3], self._filters.shape[3:]
        groups = f", groups {self._groups}" if self._groups > 1 else ""
        return (
            f"ConvTranspose3D({inputs * self._groups} -> {outputs}, kernel {kernel}, "
            f"strides {self._strides}, {self._padding}, {self._data_format}, {self._filters.dtype}{groups})"
        )
