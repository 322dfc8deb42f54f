"""A picture of a volume before and after: three orthogonal slices through the same point of both.

Both rows share one window of grey and one scale, so that a structure appears at the same place and
as large in both. Volumes with an affine are turned the way radiologists' atlases show them (left
on the left, front and head up); arrays without one are shown as stored. Only the slices shown are
read. Matplotlib is imported on use and draws without a display.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convt.volumes.affine import voxel_sizes
from convt.volumes.files import Volume, replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw", "picture"]

_WORLD = ("axial", "coronal", "sagittal")  # slices across z, y, x
_STORED = ("across depth", "across height", "across width")
_TIMES = " \N{MULTIPLICATION SIGN} "
_DARK, _LIGHT = "#101418", "#e8e8e8"


@dataclass(frozen=True, eq=False)
class _View:
    """What is shown of a volume, with its axes turned for display: rows and columns of pictures."""

    slices: tuple[NDArray[np.float64], ...]  # one across each axis
    low: tuple[float, ...]  # outer edge of the first voxel on each axis, in units of the world
    high: tuple[float, ...]  # outer edge of the last voxel
    at: tuple[int, ...]  # voxel that all three slices go through


def draw(
    path: str | os.PathLike[str],
    before: Volume | NDArray[Any],
    after: Volume | NDArray[Any],
    *,
    at: Sequence[int] | None = None,
    force: bool = False,
) -> None:
    """Write the `picture` of two volumes to a PNG file, all of it or nothing.

    Parameters
    ----------
    path : path
        The file to write.
    before, after, at
        As in `picture`.
    force : bool
        Replace an existing file.

    Raises
    ------
    FileExistsError
        If the file exists and ``force`` is false.
    OSError
        If the file can't be written.
    ImportError
        If matplotlib is not installed.
    """
    figure = picture(before, after, at=at)
    with replacing(path, force=force) as stream:
        figure.savefig(stream, format="png")


def picture(
    before: Volume | NDArray[Any],
    after: Volume | NDArray[Any],
    *,
    at: Sequence[int] | None = None,
) -> Figure:
    """Three orthogonal slices of two volumes, one volume a row.

    Parameters
    ----------
    before, after : Volume or array
        ``[D, H, W]``, or ``[D, H, W, C]``, of which the first channel is shown. Their axes are
        parallel, as those of a result are to its input's; without affines, both are taken to
        fill the same space. Of their data, six slices are read in all, by plain indexing, so it
        may be any object with a ``shape`` that can be indexed like an array.
    at : three ints, optional
        Voxel of ``before`` that the slices go through; its middle by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If a volume is empty.
    ImportError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ModuleNotFoundError as error:
        raise ImportError(f'pictures need {error.name}: pip install "convt[cli]"') from error

    first, second = _with_voxels(before), _with_voxels(after)
    views = _views(first, second, at)
    spans = np.subtract(views[0].high, views[0].low)
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    figure = Figure(figsize=_inches(spans), dpi=110, facecolor=_DARK, layout=layout)
    grid: Any = figure.subplots(2, 3, width_ratios=spans[[2, 2, 1]].tolist())
    window, world = _window(views), first.affine is not None
    for row, (label, volume) in enumerate((("before", first), ("after", second))):
        for axis, name in enumerate(_WORLD if world else _STORED):
            shown = _panel(grid[row, axis], views[row], axis, window, upright=world)
            grid[row, axis].set_title(f"{name}, slice {views[row].at[axis]}", color=_LIGHT)
        grid[row, 0].set_ylabel(_caption(label, volume, world=world), color=_LIGHT, fontsize=11)
    bar = figure.colorbar(shown, ax=grid, shrink=0.6, pad=0.02)
    bar.ax.tick_params(colors=_LIGHT)
    return figure


def _inches(spans: NDArray[np.float64]) -> tuple[float, float]:
    """Width and height of a figure whose three panels, 10 inches together, share one scale."""
    rows = max(spans[0], spans[1]) * 10 / spans[[2, 2, 1]].sum()
    return 12.0, 2 * float(np.clip(rows, 1.5, 6)) + 1


def _with_voxels(volume: Volume | NDArray[Any]) -> Volume:
    whole = volume if isinstance(volume, Volume) else Volume(np.asarray(volume))
    if 0 in whole.data.shape:
        raise ValueError(f"a picture needs voxels, got a volume of shape {whole.data.shape}")
    return whole


def _views(first: Volume, second: Volume, at: Sequence[int] | None) -> tuple[_View, _View]:
    """Both volumes in the same orientation, with edges on one scale."""
    to_first = _map(first, second)
    turned, sizes = _turned(first.affine), np.ones(3)
    if first.affine is not None:
        sizes = np.asarray(voxel_sizes(first.affine))
    middle = [(size - 1) // 2 for size in first.data.shape[:3]] if at is None else list(at)
    steps, offsets = np.diag(to_first)[:3], to_first[:3, 3]
    there = np.rint((middle - offsets) / steps).astype(int).tolist()
    return (
        _view(first.data, turned, middle, np.ones(3), np.zeros(3), sizes),
        _view(second.data, turned, there, steps, offsets, sizes),
    )


def _map(first: Volume, second: Volume) -> NDArray[np.float64]:
    """Matrix from voxel indices of ``second`` to those of ``first``."""
    if second.affine is not None:
        inner = np.eye(4) if first.affine is None else np.linalg.inv(first.affine)
        return np.asarray(inner @ second.affine)
    ratio = np.divide(first.data.shape[:3], second.data.shape[:3])
    matrix = np.diag([*ratio, 1.0])
    matrix[:3, 3] = (ratio - 1) / 2
    return matrix


def _turned(affine: NDArray[np.float64] | None) -> list[tuple[int, bool]]:
    """Voxel axis that runs along z, y and x of the world, each with whether it runs backwards."""
    if affine is None:
        return [(0, False), (1, False), (2, False)]
    steps = affine[:3, :3] / voxel_sizes(affine)
    world = (2, 1, 0)
    best = max(
        permutations(range(3)),
        key=lambda order: sum(abs(steps[w, v]) for w, v in zip(world, order, strict=True)),
    )
    return [(v, bool(steps[w, v] < 0)) for w, v in zip(world, best, strict=True)]


def _view(
    data: NDArray[Any],
    turned: list[tuple[int, bool]],
    at: Sequence[int],
    steps: NDArray[np.float64],
    offsets: NDArray[np.float64],
    sizes: NDArray[np.float64],
) -> _View:
    shape = np.asarray(data.shape[:3])
    edges = [(offsets - steps / 2) * sizes, (offsets + (shape - 0.5) * steps) * sizes]
    inside = np.clip(at, 0, shape - 1)
    return _View(
        tuple(_slice(data, turned, number, inside) for number in range(3)),
        tuple(-edges[1][axis] if back else edges[0][axis] for axis, back in turned),
        tuple(-edges[0][axis] if back else edges[1][axis] for axis, back in turned),
        tuple(int((shape - 1 - inside if back else inside)[axis]) for axis, back in turned),
    )


def _slice(
    data: NDArray[Any], turned: list[tuple[int, bool]], number: int, at: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The slice through `at` across the axis that is shown as `number`, with rows and columns turned."""
    across = turned[number][0]
    index: list[int | slice] = [slice(None)] * 3 + [0] * (len(data.shape) - 3)
    index[across] = int(at[across])
    rows, columns = (turn for turn in turned if turn[0] != across)
    found = np.asarray(data[tuple(index)], np.float64)
    found = found if rows[0] < columns[0] else found.T
    return found[:: -1 if rows[1] else 1, :: -1 if columns[1] else 1]


def _window(views: Sequence[_View]) -> tuple[float, float]:
    """Grey values shown as black and as white: the range of the slices without 0.5% outliers."""
    values = np.concatenate([shown.ravel() for view in views for shown in view.slices])
    values = values[np.isfinite(values)]
    if values.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(values, (0.5, 99.5))
    return float(low), float(high) if high > low else float(low) + 1


def _panel(
    axes: Axes, view: _View, axis: int, window: tuple[float, float], *, upright: bool
) -> Any:
    row, column = [other for other in range(3) if other != axis]
    vertical = (view.low[row], view.high[row]) if upright else (view.high[row], view.low[row])
    image = axes.imshow(
        view.slices[axis],
        cmap="gray",
        vmin=window[0],
        vmax=window[1],
        origin="lower" if upright else "upper",
        extent=(view.low[column], view.high[column], *vertical),
        interpolation="nearest",
    )
    axes.set(xticks=[], yticks=[], facecolor=_DARK)
    axes.spines[:].set_visible(False)
    return image


def _caption(label: str, volume: Volume, *, world: bool) -> str:
    lines = [label, _TIMES.join(map(str, volume.data.shape))]
    if world and volume.affine is not None:
        unit = "mm" if volume.header is None else volume.header.get_xyzt_units()[0]
        sizes = _TIMES.join(f"{size:.3g}" for size in voxel_sizes(volume.affine))
        lines.append(f"voxels {sizes} {'' if unit == 'unknown' else unit}")
    return "\n".join(lines)
