"""The bar of a long command: rate and time left on a terminal, silence elsewhere."""

from __future__ import annotations

import io
import re
import time

from rich.console import Console

from convt.commands.progress import bar


def shown(*, terminal: bool) -> str:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=120, color_system=None)
    with bar("out.zarr", console) as progress:
        progress(0, 64 << 20)
        for step in range(1, 4):
            time.sleep(0.15)
            progress(step << 23, 64 << 20)
        time.sleep(0.15)
    return screen.getvalue()


def test_a_terminal_shows_rate_and_time_left() -> None:
    text = shown(terminal=True)
    assert "out.zarr" in text
    assert re.search(r"24\.0/64\.0 MiB", text)
    assert re.search(r"[\d.]+ MB/s 0:00:\d\d", text)


def test_elsewhere_nothing_is_shown() -> None:
    assert shown(terminal=False) == ""
