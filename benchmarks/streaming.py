"""``python -m benchmarks.streaming``: time and peak memory of volumes that stream, for docs/streaming.md.

Each measurement is a process of its own: a cube of float32 noise, brought up by 2 in each axis by a kernel
of 4 x 4 x 4 taps, from file to file within 1 GiB. Sizes are edges of the input in voxels.

    python -m benchmarks.streaming --sizes 128,256,512 --formats npy,zarr --threads 1,2
    python -m benchmarks.streaming --workers 1,2         the same on a Dask cluster of so many processes
    python -m benchmarks.streaming --picture             draws docs/images/streaming.png
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
MEMORY = "1GiB"
_CHUNK = 64  # voxels along each side of a chunk


def make(path: Path, size: int) -> None:
    """Write a cube of noise; the stores of chunks are not compressed, as noise can't be."""
    random = np.random.default_rng(0)
    if path.suffix == ".zarr":
        import zarr

        chunks = (_CHUNK,) * 3
        store: Any = zarr.create_array(
            path, shape=(size,) * 3, dtype="f4", chunks=chunks, compressors=None
        )
    else:
        store = np.lib.format.open_memmap(path, "w+", np.float32, (size,) * 3)
    for start in range(0, size, _CHUNK):
        count = min(_CHUNK, size - start)
        store[start : start + count] = random.standard_normal((count, size, size), np.float32)


def measure(source: Path, output: Path, threads: int, scheduler: str | None) -> dict[str, Any]:
    """Stream a volume in this process, and tell how long it took and how much memory."""
    from convt.volumes import apply

    small = source.with_name(f"small{source.suffix}")
    _remove(small)
    make(small, 32)
    apply(small, "trilinear", 2, output=output, force=True)  # compiles
    _remove(output)
    start = time.perf_counter()
    apply(
        source, "trilinear", 2, output=output, memory=MEMORY, threads=threads, scheduler=scheduler
    )
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) << 10
    return {"seconds": seconds, "peak": peak}


def written(folder: Path, size: int) -> float:
    """Seconds that writing the bytes of a result to a file takes, and nothing else."""
    block = bytes(1 << 24)
    left, start = 4 * (2 * size) ** 3, time.perf_counter()
    with (folder / "plain").open("wb") as file:
        while left > 0:
            left -= file.write(block[: min(left, len(block))])
        file.flush()
    seconds = time.perf_counter() - start
    (folder / "plain").unlink()
    return seconds


def rows(arguments: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """All measurements that are asked for, in turn."""
    for kind in arguments.formats.split(","):
        for size in map(int, arguments.sizes.split(",")):
            source = folder / f"in.{kind}"
            make(source, size)
            plain = written(folder, size)
            for workers in arguments.workers or [None]:
                for threads in [1] if workers else arguments.threads:
                    found = isolated(source, folder / f"out.{kind}", threads, workers)
                    yield {"format": kind, "size": size, "threads": threads, "workers": workers,
                           "plain": plain, **found}  # fmt: skip
            _remove(source)


def isolated(source: Path, output: Path, threads: int, workers: int | None) -> dict[str, Any]:
    """`measure` in a process of its own, beside a cluster if there are to be workers."""
    line = [sys.executable, "-m", "benchmarks.streaming", "--measure", str(source), str(output)]
    line += [str(threads)]
    try:
        if workers is None:
            done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=ROOT)
            return dict(json.loads(done.stdout))
        import distributed

        cluster: Any = distributed.LocalCluster
        with cluster(
            n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
        ) as made:
            line += [made.scheduler_address]
            done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=ROOT)
            return dict(json.loads(done.stdout))
    finally:
        _remove(output)


def picture(path: Path) -> None:
    """Draw how a chunk, its halo and its output lie, for one axis and for a plane."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    ink, blue, orange = "#24292f", "#4c78a8", "#f58518"
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.35))
    for axes, title, size, edge, halo in (
        (left, "input: three chunks a side", 12, 4, 1),
        (right, "result: three blocks a side, twice as fine", 24, 8, 0),
    ):
        for at in range(size + 1):
            heavy = at % edge == 0
            for line in (axes.axhline, axes.axvline):
                line(
                    at,
                    color=ink if heavy else "#d0d7de",
                    lw=1.4 if heavy else 0.5,
                    zorder=2 + heavy,
                )
        if halo:
            wide = edge + 2 * halo
            axes.add_patch(
                Rectangle((edge - halo,) * 2, wide, wide, color=orange, alpha=0.45, lw=0)
            )
        axes.add_patch(
            Rectangle((edge, edge), edge, edge, color=blue, alpha=0.75, lw=0, zorder=1.5)
        )
        axes.set(xlim=(0, size), ylim=(size, 0), aspect="equal", xticks=[], yticks=[], title=title)
    left.set_xlabel("blue: the chunk that lies where the block does\n"
                    "orange: its halo, cut from the eight chunks around it")  # fmt: skip
    right.set_xlabel("blue: the block, which is computed from blue and orange alone,\n"
                     "written once, and recorded")  # fmt: skip
    figure.savefig(path, dpi=110)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def main() -> None:
    """Measure what is asked for and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", default="128,256,512")
    parser.add_argument("--formats", default="npy,zarr")
    parser.add_argument("--threads", type=_numbers, default=[1, 2])
    parser.add_argument("--workers", type=_numbers, default=None)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--picture", action="store_true")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        source, output, threads, *scheduler = arguments.measure
        found = measure(
            Path(source), Path(output), int(threads), scheduler[0] if scheduler else None
        )
        print(json.dumps(found))
        return
    if arguments.picture:
        picture(ROOT / "docs" / "images" / "streaming.png")
        return
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, memory {MEMORY}")
    print(
        "| format | input | result | computed by | seconds | MB/s | plain write MB/s | peak MiB |"
    )
    print("|---|---:|---:|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for row in rows(arguments, Path(folder)):
            size = 4 * (2 * row["size"]) ** 3
            by = (
                f"{row['threads']} threads"
                if row["workers"] is None
                else f"{row['workers']} workers"
            )
            print(
                f"| {row['format']} | {row['size']}^3 | {size / 2**30:.3g} GiB | {by} | "
                f"{row['seconds']:.1f} | {size / row['seconds'] / 1e6:.0f} | "
                f"{size / row['plain'] / 1e6:.0f} | {row['peak'] / 2**20:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
