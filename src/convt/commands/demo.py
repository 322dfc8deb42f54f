"""``convt demo``: everything at work in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import convt
from convt import target
from convt.commands.options import Threads, times
from convt.volumes.demo import FACTOR, Demo, demonstrate

__all__ = ["demo"]


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the files go.")
    ] = Path("convt-demo"),
    size: Annotated[int, typer.Option(metavar="N", help="Voxels along each side.")] = 96,
    threads: Threads = None,
) -> None:
    """Upsample a Shepp-Logan head by two: a picture, the volumes, the speed and the error."""
    result = demonstrate(output, size=size, threads=threads)
    table = Table(title="A Shepp-Logan head, twice as fine", show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in _rows(result, threads):
        table.add_row(name, value)
    Console().print(table)
    typer.echo(f"volumes: {result.before}, {result.after}")
    typer.echo(f"picture: {result.picture}")


def _rows(result: Demo, threads: int | None) -> list[tuple[str, str]]:
    workers = convt.get_num_threads() if threads is None else threads
    return [
        ("volume", f"{times(result.input_shape)} float32"),
        ("kernel", f"trilinear, {times(result.filters_shape)} taps, stride {FACTOR}, SAME"),
        ("result", f"{times(result.output_shape)} float32"),
        ("first call", f"{1e3 * result.first_seconds:.1f} ms, with compiling if not cached"),
        ("later calls", f"{1e3 * result.seconds:.2f} ms"),
        ("speed", f"{result.gflops:.1f} GFLOP/s, {workers} threads, {target.host().isa}"),
        ("largest error", f"{result.error:.1e}, against the definition in float64"),
    ]
