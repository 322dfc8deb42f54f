"""Two pictures of a run: how much faster convt is, and how near it comes to what the machine can do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from convt.bench.peers import BOUND, GIVEN
from convt.bench.results import Results, Row, problem_of
from convt.bench.tables import times

__all__ = ["draw"]

_COLORS = {GIVEN: "#1f6f8b", BOUND: "#e07a3f"}
_LABELS = {GIVEN: "filters with each call", BOUND: "filters bound beforehand"}
_INK, _GREY = "#222222", "#888888"
_COLORS_OF_RICH = {True: "#1f6f8b", False: "#c8553d"}


def draw(results: Results, folder: Path) -> list[Path]:
    """Write ``speedup.png`` and ``roofline.png`` into `folder`, from the rows on the most threads.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        import matplotlib.figure
    except ModuleNotFoundError as error:
        raise ImportError(f'pictures need {error.name}: pip install "convt[cli]"') from error
    del matplotlib
    most = max((row.threads for row in results.rows), default=0)
    rows = [row for row in results.rows if row.threads == most]
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, picture in (("speedup.png", speedup), ("roofline.png", roofline)):
        figure = picture(results, rows)
        paths.append(folder / name)
        figure.savefig(paths[-1])
    return paths


def speedup(results: Results, rows: Sequence[Row]) -> Any:
    """Bars: the fastest other library's time over convt's, for each shape and setting."""
    rows = [row for row in rows if row.best()]
    figure, axes = _figure(9, 1.8 + 0.32 * max(len(rows), 1))
    for place, setting in ((-0.2, GIVEN), (0.2, BOUND)):
        _bars(axes, results, rows, setting, place)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.8), max(high, 1.5) * 3)  # room for the names beside the bars
    axes.axvline(1, color=_INK, linewidth=1)
    axes.set_yticks(range(len(rows)), [row.problem for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    _plain_numbers(axes.xaxis)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_xlabel("time of the fastest other library, as a multiple of convt's (logarithmic)")
    title = f"convt against the fastest other library of each shape, {_threads(rows)}"
    axes.set_title(title, pad=30)  # above the legend
    above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1)}
    axes.legend(handles=_keys(), ncols=2, frameon=False, **above)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def _keys() -> list[Any]:
    """What the colours of the bars mean."""
    from matplotlib.patches import Patch

    return [Patch(color=color, label=_LABELS[setting]) for setting, color in _COLORS.items()]


def _bars(axes: Any, results: Results, rows: Sequence[Row], setting: str, place: float) -> None:
    for index, row in enumerate(rows):
        best = row.best(setting)
        if best is None:
            continue
        # From 1 outwards, so that a bar's length is the logarithm of the ratio.
        axes.barh(index + place, best.ratio - 1, 0.36, left=1, color=_COLORS[setting])
        text = f" {times(best.ratio)}  {results.peers.get(best.peer, best.peer)}"
        x = max(best.ratio, 1)
        axes.text(x, index + place, text, va="center", ha="left", fontsize=7.5, color=_INK)


def roofline(results: Results, rows: Sequence[Row]) -> Any:
    """Points: effective rate against arithmetic intensity, below the roof of peak and copy bandwidth.

    A point's height is its share of the peak measured beside it, times the median peak of the run, so that
    the machine's moods don't move it. Variants of a shape would lie on top of it and are left out.
    """
    del results
    rows = [row for row in rows if _share(row) and row.problem == problem_of(row).base]
    figure, axes = _figure(9, 6)
    if not rows:
        return figure
    low, high = (choose(row.intensity for row in rows) for choose in (min, max))
    peak = median(row.peak_flops for row in rows) / 1e9
    slowest = min(peak * _share(row) for row in rows)
    fastest = max(peak, *(peak * _share(row) for row in rows))  # fewer products go past the roof
    memory = median(row.copy_bytes for row in rows) / 1e9
    limits = {
        "xlim": (min(low, peak / memory) / 3, high * 2),
        "ylim": (slowest / 2.5, fastest * 1.5),
    }
    axes.set(xscale="log", yscale="log", **limits)
    for rich, color in _COLORS_OF_RICH.items():
        chosen = [row for row in rows if problem_of(row).rich == rich]
        points = ([row.intensity for row in chosen], [peak * _share(row) for row in chosen])
        label = "32 channels or more on both sides" if rich else "fewer channels"
        axes.scatter(*points, s=34, color=color, label=label, zorder=3, edgecolor="white")
    for axis in (axes.xaxis, axes.yaxis):
        _plain_numbers(axis)
    axes.set_xlabel("multiplications and additions per byte of input, filters and output")
    axes.set_ylabel("effective GFLOP/s: of the definition's multiplications and additions")
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.legend(loc="lower right")
    figure.suptitle(f"convt against the limits of this machine, {_threads(rows)}")
    figure.canvas.draw()  # the layout is final, so that places can be told in pixels
    figure.set_layout_engine("none")
    _roof(axes, peak, memory)
    _name_points(axes, rows, [(row.intensity, peak * _share(row)) for row in rows])
    return figure


def _figure(width: float, height: float) -> tuple[Any, Any]:
    """A figure that needs no display, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _plain_numbers(axis: Any) -> None:
    """Label a logarithmic axis with numbers as they are written."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _threads(rows: Sequence[Row]) -> str:
    count = rows[0].threads if rows else 0
    return f"{count} thread{'s' * (count != 1)}"


def _share(row: Row) -> float:
    """The share of the peak in convt's faster setting; 0 if it was not timed."""
    return max((own.of_peak for own in row.own), default=0.0)


def _roof(axes: Any, peak: float, memory: float) -> None:
    """The roof, and what its two parts are."""
    low, high = axes.get_xlim()
    bottom, _ = axes.get_ylim()
    x = np.array([low, peak / memory, high])
    axes.plot(x, np.minimum(peak, memory * x), color=_INK, linewidth=1.5, zorder=2)
    note = {"color": _INK, "fontsize": 9, "va": "bottom"}
    text = f"multiply-add peak {peak:.0f} GFLOP/s"
    axes.text(peak / memory * 1.1, peak * 1.06, text, ha="left", **note)
    start = max(low, bottom / memory) * 1.08
    ends = axes.transData.transform([(v, memory * v) for v in (start, 2 * start)])
    angle = np.degrees(np.arctan2(*(ends[1] - ends[0])[::-1]))
    text = f"copied memory {memory:.0f} GB/s"
    turned = {"rotation": angle, "rotation_mode": "anchor"}
    axes.text(start, memory * start * 1.08, text, **note, **turned)


def _name_points(axes: Any, rows: Sequence[Row], points: Sequence[tuple[float, float]]) -> None:
    """Write each name beside its point, at the nearest place where it covers nothing."""
    renderer = axes.figure.canvas.get_renderer()
    places = [axes.transData.transform(point) for point in points]
    taken: list[tuple[float, float, float, float]] = [
        (x - 6, y - 6, x + 6, y + 6) for x, y in places
    ]
    frame = axes.get_window_extent(renderer)
    for row, (x, y) in sorted(zip(rows, places, strict=True), key=lambda item: -item[1][1]):
        text = axes.text(0, 0, row.problem, fontsize=7.5, color=_INK)
        box = text.get_window_extent(renderer)
        left, bottom = _free_place(x, y, box.width, box.height, taken, frame)
        taken.append((left, bottom, left + box.width, bottom + box.height))
        text.set_position(axes.transData.inverted().transform((left, bottom)))
        middle = bottom + box.height / 2
        near = min(max(x, left), left + box.width)
        if np.hypot(near - x, middle - y) > 16:
            line = axes.transData.inverted().transform([(x, y), (near, middle)])
            axes.plot(*line.T, color=_GREY, linewidth=0.5, zorder=1)


def _free_place(
    x: float,
    y: float,
    width: float,
    height: float,
    taken: list[tuple[float, float, float, float]],
    frame: Any,
) -> tuple[float, float]:
    """The lower left corner nearest to the point such that the box covers nothing."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    for radius in range(8, 300, 6):
        for angle in angles:
            dx, dy = np.cos(angle), np.sin(angle)
            left = x + radius * dx - width * (1 - dx) / 2
            bottom = y + radius * dy - height / 2
            inside = frame.x0 + 2 < left and left + width < frame.x1 - 2
            inside = inside and frame.y0 + 2 < bottom and bottom + height < frame.y1 - 2
            if inside and not any(
                left < right and l0 < left + width and bottom < top and b0 < bottom + height
                for l0, b0, right, top in taken
            ):
                return left, bottom
    return x + 8, y - height / 2
