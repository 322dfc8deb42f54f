"""``convt upsample``: a volume in a file brought up by interpolation."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from convt import volumes
from convt.commands.options import (
    DataFormat,
    Force,
    KeepDtype,
    Memory,
    Resume,
    Scheduler,
    Threads,
    check_targets,
    integers,
)
from convt.commands.outcome import report
from convt.commands.progress import bar

__all__ = ["upsample"]


def upsample(
    volume: Annotated[
        Path,
        typer.Argument(
            metavar="VOLUME", help=".npy, .nii, .nii.gz, .tif, .zarr or .h5 of 3 to 5 axes."
        ),
    ],
    factor: Annotated[
        str,
        typer.Option("--factor", metavar="N", help="Output voxels per input voxel, or D,H,W."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="Of any of these formats.")
    ],
    kernel: Annotated[
        str,
        typer.Option("--kernel", "-k", metavar="NAME", help="trilinear, nearest, cubic, lanczos3."),
    ] = "trilinear",
    data_format: DataFormat = "NDHWC",
    preview: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Draw three slices, before and after.")
    ] = None,
    keep_dtype: KeepDtype = False,
    memory: Memory = None,
    scheduler: Scheduler = None,
    resume: Resume = False,
    force: Force = False,
    threads: Threads = None,
) -> None:
    """Bring a volume up by interpolation; every structure stays where it was in the world.

    [bold]convt upsample scan.nii.gz --factor 2 -o fine.nii.gz --preview fine.png[/bold]

    Beyond its faces a volume goes on as its outermost voxels. Whole-number voxels are computed in float32,
    and written so unless --keep-dtype is given; nearest copies them. Volumes larger than the memory are
    streamed; what is interrupted goes on with --resume.
    """
    check_targets((preview, (".png",)), force=force)
    start = perf_counter()
    with bar(output.name) as progress:
        volumes.upsample(
            volume,
            integers("--factor", factor),
            kernel,
            data_format,
            output=output,
            keep_dtype=keep_dtype,
            threads=threads,
            memory=memory,
            scheduler=scheduler,
            resume=resume,
            force=force,
            progress=progress,
        )
    report(
        volume,
        output,
        data_format,
        seconds=perf_counter() - start,
        preview=preview,
        force=force,
        note="" if kernel == "nearest" else ", computed in float32",
    )
