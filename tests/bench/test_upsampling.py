"""The benchmark of upsampling: every library is asked for the same thing, and gives it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from convt.bench.upsampling import (
    PEERS,
    Passes,
    Streamed,
    Turns,
    measure,
    measure_passes,
    measure_streaming,
    passes_table,
    stream_table,
    table,
)

NEEDS = {name: name.split(".")[0] for name in PEERS}


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["trilinear", "nearest"])
@pytest.mark.parametrize("peer", PEERS)
def test_other_libraries_compute_the_same(peer: str, kernel: str) -> None:
    if find_spec(NEEDS[peer]) is None:
        pytest.skip(f"{NEEDS[peer]} is not installed")
    (turns,) = measure(kernel, 6, 3, threads=2, rounds=2, peers=[peer])
    assert turns.peer == peer
    assert turns.error < 2e-6
    assert min(turns.ours, turns.theirs, turns.ratio) > 0


def test_the_table_has_a_line_for_each_comparison() -> None:
    turns = Turns("cubic", 64, 2, "somebody.zoom", ours=0.002, theirs=0.005, ratio=2.5, error=1e-7)
    assert table([turns]).splitlines()[2:] == [
        "| cubic | 64^3 to 128^3 | `somebody.zoom` | 5 | 2 | 2.5 | 1.0e-07 |"
    ]


def test_streaming_is_measured_beside_its_limits(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    found = measure_streaming("trilinear", 6, 2, tmp_path, compressor="none", threads=1, rounds=1)
    assert min(found.streamed, found.memory, found.stored, found.unchecked) > 0
    assert found.bytes == 4 * 12**3
    assert not list(tmp_path.iterdir())


def test_streamings_share_is_of_the_slower_limit() -> None:
    times = {"streamed": 0.5, "memory": 0.1, "stored": 0.4, "unchecked": 0.25}
    found = Streamed("cubic", 64, 2, "zstd", **times)
    assert found.share == 0.8
    assert stream_table([found]).splitlines()[2:] == [
        "| cubic | 64^3 to 128^3 | zstd | 16.78 | 83.89 | 20.97 | 33.55 | 80% |"
    ]


def test_every_grouping_of_axes_is_measured() -> None:
    found = measure_passes("cubic", 4, 2, threads=1, rounds=1)
    assert [each.grouping for each in found if each.chosen] == [((0,), (1,), (2,))]
    assert min(each.work for each in found) == found[-1].work  # d, hw is as little
    one = Passes("cubic", 64, 2, ((0,), (1, 2)), work=33.25, seconds=0.0125, chosen=True)
    assert passes_table([one]).splitlines()[2:] == [
        "| cubic | 64^3 to 128^3 | d, hw | 33.25 | 12.5 | yes |"
    ]
