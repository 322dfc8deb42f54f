"""Measuring `convt.volumes.upsample` beside the interpolation of other libraries, and from file to file.

All work on one float32 cube, in turns: convt, another library, convt, the next one, ... Only the ratio of
neighbouring turns is compared, since a machine's speed drifts. Each library is asked for the same result,
which is checked first: voxels that cover the same box, faces repeated, the same number of threads where it
has any. Where a library knows more than one way, the fastest counts. Streaming is measured beside its two
limits: the same work in memory, and reading the source and writing the result without it, as zarr does it
by default and as it does it fastest. How axes are grouped into passes is measured beside the work that is
counted for each grouping.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from shutil import rmtree
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convt.memory import empty_output
from convt.volumes import shepp_logan, upsample
from convt.volumes.interpolate import GROUPINGS, Interpolation, work

__all__ = ["PEERS", "Streamed", "Turns", "measure", "measure_streaming", "stream_table", "table"]

Array = NDArray[Any]
Call = Callable[[], Any]
_ORDERS = {"nearest": 0, "trilinear": 1}
_ENOUGH = 20.0  # seconds of turns with one library, after two of them


@dataclass(frozen=True)
class Turns:
    """One other library beside convt, on one problem; times in seconds."""

    kernel: str
    size: int  # voxels along each side of the input
    factor: int
    peer: str  # the name that `PEERS` has for it
    ours: float  # median
    theirs: float  # median
    ratio: float  # median over neighbouring turns of theirs / ours
    error: float  # largest difference between both results, which lie between 0 and 1


@dataclass(frozen=True)
class Passes:
    """One way to group the axes into passes."""

    kernel: str
    size: int  # voxels along each side of the input
    factor: int
    grouping: tuple[tuple[int, ...], ...]  # axes of each pass
    work: float  # counted, for each voxel of the result
    seconds: float  # median
    chosen: bool  # by the count


@dataclass(frozen=True)
class _Grouped(Interpolation):
    """An interpolation in given passes."""

    grouping: tuple[tuple[int, ...], ...] = ()

    @property
    def passes(self) -> tuple[tuple[int, ...], ...]:
        return self.grouping


@dataclass(frozen=True)
class Streamed:
    """A volume brought up from one Zarr store to another; times in seconds, medians."""

    kernel: str
    size: int  # voxels along each side of the input
    factor: int
    compressor: str
    streamed: float
    memory: float  # from array to array
    stored: float  # reading the source, and writing the result at once
    unchecked: float  # the same, where zarr does not look for chunks of the fill value alone

    @property
    def bytes(self) -> int:
        """Of the result."""
        return 4 * (self.size * self.factor) ** 3

    @property
    def share(self) -> float:
        """Of the throughput of the slower limit."""
        return max(self.memory, self.stored) / self.streamed


def _torch(x: Array, factor: int, kernel: str, threads: int) -> list[Call]:
    torch: Any = import_module("torch")
    torch.set_num_threads(threads)
    plain = torch.from_numpy(x)[None, None]
    last = plain.contiguous(memory_format=torch.channels_last_3d)
    more = {} if kernel == "nearest" else {"align_corners": False}

    def way(tensor: Any) -> Call:
        return lambda: torch.nn.functional.interpolate(
            tensor, scale_factor=factor, mode=kernel, **more
        )[0, 0].numpy()

    return [way(plain), way(last)]


def _scipy(x: Array, factor: int, kernel: str, threads: int) -> list[Call]:
    ndimage: Any = import_module("scipy.ndimage")
    how = {"order": _ORDERS[kernel], "mode": "nearest", "grid_mode": True, "prefilter": False}
    return [lambda: ndimage.zoom(x, factor, **how)]


def _skimage(x: Array, factor: int, kernel: str, threads: int) -> list[Call]:
    transform: Any = import_module("skimage.transform")
    how = {"order": _ORDERS[kernel], "mode": "edge", "anti_aliasing": False}
    return [lambda: transform.rescale(x, factor, preserve_range=True, **how)]


def _simpleitk(x: Array, factor: int, kernel: str, threads: int) -> list[Call]:
    itk: Any = import_module("SimpleITK")
    image = itk.GetImageFromArray(x)
    filter = itk.ResampleImageFilter()
    filter.SetNumberOfThreads(threads)
    filter.SetInterpolator(
        {"nearest": itk.sitkNearestNeighbor, "trilinear": itk.sitkLinear}[kernel]
    )
    filter.SetSize([side * factor for side in image.GetSize()])
    filter.SetOutputSpacing([1 / factor] * 3)
    filter.SetOutputOrigin([0.5 / factor - 0.5] * 3)
    filter.SetUseNearestNeighborExtrapolator(True)
    return [lambda: filter.Execute(image)]


PEERS: dict[str, Callable[[Array, int, str, int], list[Call]]] = {
    "torch.nn.functional.interpolate": _torch,
    "scipy.ndimage.zoom": _scipy,
    "skimage.transform.rescale": _skimage,
    "SimpleITK.Resample": _simpleitk,
}


def measure(
    kernel: str, size: int, factor: int, *, threads: int, rounds: int, peers: Sequence[str] = ()
) -> list[Turns]:
    """Every library of `peers` (all of `PEERS` by default) beside convt on one random cube."""
    x = np.random.default_rng(0).random((size, size, size), np.float32)

    def ours() -> Array:
        return upsample(x, factor, kernel, threads=threads)

    expected, found = ours(), []
    for name in peers or PEERS:
        ways = PEERS[name](x, factor, kernel, threads)
        error = max(_difference(way(), expected) for way in ways)
        theirs = min(ways, key=_seconds)
        pairs: list[tuple[float, float]] = []
        while len(pairs) < rounds and (len(pairs) < 2 or sum(map(sum, pairs)) < _ENOUGH):
            pairs.append((_seconds(ours), _seconds(theirs)))
        found.append(
            Turns(
                kernel,
                size,
                factor,
                name,
                ours=median(own for own, _ in pairs),
                theirs=median(other for _, other in pairs),
                ratio=median(other / own for own, other in pairs),
                error=error,
            )
        )
    return found


def _difference(result: Any, expected: Array) -> float:
    got = result
    if not isinstance(result, np.ndarray):
        got = import_module("SimpleITK").GetArrayFromImage(result)
    if got.shape != expected.shape:
        raise ValueError(f"another library's result has shape {got.shape}, not {expected.shape}")
    return float(np.abs(got - expected).max())


def _seconds(call: Call) -> float:
    start = perf_counter()
    result = call()
    seconds = perf_counter() - start
    del result
    return seconds


def table(turns: Sequence[Turns]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| kernel | volume | library | its ms | convt's ms | times as long | largest difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for t in turns:
        volume = f"{t.size}^3 to {t.size * t.factor}^3"
        times = f"{1e3 * t.theirs:.4g} | {1e3 * t.ours:.4g} | {t.ratio:.3g}"
        lines.append(f"| {t.kernel} | {volume} | `{t.peer}` | {times} | {t.error:.1e} |")
    return "\n".join(lines)


def measure_streaming(
    kernel: str, size: int, factor: int, folder: Path, *, compressor: str, threads: int, rounds: int
) -> Streamed:
    """From Zarr to Zarr, in chunks of 128 voxels a side, in turns with both limits."""
    zarr: Any = import_module("zarr")
    x = shepp_logan(size).astype(np.float32)
    sizes = tuple(side * factor for side in x.shape)
    paths = [str(folder / name) for name in ("source.zarr", "result.zarr", "copy.zarr")]
    how: dict[str, Any] = {"dtype": "float32", "chunks": (128, 128, 128), "overwrite": True}
    how["compressors"] = None if compressor == "none" else "auto"
    zarr.create_array(paths[0], shape=x.shape, **how)[...] = x

    def streamed() -> None:
        upsample(paths[0], factor, kernel, output=paths[1], threads=threads, force=True)

    def stored(**more: Any) -> None:
        zarr.open_array(paths[0], mode="r")[...]
        zarr.create_array(paths[2], shape=sizes, **how, **more)[...] = result

    def unchecked() -> None:
        stored(config={"write_empty_chunks": True})

    def memory() -> Array:
        return upsample(x, factor, kernel, threads=threads)

    result = memory()
    streamed()
    if not np.array_equal(zarr.open_array(paths[1], mode="r")[...], result):
        raise ValueError("the streamed result is not the one in memory")
    calls = (streamed, memory, stored, unchecked)
    turns = [[_seconds(call) for call in calls] for _ in range(rounds)]
    for path in paths:
        rmtree(path)
    times = [median(column) for column in zip(*turns, strict=True)]
    return Streamed(kernel, size, factor, compressor, *times)


def stream_table(found: Sequence[Streamed]) -> str:
    """The figures as a Markdown table; MB/s are of the result."""
    lines = [
        "| kernel | volume | compression | streamed MB/s | in memory MB/s | storing alone MB/s "
        "| unchecked MB/s | of the slower limit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for s in found:
        volume = f"{s.size}^3 to {s.size * s.factor}^3"
        times = (s.streamed, s.memory, s.stored, s.unchecked)
        rates = " | ".join(f"{s.bytes / t / 1e6:.4g}" for t in times)
        lines.append(f"| {s.kernel} | {volume} | {s.compressor} | {rates} | {s.share:.0%} |")
    return "\n".join(lines)


def measure_passes(
    kernel: str, size: int, factor: int, *, threads: int, rounds: int
) -> list[Passes]:
    """Every grouping of the axes in turns, on one block."""
    x = np.random.default_rng(0).random((size, size, size, 1), np.float32)
    outputs = [(0, side * factor) for side in x.shape[:3]]
    y = empty_output((*(stop for _, stop in outputs), 1), x.dtype)
    factors = (factor, factor, factor)
    chosen = Interpolation(kernel, factors).passes
    ways = {grouping: _Grouped(kernel, factors, grouping) for grouping in GROUPINGS}

    def seconds(grouping: tuple[tuple[int, ...], ...]) -> float:
        return _seconds(lambda: ways[grouping](x, outputs, x.shape[:3], out=y, threads=threads))

    turns = [{grouping: seconds(grouping) for grouping in ways} for _ in range(rounds + 1)][1:]
    return [
        Passes(
            kernel,
            size,
            factor,
            grouping,
            work=work(ways[grouping], grouping) / factor**3,
            seconds=median(turn[grouping] for turn in turns),
            chosen=grouping == chosen,
        )
        for grouping in ways
    ]


def passes_table(found: Sequence[Passes]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| kernel | volume | passes | counted work | ms | chosen |",
        "|---|---|---|---|---|---|",
    ]
    for p in found:
        volume = f"{p.size}^3 to {p.size * p.factor}^3"
        passes = ", ".join("".join("dhw"[axis] for axis in axes) for axes in p.grouping)
        end = f"{p.work:.4g} | {1e3 * p.seconds:.4g} | {'yes' if p.chosen else ''} |"
        lines.append(f"| {p.kernel} | {volume} | {passes} | {end}")
    return "\n".join(lines)
