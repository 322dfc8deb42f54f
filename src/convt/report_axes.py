"""What a report says of one axis: allowed sizes, padding, and how evenly its outputs are hit.

Constraint of this file: everything follows from `spec` and `geometry`; sizes may be huge, so
nothing here counts voxel by voxel unless a range of them is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np
import numpy.typing as npt

from convt.geometry import Axis, axes
from convt.spec import AxisPadding, Spec, size_range

__all__ = ["AxisReport", "axis_reports", "evenness"]

_NAMES = ("depth", "height", "width")


@dataclass(frozen=True, slots=True)
class AxisReport:
    """One spatial axis of a problem."""

    name: str  # "depth", "height" or "width"
    axis: Axis
    allowed: tuple[int, int]  # the smallest and the largest output, in voxels
    padding: tuple[int, int]  # voxels that the forward convolution pads before and after the output

    @property
    def hits_inside(self) -> tuple[int, int] | None:
        """The fewest and the most taps that reach an output, away from the borders.

        None where there is no such place, since the kernel reaches past the whole input.
        """
        phases = [phase.taps for phase in self.axis.phases]
        if not phases or any(
            taps and taps[-1].shift - taps[0].shift >= self.axis.input for taps in phases
        ):
            return None
        counts = [len(taps) for taps in phases]
        return min(counts), max(counts)

    def hits(self, start: int = 0, stop: int | None = None) -> npt.NDArray[np.int64]:
        """Count the taps that reach each output from `start` to `stop`, borders included."""
        stop = self.axis.output if stop is None else stop
        counts = np.zeros(stop - start, np.int64)
        for segment in self.axis.segments(start, stop):
            first = segment.out_first - start
            counts[first :: self.axis.stride][: segment.count] = len(segment.taps)
        return counts

    def remedy(self) -> str:
        """Which kernel sizes would hit every output equally often."""
        stride, dilation = self.axis.stride, self.axis.dilation
        if gcd(stride, dilation) > 1:
            return f"no kernel size, since stride {stride} and dilation {dilation} share a factor"
        below = max(self.axis.kernel // stride, 1) * stride
        return f"kernel sizes divisible by the stride {stride}, such as {below} or {below + stride}"


def axis_reports(spec: Spec) -> tuple[AxisReport, ...]:
    """Report on depth, height and width of `spec`."""
    pads: tuple[AxisPadding, ...] = (
        (spec.padding,) * 3 if isinstance(spec.padding, str) else spec.padding
    )
    return tuple(_report(*item) for item in zip(_NAMES, axes(spec), pads, strict=True))


def _report(name: str, axis: Axis, padding: AxisPadding) -> AxisReport:
    allowed = size_range(
        size=axis.input,
        kernel=axis.kernel,
        stride=axis.stride,
        dilation=axis.dilation,
        padding=padding,
    )
    return AxisReport(name, axis, allowed, (axis.pad_before, _pad_after(axis, padding)))


def _pad_after(axis: Axis, padding: AxisPadding) -> int:
    if padding == "VALID":
        return 0
    if padding == "SAME":
        reach = (axis.input - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1
        return max(reach - axis.output, 0) - axis.pad_before
    return padding[1]


def evenness(reports: tuple[AxisReport, ...]) -> str:
    """Say whether outputs are hit equally often away from the borders, and what would be even."""
    counts = f"Taps that reach an output away from the borders: {_by_axis(reports, _taps)}."
    uneven = [r for r in reports if r.hits_inside and len(set(r.hits_inside)) > 1]
    if uneven:
        return (
            f"{counts} This is uneven, where checkerboard artefacts come from (Odena et al. 2016, "
            "distill.pub/2016/deconv-checkerboard). "
            f"Even would be {_by_axis(uneven, AxisReport.remedy)}."
        )
    inside = all(report.hits_inside for report in reports)
    return f"{counts} This is even: no checkerboard." if inside else counts


def _taps(report: AxisReport) -> str:
    if not report.axis.output:
        return "no output"
    if report.hits_inside is None:
        return "no output is, as the kernel reaches past the whole input"
    fewest, most = report.hits_inside
    return str(most) if fewest == most else f"{fewest} to {most}"


def _by_axis(reports: Sequence[AxisReport], say: Callable[[AxisReport], str]) -> str:
    """Join what is said of each axis, once for axes of which the same is said."""
    said: dict[str, list[str]] = {}
    for report in reports:
        said.setdefault(say(report), []).append(report.name)
    if len(said) == 1 and len(reports) == 3:
        return next(iter(said)) + " on each axis"
    return "; ".join(f"{text} ({', '.join(names)})" for text, names in said.items())
