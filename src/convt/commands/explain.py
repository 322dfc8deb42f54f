"""``convt explain``: what a call would do, from its shapes alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import convt
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
)
from convt.volumes.files import replacing

__all__ = ["explain"]


def explain(
    input: Annotated[
        str, typer.Option("--input", "-i", metavar="N,D,H,W,C", help="Shape of the input.")
    ],
    filters: Annotated[
        str,
        typer.Option(
            "--filters", "-f", metavar="D,H,W,O,I", help="Shape: taps, channels out, channels in."
        ),
    ],
    strides: Strides,
    output_shape: Annotated[
        str | None,
        typer.Option(metavar="N,D,H,W,O", help="Shape of the result; -1: inferred."),
    ] = None,
    padding: Padding = "SAME",
    data_format: DataFormat = "NDHWC",
    dilations: Dilations = "1",
    dtype: Annotated[
        str, typer.Option(metavar="NAME", help="float16, bfloat16, float32 or float64.")
    ] = "float32",
    groups: Groups = 1,
    threads: Threads = None,
    html: Annotated[
        Path | None, typer.Option(metavar="HTML", help="Write the report as a web page, too.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="Draw how often each output voxel is hit."),
    ] = None,
    force: Force = False,
) -> None:
    """Explain a call: allowed outputs, padding, phases, work, and the kernel chosen and why.

    [bold]convt explain -i 1,4,4,4,8 -f 3,3,3,16,8 -s 2[/bold]
    """
    check_targets((html, (".html", ".htm")), (plot, (".png",)), force=force)
    report = convt.explain(
        integers("--input", input),
        integers("--filters", filters),
        None if output_shape is None else integers("--output-shape", output_shape),
        integers("--strides", strides),
        pads(padding),
        data_format,
        integers("--dilations", dilations),
        groups=groups,
        dtype=dtype,
        threads=threads,
    )
    typer.echo(str(report))
    if html is not None:
        with replacing(html, force=force) as stream:
            stream.write(_page(report._repr_html_()))
    if plot is not None:
        figure = report.plot()
        with replacing(plot, force=force) as stream:
            figure.savefig(stream, format="png")


def _page(body: str) -> bytes:
    head = '<!doctype html>\n<meta charset="utf-8">\n<title>convt explain</title>\n'
    return (head + body + "\n").encode()
