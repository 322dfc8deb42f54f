"""The process that one library works in: builds problems, checks them, and times calls, as it is told.

It reads ``(method, arguments)`` from the connection whose descriptor is on its command line, and answers
``(outcome, value)``, until the other side closes.
"""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy.typing as npt

from convt.bench.check import pick
from convt.bench.check_gradients import pick_gradients
from convt.bench.peers import BOUND, GRADIENTS, Peer, Ready, Unserved
from convt.bench.problems import Problem, make_data, make_gradient

__all__ = ["main"]

_MOST = 1000  # calls in a turn
_STATUS = Path("/proc/self/status")


def main() -> None:
    """Serve the connection until it is closed."""
    connection = Connection(int(sys.argv[1]))
    server: _Server | None = None
    with suppress(EOFError):
        while True:
            method, arguments = connection.recv()
            try:
                if server is None:
                    server = _Server(*arguments)
                    answer = None
                else:
                    answer = getattr(server, method)(*arguments)
                reply = ("done", answer)
            except Unserved as reason:
                reply = ("unserved", str(reason))
            except Exception as error:
                reply = ("failed", _one_line(error))
            connection.send(reply)


class _Server:
    def __init__(self, peer: Peer, threads: int) -> None:
        self._threads = threads
        self._module = import_module(peer.module)
        self._module.start(threads, peer.variant)
        self._ready: dict[str, Ready] = {}
        self._limits: Any = None

    def build(self, key: str, problem: Problem, setting: str) -> tuple[npt.NDArray[Any], float]:
        """Prepare a problem under the name `key`; what is to be checked, and seconds of the first call."""
        data = make_data(problem)
        ready: Ready
        if setting == GRADIENTS:
            ready = self._module.prepare_gradients(problem, *data, make_gradient(problem))
        else:
            ready = self._module.prepare(problem, *data, setting == BOUND)
        start = perf_counter()
        result = ready.call()
        seconds = perf_counter() - start
        self._ready[key] = ready
        found = ready.array(result)
        if setting == GRADIENTS:
            return pick_gradients(problem, *found), seconds
        return pick(problem, found), seconds

    def first(self, problem: Problem, bound: bool) -> float:
        """Seconds of the first call of a problem, with binding the filters if they are bound."""
        data = make_data(problem)
        start = perf_counter()
        self._module.prepare(problem, *data, bound).call()
        return perf_counter() - start

    def drop(self, key: str) -> None:
        self._ready.pop(key, None)

    def turn(self, key: str, seconds: float) -> list[float]:
        """Seconds of each of the calls that fit into `seconds`; the first only if no other does."""
        if key not in self._ready:
            raise LookupError("another problem ended the process that was ready")
        call = self._ready[key].call
        times: list[float] = []
        spent = 0.0
        while not times or (spent + times[-1] < seconds and len(times) <= _MOST):
            start = perf_counter()
            result = call()
            times.append(perf_counter() - start)
            spent += times[-1]
            del result  # freed as a user's would be, but not while the clock runs
        return times[1:] or times

    def limits(self, code: str) -> Any:
        """What this machine can do at most with numbers of the type `code`."""
        from convt.bench.limits import Limits

        if self._limits is None:
            self._limits = Limits(self._threads)
        return self._limits.measure(code)

    def memory(self, problem: Problem, bound: bool) -> int:
        """Bytes that the first call takes at its peak, beyond input, filters and output."""
        small = replace(problem, batch=1, size=(2, 2, 2), output=None)
        self._module.prepare(
            small, *make_data(small), bound
        ).call()  # loads all that is loaded late
        ready = self._module.prepare(problem, *make_data(problem), bound)
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        before = _memory("VmRSS")
        result = ready.call()
        beyond: int = _memory("VmHWM") - before - ready.array(result).nbytes
        return max(beyond, 0)


def _memory(field: str) -> int:
    """Bytes of memory in use (VmRSS), or at its peak (VmHWM)."""
    found = re.search(rf"{field}:\s+(\d+) kB", _STATUS.read_text())
    if found is None:
        raise OSError(f"{_STATUS} has no {field}")
    return int(found[1]) << 10


def _one_line(error: BaseException) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 200 else f"{text[:197]}..."


if __name__ == "__main__":
    main()
