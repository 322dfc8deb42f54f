"""``convt apply``: the transposed convolution of a volume in a file."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from convt import volumes
from convt.commands.options import (
    DataFormat,
    Dilations,
    Force,
    Groups,
    KeepDtype,
    Memory,
    Padding,
    Resume,
    Scheduler,
    Strides,
    Threads,
    check_targets,
    integers,
    pads,
)
from convt.commands.outcome import report
from convt.commands.progress import bar

__all__ = ["apply"]


def apply(
    volume: Annotated[
        Path,
        typer.Argument(
            metavar="VOLUME", help=".npy, .nii, .nii.gz, .tif, .zarr or .h5 of 3 to 5 axes."
        ),
    ],
    filters: Annotated[
        str,
        typer.Option(
            "--filters",
            "-f",
            metavar="KERNEL",
            help="trilinear, nearest, or a .npy file: depth, height, width, channels out, "
            "channels in; three axes are one kernel for every channel.",
        ),
    ],
    strides: Strides,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="Of any of these formats.")
    ],
    padding: Padding = "SAME",
    output_shape: Annotated[
        str | None,
        typer.Option(metavar="D,H,W", help="Size of the result; SAME gives N times the input's."),
    ] = None,
    dilations: Dilations = "1",
    data_format: DataFormat = "NDHWC",
    groups: Groups = 1,
    bias: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A .npy file: one number per channel out.")
    ] = None,
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
    """Convolve a volume, for one to upsample it; every structure stays where it was in the world.

    [bold]convt apply scan.nii.gz -f trilinear -s 2 -o fine.nii.gz --preview fine.png[/bold]

    Files of 3 axes hold one channel. Whole-number voxels are computed in float32, and written so unless
    --keep-dtype is given. Volumes larger than the memory are streamed; what is interrupted goes on with
    --resume.
    """
    check_targets((preview, (".png",)), force=force)
    start = perf_counter()
    with bar(output.name) as progress:
        volumes.apply(
            volume,
            filters,
            integers("--strides", strides),
            pads(padding),
            None if output_shape is None else integers("--output-shape", output_shape),
            data_format,
            integers("--dilations", dilations),
            output=output,
            bias=bias,
            groups=groups,
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
        note=", computed in float32",
    )
