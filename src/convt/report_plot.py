"""The picture of a report: how often each output voxel is hit.

Constraints of this file: it is loaded when a picture is asked for, since it needs matplotlib; it
leaves `pyplot` alone, so no display is needed and no window opens. Of long axes the beginning is
drawn: inside, hits repeat with the stride.
"""

from __future__ import annotations

import io
import textwrap
from math import prod

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from convt.report_axes import AxisReport, evenness

__all__ = ["draw"]

Counts = npt.NDArray[np.int64]
Panel = tuple[AxisReport, AxisReport, AxisReport]  # rows, columns, and the axis that the plane cuts

_SHOWN = 128  # voxels of an axis that are drawn
_SLENDER = 2  # lengths of a plane's sides that differ by more are drawn equally long


class Picture(Figure):
    """A figure that notebooks show, whether or not they use `pyplot`."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def draw(reports: tuple[AxisReport, ...]) -> Figure:
    """Draw three planes through the middle, and say below whether hits are even."""
    depth, height, width = reports
    planes = [(height, width, depth), (depth, width, height), (depth, height, width)]
    most = prod(int(_shown(report).max(initial=0)) for report in reports)
    figure = Picture(figsize=(10.5, 4.4), dpi=150, layout="constrained")
    panels = list(figure.subplots(1, 3))
    drawn = [_draw(panel, plane, most) for panel, plane in zip(panels, planes, strict=True)]
    images = [image for image in drawn if image is not None]
    if images:
        figure.colorbar(images[0], ax=panels, shrink=0.7, label="taps", ticks=_whole_numbers())
    figure.suptitle("How often each output voxel is hit")
    figure.supxlabel(textwrap.fill(evenness(reports), 130), fontsize="small")
    return figure


def _draw(panel: Axes, plane: Panel, most: int) -> AxesImage | None:
    """Draw one plane; as a profile, and no image, where it is one voxel wide."""
    rows, columns, cut = plane
    if 0 in (report.axis.output for report in plane):
        panel.set_axis_off()
        panel.text(0.5, 0.5, "no outputs", ha="center", transform=panel.transAxes)
        return None
    middle = cut.axis.output // 2
    hits = np.outer(_shown(rows), _shown(columns)) * cut.hits(middle, middle + 1)
    panel.set_title(f"{cut.name} {middle:,} of {cut.axis.output:,}", fontsize="medium")
    panel.xaxis.set_major_locator(_whole_numbers())
    panel.yaxis.set_major_locator(_whole_numbers())
    if 1 in hits.shape:
        _profile(panel, hits.ravel(), columns if len(hits) == 1 else rows, most)
        return None
    panel.set_xlabel(_label(columns))
    panel.set_ylabel(_label(rows))
    slender = max(hits.shape) > _SLENDER * min(hits.shape)
    if slender:
        panel.set_box_aspect(1)
    return panel.imshow(hits, vmin=0, vmax=most, aspect="auto" if slender else "equal")


def _profile(panel: Axes, hits: Counts, along: AxisReport, most: int) -> None:
    panel.set_box_aspect(1)
    panel.stairs(hits, np.arange(len(hits) + 1) - 0.5, fill=True)
    panel.set_ylim(0, most * 1.05 or 1)
    panel.set_xlabel(_label(along))
    panel.set_ylabel("taps")


def _shown(report: AxisReport) -> Counts:
    return report.hits(0, min(report.axis.output, _SHOWN))


def _label(report: AxisReport) -> str:
    voxels = report.axis.output
    return report.name if voxels <= _SHOWN else f"{report.name}: the first {_SHOWN} of {voxels:,}"


def _whole_numbers() -> MaxNLocator:
    return MaxNLocator(integer=True, min_n_ticks=1)
