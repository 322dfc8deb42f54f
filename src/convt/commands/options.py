"""Options that several commands share, and how their text becomes the library's arguments."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from convt.volumes.files import check_target

__all__ = [
    "DataFormat",
    "Dilations",
    "Force",
    "Groups",
    "KeepDtype",
    "Memory",
    "Padding",
    "Resume",
    "Scheduler",
    "Strides",
    "Threads",
    "check_targets",
    "integers",
    "pads",
    "times",
]

Strides = Annotated[
    str,
    typer.Option(
        "--strides",
        "-s",
        metavar="N",
        help="Output voxels from one input voxel to the next, or D,H,W.",
    ),
]
Dilations = Annotated[
    str, typer.Option(metavar="N", help="Output voxels from one tap to the next, or D,H,W.")
]
Padding = Annotated[
    str,
    typer.Option(
        metavar="PAD",
        help="SAME, VALID, or what the forward convolution pads before and after each axis: "
        "B,A,B,A,B,A.",
    ),
]
DataFormat = Annotated[
    str, typer.Option(metavar="NAME", help="NDHWC: channels last; NCDHW: channels first.")
]
Groups = Annotated[int, typer.Option(metavar="N", help="Groups of channels, each on its own.")]
Threads = Annotated[
    int | None, typer.Option(metavar="N", help="Threads that compute; default: one a processor.")
]
Memory = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="What convt may take, as 1GiB; default: a quarter of all."),
]
Scheduler = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="A Dask scheduler whose workers compute."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an unfinished result.")]
KeepDtype = Annotated[
    bool,
    typer.Option("--keep-dtype", help="Round whole numbers, and clip them to the input's type."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]


def check_targets(*targets: tuple[Path | None, tuple[str, ...]], force: bool) -> None:
    """Refuse files that can't be written, before any work is done; each with its suffixes."""
    for path, suffixes in targets:
        if path is None:
            continue
        if not path.name.lower().endswith(suffixes):
            raise ValueError(f"{path}: the name must end in {' or '.join(suffixes)}")
        check_target(path, force=force)


def integers(option: str, text: str) -> list[int]:
    """The whole numbers in ``text``, separated by commas."""
    if not re.fullmatch(r"\s*-?\d+\s*(,\s*-?\d+\s*)*", text):
        raise ValueError(f"{option} must be whole numbers separated by commas, got {text!r}")
    return [int(number) for number in text.split(",")]


def pads(text: str) -> str | list[tuple[int, int]]:
    """``SAME`` or ``VALID`` as it is, six numbers as three pairs (before, after)."""
    if "," not in text:
        return text  # the library says what is wrong with another word
    numbers = integers("--padding", text)
    if len(numbers) != 6:
        raise ValueError(f"--padding must be SAME, VALID or six whole numbers, got {text!r}")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def times(sizes: Iterable[float | int]) -> str:
    """``2 x 3 x 4``, in letters that every terminal has."""
    return " x ".join(f"{size:.4g}" if isinstance(size, float) else str(size) for size in sizes)
