"""How far a command has come, on a terminal: a bar with the rate and the time left, gone when done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

__all__ = ["bar"]


@contextmanager
def bar(name: str, console: Console | None = None) -> Iterator[Callable[[int, int], None]]:
    """Show a bar while the block runs; gives what is told the bytes that are done, and all.

    It goes to standard error, and only where that is a terminal.
    """
    console = Console(stderr=True) if console is None else console
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    shown = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with shown:
        task = shown.add_task(name, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)
