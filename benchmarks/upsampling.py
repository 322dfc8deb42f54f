"""``python -m benchmarks.upsampling``: `convt.volumes.upsample` beside other libraries, as tables.

It needs the libraries of requirements/bench.txt. docs/upsampling.md has the table of a complete run.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault(
    "OMP_WAIT_POLICY", "PASSIVE"
)  # a library that waits leaves the processors alone

from convt.bench.machine import describe, processors
from convt.bench.upsampling import (
    measure,
    measure_passes,
    measure_streaming,
    passes_table,
    stream_table,
    table,
)

SIZES = (64, 128)  # voxels along each side
LARGE, FASTEST = 256, "torch.nn.functional.interpolate"  # others take minutes
ROUNDS = 7


def main() -> None:
    """Measure the sizes on the command line, or all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, help="voxels along each side")
    sizes = parser.parse_args().sizes
    print("\n".join(f"{name}: {value}" for name, value in describe().items()))
    passes = [
        found
        for kernel in ("trilinear", "cubic", "lanczos3")
        for found in measure_passes(kernel, 128, 2, threads=processors(), rounds=ROUNDS)
    ]
    print(passes_table(passes), flush=True)
    turns = [
        turn
        for kernel in ("trilinear", "nearest")
        for size, peers in [*((size, ()) for size in sizes), (LARGE, (FASTEST,))]
        for turn in measure(kernel, size, 2, threads=processors(), rounds=ROUNDS, peers=peers)
    ]
    print(table(turns), flush=True)
    with TemporaryDirectory(
        dir=".", prefix=".upsampling-"
    ) as folder:  # not in memory, as /tmp may be
        found = [
            measure_streaming(
                kernel,
                LARGE,
                2,
                Path(folder),
                compressor=compressor,
                threads=processors(),
                rounds=ROUNDS,
            )
            for kernel in ("trilinear", "lanczos3")
            for compressor in ("none", "zstd")
        ]
    print(stream_table(found))


if __name__ == "__main__":
    main()
