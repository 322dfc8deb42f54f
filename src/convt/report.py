"""`explain`: what a call would do, told from shapes alone.

Constraints of this file: no array's memory is read, nothing is computed or compiled. Arguments are
checked and planned by the same stages as a call's, so what the call refuses is refused here in the
same words. How a report looks is left to `report_tables` and `report_plot`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from convt import jit, target
from convt.algorithm import parse_algorithm
from convt.family import Access
from convt.plan import Plan, make_plan
from convt.report_axes import AxisReport, axis_reports
from convt.report_operands import fill, laid_out, parse_operand
from convt.report_tables import as_html, as_text, tables, title
from convt.spec import Spec, make_spec
from convt.threads import get_num_threads, parse_threads

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Report", "explain"]


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """How one problem is computed and what it costs; `explain` makes it.

    It prints as text, in notebooks as HTML, and `plot` draws it. Sizes are in elements or voxels,
    unless a name says bytes.
    """

    plan: Plan
    compiled: bool  # False: this process can't run kernels, so the definition in NumPy answers

    @property
    def spec(self) -> Spec:
        """The problem, checked and with every size filled in."""
        return self.plan.spec

    @property
    def axes(self) -> tuple[AxisReport, ...]:
        """Depth, height and width: allowed outputs, padding, phases and hits."""
        return axis_reports(self.spec)

    @property
    def multiplications(self) -> int:
        """The products of the definition: an input element times a tap that lands in the output."""
        return self.plan.products

    @property
    def zero_insertion_multiplications(self) -> int:
        """The products of a plain convolution over the input with zeros inserted and around it."""
        spec = self.spec
        voxels = spec.batch * prod(spec.output_size) * prod(spec.kernel)
        return voxels * spec.in_channels * (spec.out_channels // spec.groups)

    @property
    def column_buffer_bytes(self) -> int:
        """The memory of one batch entry's products of taps and input voxels, before any overlap."""
        spec = self.spec
        values = prod(spec.input_size) * prod(spec.kernel) * spec.out_channels
        return min(spec.batch, 1) * values * spec.dtype.itemsize

    @property
    def input_bytes(self) -> int:
        return prod(self.spec.input_shape) * self.spec.dtype.itemsize

    @property
    def filters_bytes(self) -> int:
        return prod(self.spec.filters_shape) * self.spec.dtype.itemsize

    @property
    def bias_bytes(self) -> int:
        return self.spec.out_channels * self.spec.dtype.itemsize if self.spec.bias else 0

    @property
    def output_bytes(self) -> int:
        return prod(self.spec.output_shape) * self.spec.dtype.itemsize

    @property
    def workspace_bytes(self) -> int:
        """Memory beside input, filters and output."""
        return self.plan.workspace_bytes

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw how often each output voxel is hit: by how many taps, on planes through the middle.

        Parameters
        ----------
        path : path, optional
            Where to write the picture; the suffix gives the format. An existing file is replaced.

        Returns
        -------
        matplotlib.figure.Figure
            Belongs to no window and no `pyplot` session.

        Raises
        ------
        ImportError
            Without matplotlib, which ``pip install "convt[cli]"`` brings.

        Examples
        --------
        >>> import convt
        >>> report = convt.explain((1, 4, 4, 4, 1), (3, 3, 3, 1, 1), None, strides=2)
        >>> report.plot("hits.png")  # doctest: +SKIP
        """
        try:
            from convt.report_plot import draw
        except ModuleNotFoundError as error:
            raise ImportError('a picture needs matplotlib: pip install "convt[cli]"') from error
        figure = draw(self.axes)
        if path is not None:
            figure.savefig(path)
        return figure

    def __str__(self) -> str:
        return as_text(title(self), tables(self))

    __repr__ = __str__  # at a prompt, the table is what was asked for

    def _repr_html_(self) -> str:
        return as_html(title(self), tables(self))


def explain(
    input: Any,
    filters: Any,
    output_shape: Any,
    strides: Any,
    padding: Any = "SAME",
    data_format: str | None = "NDHWC",
    dilations: Any = None,
    name: str | None = None,
    *,
    bias: Any = None,
    groups: int = 1,
    dtype: Any = "float32",
    threads: int | None = None,
    algorithm: str | None = None,
) -> Report:
    """Tell what `convt.conv3d_transpose` would do with these arguments, without doing it.

    Parameters
    ----------
    input, filters, bias : array_like, or its shape
        Only shape, dtype, strides and byte order count; memory is not read.
    output_shape, strides, padding, data_format, dilations, name, groups, threads, algorithm
        As for `convt.conv3d_transpose`.
    dtype : dtype, default "float32"
        Of operands that are given as shapes, where none is an array: "float16", "bfloat16",
        "float32" or "float64". Next to an array, shapes take the array's.

    Returns
    -------
    Report
        Prints, per axis, allowed outputs, padding, phases and taps; multiplications, bytes and
        workspace; the kernel chosen and why. Filters are taken to be finite, and the output to be
        a new array.

    Raises
    ------
    TypeError, ValueError
        As `convt.conv3d_transpose` does, in the same words.

    Examples
    --------
    >>> import convt
    >>> report = convt.explain((1, 4, 4, 4, 8), (3, 3, 3, 16, 8), None, strides=2)
    >>> report.spec.output_shape
    (1, 8, 8, 8, 16)
    >>> report.axes[0].allowed
    (7, 8)
    >>> report.multiplications, report.zero_insertion_multiplications
    (170368, 1769472)
    """
    del name
    b = None if bias is None else parse_operand(bias)
    x, w, b = fill((parse_operand(input), parse_operand(filters), b), dtype)
    spec = make_spec(
        input_shape=x.shape,
        input_dtype=x.dtype,
        filters_shape=w.shape,
        filters_dtype=w.dtype,
        output_shape=output_shape,
        strides=strides,
        padding=padding,
        data_format=data_format,
        dilations=dilations,
        bias_shape=None if b is None else b.shape,
        bias_dtype=None if b is None else b.dtype,
        groups=groups,
    )
    count = get_num_threads() if threads is None else parse_threads(threads)
    access = Access.of(spec, laid_out(x, spec.input_shape), w)
    algorithm = parse_algorithm(algorithm)
    plan = make_plan(spec, target.host(), access, count, algorithm=algorithm, bound=False)
    return Report(plan, jit.can_execute())
