"""The threads that share a call's tasks.

Generated code takes tasks by itself, so a thread here makes one foreign call, which releases the
interpreter lock. Helpers start when first needed, wait without load, and are made anew after a fork.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from queue import SimpleQueue
from typing import Any

__all__ = ["begin", "get_num_threads", "parse_threads", "set_num_threads", "share"]

_chosen: int | None = None


def set_num_threads(count: int) -> None:
    """Set how many threads one call may use from now on, in this process.

    Parameters
    ----------
    count : int
        At least 1. Results do not depend on it, not in one bit.

    Examples
    --------
    >>> import convt
    >>> before = convt.get_num_threads()
    >>> convt.set_num_threads(1)
    >>> convt.get_num_threads()
    1
    >>> convt.set_num_threads(before)
    """
    global _chosen
    _chosen = parse_threads(count)


def get_num_threads() -> int:
    """How many threads one call may use.

    What `set_num_threads` chose, or the environment's ``CONVT_NUM_THREADS``, or the number of processors
    that this process may run on.
    """
    chosen = _chosen or _named()
    if chosen:
        return chosen
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@lru_cache(maxsize=1)
def _named() -> int | None:
    """What the environment says, which is asked once."""
    named = os.environ.get("CONVT_NUM_THREADS")
    if not named:
        return None
    try:
        return parse_threads(int(named))
    except ValueError:
        raise ValueError(f"CONVT_NUM_THREADS={named!r} must be an integer, at least 1") from None


def parse_threads(count: Any) -> int:
    """`count` as a number of threads."""
    if isinstance(count, bool) or not hasattr(count, "__index__"):
        raise TypeError(f"threads = {count!r} must be an integer, at least 1")
    count = count.__index__()
    if count < 1:
        raise ValueError(f"threads = {count} must be at least 1")
    return int(count)


class _Pool:
    """Helper threads, as many as were ever asked for."""

    def __init__(self) -> None:
        self.queue: SimpleQueue[tuple[Callable[[], None], SimpleQueue[BaseException | None]]]
        self.queue = SimpleQueue()
        self.count = 0
        self.lock = threading.Lock()

    def grow(self, count: int) -> int:
        """Have `count` helpers, or as many as can be had; returns how many of `count` there are."""
        with self.lock, suppress(RuntimeError):  # no more threads, or the interpreter ends
            while self.count < count:
                name = f"convt-{self.count + 1}"
                threading.Thread(target=self._serve, name=name, daemon=True).start()
                self.count += 1
        return min(self.count, count)

    def _serve(self) -> None:
        while True:
            work, done = self.queue.get()
            try:
                work()
                done.put(None)
            except BaseException as error:
                done.put(error)


_pool = _Pool()


def _renew() -> None:
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def begin(work: Callable[[], None]) -> Callable[[], None]:
    """Start ``work()`` in a helper; what is returned waits for its end."""
    pool = _pool
    if not pool.grow(1):
        work()
        return lambda: None
    done: SimpleQueue[BaseException | None] = SimpleQueue()
    pool.queue.put((work, done))

    def wait() -> None:
        failure = done.get()
        if failure is not None:
            raise failure

    return wait


def share(work: Callable[[], None], count: int) -> None:
    """Run ``work()`` in up to `count` threads side by side, one of them this, and wait for all."""
    if count == 1:
        work()
        return
    pool = _pool
    helpers = pool.grow(count - 1)
    done: SimpleQueue[BaseException | None] = SimpleQueue()
    for _ in range(helpers):
        pool.queue.put((work, done))
    failure = None
    try:
        work()
    finally:
        for _ in range(helpers):
            failure = done.get() or failure
    if failure is not None:
        raise failure
