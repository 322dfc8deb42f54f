"""A cluster of worker processes on the loopback interface: equal results, whatever happens to workers."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convt

distributed: Any = pytest.importorskip("distributed")
da: Any = pytest.importorskip("dask.array")
conv3d_transpose: Any = convt.conv3d_transpose

pytestmark = pytest.mark.slow
X = np.random.default_rng(0).standard_normal((2, 12, 12, 12, 4)).astype(np.float32)
W = np.random.default_rng(1).standard_normal((3, 3, 3, 6, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    settings = {"n_workers": 3, "threads_per_worker": 2, "host": "127.0.0.1"}
    with (
        distributed.LocalCluster(processes=True, dashboard_address=None, **settings) as cluster,
        distributed.Client(cluster) as connected,
    ):
        yield connected


def test_the_result_is_that_of_one_call(client: Any) -> None:
    lazy = conv3d_transpose(da.from_array(X, chunks=(1, 5, 6, 7, 4)), W, None, 2)
    expected = conv3d_transpose(X, W, None, 2)
    assert client.compute(lazy, sync=True).tobytes() == expected.tobytes()


def test_filters_come_to_each_worker_once(client: Any, tmp_path: Path) -> None:
    def note(folder: str) -> None:
        """In every worker: count unpickled problems, and the threads that kernels are given."""
        from convt import run
        from convt.blocks import Blocks

        there = Path(folder) / str(os.getpid())
        there.with_suffix(".filters").touch()
        there.with_suffix(".threads").touch()
        execute = run.execute

        def unpickled(self: Any, state: dict[str, Any]) -> None:
            vars(self).update(state)
            with there.with_suffix(".filters").open("a") as log:
                log.write("x")

        def executed(plan: Any, *rest: Any) -> None:
            with there.with_suffix(".threads").open("a") as log:
                log.write(f"{plan.threads}\n")
            execute(plan, *rest)

        Blocks.__setstate__ = unpickled  # type: ignore[attr-defined]
        run.execute = executed  # type: ignore[assignment]

    client.run(note, str(tmp_path))
    lazy = conv3d_transpose(da.from_array(X, chunks=(1, 3, 3, 3, 4)), W, None, 2)
    expected = conv3d_transpose(X, W, None, 2)
    assert client.compute(lazy, sync=True).tobytes() == expected.tobytes()
    arrivals = [len(path.read_text()) for path in tmp_path.glob("*.filters")]
    assert len(arrivals) == 3
    assert max(arrivals) == 1
    threads = " ".join(path.read_text() for path in tmp_path.glob("*.threads")).split()
    assert len(threads) == lazy.npartitions
    assert set(threads) == {"1"}  # two blocks at a time, for workers of two threads


def _slow(block: Any) -> Any:
    import time

    time.sleep(0.05)
    return block


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL there")
def test_a_worker_that_is_killed_loses_nothing(client: Any) -> None:
    x = da.from_array(X, chunks=(1, 3, 3, 4, 4)).map_blocks(_slow, dtype=X.dtype)
    lazy = conv3d_transpose(x, W, None, 2)
    expected = conv3d_transpose(X, W, None, 2)
    before = client.run(os.getpid)
    future = client.compute(lazy)
    while len(client.run_on_scheduler(_finished)) < 12:
        assert not future.done()
    assert not future.done()
    os.kill(next(iter(before.values())), signal.SIGKILL)
    assert future.result(timeout=60).tobytes() == expected.tobytes()
    assert set(client.run(os.getpid).values()) != set(before.values())


def _finished(dask_scheduler: Any) -> list[str]:
    return [key for key, task in dask_scheduler.tasks.items() if task.state == "memory"]
