"""The demonstration: a phantom up by two, timed, checked against the definition, and drawn."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

import convt
from convt import reference
from convt.volumes.files import Volume, write
from convt.volumes.kernels import trilinear
from convt.volumes.phantom import shepp_logan
from convt.volumes.preview import draw
from convt.volumes.transform import apply

__all__ = ["FACTOR", "Demo", "demonstrate"]

FACTOR = 2
_REPEATS = 7
_HEAD_MM = 192.0  # side of the phantom; a head fits


@dataclass(frozen=True)
class Demo:
    """What a demonstration measured, and the files that it left."""

    input_shape: tuple[int, ...]
    filters_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    first_seconds: float  # the first call, with compiling if the cache had no code
    seconds: float  # median of the calls after it
    gflops: float  # 10^9 additions and multiplications of the direct sum per second
    error: float  # largest absolute difference from the definition in float64
    before: Path
    after: Path
    picture: Path


def demonstrate(
    folder: str | os.PathLike[str], *, size: int = 96, threads: int | None = None
) -> Demo:
    """Upsample a Shepp-Logan phantom by two, and leave both volumes and a picture in ``folder``.

    Parameters
    ----------
    folder : path
        Created where it is missing; files of an earlier demonstration are replaced.
    size : int
        Voxels along each side of the phantom, at least 1.
    threads : int, optional
        Threads that compute; `convt.get_num_threads` by default.

    Returns
    -------
    Demo

    Raises
    ------
    ValueError
        If ``size`` or ``threads`` is below 1.
    OSError
        If the folder can't be written.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    before = Volume(shepp_logan(size), _centred(size))
    kernel = trilinear(FACTOR).astype(np.float32)

    def call() -> Volume:
        return apply(before, kernel, FACTOR, threads=threads)

    first_seconds, after = _timed(call)
    seconds = median(_timed(call)[0] for _ in range(_REPEATS))
    files = [folder / name for name in ("before.nii.gz", "after.nii.gz", "slices.png")]
    write(files[0], before, force=True)
    write(files[1], after, force=True)
    draw(files[2], before, after, at=_worth_seeing(size), force=True)
    return Demo(
        input_shape=before.data.shape,
        filters_shape=kernel.shape,
        output_shape=after.data.shape,
        first_seconds=first_seconds,
        seconds=seconds,
        gflops=2e-9 * _multiplications(before.data, kernel, after.data) / seconds,
        error=_error(before.data, kernel, after.data),
        before=files[0],
        after=files[1],
        picture=files[2],
    )


def _timed(call: Callable[[], Volume]) -> tuple[float, Volume]:
    start = perf_counter()
    result = call()
    return perf_counter() - start, result


def _centred(size: int) -> NDArray[np.float64]:
    """Affine, in mm, that puts the middle of a phantom ``[z, y, x]`` at the world's origin."""
    step = _HEAD_MM / size
    affine = np.zeros((4, 4))
    affine[[0, 1, 2], [2, 1, 0]] = step
    affine[:3, 3] = -step * (size - 1) / 2
    affine[3, 3] = 1
    return affine


def _worth_seeing(size: int) -> tuple[int, int, int]:
    """The voxel where the slices through the phantom show most of its parts."""
    return (3 * size) // 8, (5 * size) // 8, (9 * size) // 20


def _five(volume: NDArray[Any]) -> NDArray[Any]:
    return volume[None, ..., None]


def _multiplications(before: NDArray[Any], kernel: NDArray[Any], after: NDArray[Any]) -> int:
    report = convt.explain(_five(before).shape, (*kernel.shape, 1, 1), _five(after).shape, FACTOR)
    return int(report.multiplications)


def _error(before: NDArray[Any], kernel: NDArray[Any], after: NDArray[Any]) -> float:
    exact = reference.conv3d_transpose(
        _five(before),
        kernel[..., None, None],
        _five(after).shape,
        FACTOR,
        dtype=np.float64,
    )
    return float(np.abs(_five(after) - exact).max())
