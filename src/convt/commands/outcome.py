"""What commands that stream a volume to a file end with: a picture if asked for, and a line for each."""

from __future__ import annotations

from math import prod
from pathlib import Path

import typer

from convt import volumes
from convt.commands.options import times
from convt.volumes.affine import voxel_sizes
from convt.volumes.preview import draw
from convt.volumes.regions import stored_sizes
from convt.volumes.stores import Source

__all__ = ["report"]


def report(
    volume: Path,
    output: Path,
    data_format: str,
    *,
    seconds: float,
    preview: Path | None,
    force: bool,
    note: str = "",
) -> None:
    """Draw both volumes, of which slices are read, and print their sizes and the rate."""
    before, after = (_opened(path, data_format) for path in (volume, output))
    if preview is not None:
        draw(preview, before.volume(), after.volume(), force=force)
    rate = after.dtype.itemsize * prod(after.shape) / seconds / 1e6
    typer.echo(f"{volume}: {_describe(before)}{note if before.dtype.kind in 'biu' else ''}")
    typer.echo(f"{output}: {_describe(after)}, {1e3 * seconds:.3g} ms, {rate:.3g} MB/s")


def _opened(path: Path, data_format: str) -> Source:
    last = path.name.lower().endswith((".nii", ".nii.gz"))  # channels are, in every NIfTI volume
    return volumes.open_source(path, "NDHWC" if last else data_format)


def _describe(source: Source) -> str:
    text = f"{times(stored_sizes(source.shape, source.axes))} {source.dtype.name}"
    if source.affine is None:
        return text
    return f"{text}, voxels of {times(voxel_sizes(source.affine))}"
