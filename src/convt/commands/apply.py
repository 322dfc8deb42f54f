"""``convt apply``: the transposed convolution of a volume in a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Annotated

import numpy as np
import typer

from convt import volumes
from convt.commands.options import (
    DataFormat,
    Dilations,
    Force,
    Groups,
    Padding,
    Strides,
    Threads,
    check_targets,
    integers,
    pads,
    times,
)
from convt.volumes import Volume
from convt.volumes.affine import voxel_sizes
from convt.volumes.files import SUFFIXES, replacing, suffix_of
from convt.volumes.preview import picture

__all__ = ["apply"]


def apply(
    volume: Annotated[
        Path, typer.Argument(metavar="VOLUME", help=".npy, .nii or .nii.gz of 3 or 4 axes.")
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
        Path, typer.Option("--output", "-o", metavar="OUT", help=".npy, .nii or .nii.gz.")
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
    force: Force = False,
    threads: Threads = None,
) -> None:
    """Convolve a volume, for one to upsample it; every structure stays where it was in the world.

    [bold]convt apply scan.nii.gz -f trilinear -s 2 -o fine.nii.gz --preview fine.png[/bold]

    Files of 3 axes hold one channel. Whole-number voxels are computed and written as float32.
    """
    check_targets((output, SUFFIXES), (preview, (".png",)), force=force)
    source = volumes.read(volume)
    start = perf_counter()
    result = volumes.apply(
        source,
        filters,
        integers("--strides", strides),
        pads(padding),
        None if output_shape is None else integers("--output-shape", output_shape),
        data_format,
        integers("--dilations", dilations),
        bias=bias,
        groups=groups,
        threads=threads,
    )
    seconds = perf_counter() - start
    first = data_format == "NCDHW"
    kept = result if suffix_of(output) == ".npy" else _channels_last(result, first)
    if preview is None:
        volumes.write(output, kept, force=force)
    else:
        figure = picture(_channels_last(source, first), _channels_last(result, first))
        with replacing(preview, force=force) as stream:  # the picture exists if the volume does
            figure.savefig(stream, format="png")
            volumes.write(output, kept, force=force)
    _report(volume, source, output, kept, seconds)


def _channels_last(volume: Volume, first: bool) -> Volume:
    if volume.data.ndim == 3 or not first:
        return volume
    return replace(volume, data=np.moveaxis(volume.data, 0, 3))


def _report(path: Path, source: Volume, output: Path, result: Volume, seconds: float) -> None:
    note = ", computed in float32" if source.data.dtype.kind in "biu" else ""
    typer.echo(f"{path}: {_describe(source)}{note}")
    typer.echo(f"{output}: {_describe(result)}, {1e3 * seconds:.3g} ms")


def _describe(volume: Volume) -> str:
    text = f"{times(volume.data.shape)} {volume.data.dtype.name}"
    if volume.header is None or volume.affine is None:
        return text
    return f"{text}, voxels of {times(voxel_sizes(volume.affine))}"
