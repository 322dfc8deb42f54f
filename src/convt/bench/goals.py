"""What convt means to reach, each goal beside what was found.

Ratios against other libraries come from the rows of a run. The rest is convt against itself, measured here:
layouts, element types and threads in alternating turns, everything else in fresh processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf
from pathlib import Path
from statistics import geometric_mean, median
from typing import NamedTuple

import numpy as np

from convt.bench.check import expected
from convt.bench.client import Failed, Worker
from convt.bench.measure import Contender, Pace, duel
from convt.bench.peers import BOUND, GIVEN, OURS, PEERS
from convt.bench.problems import PROBLEMS, QUICK, Problem, make_data
from convt.bench.results import COMPARED, Goal, Row, overall, problem_of

__all__ = ["from_gradients", "from_rows", "measured"]

_FEW = ("gan_out", "voxel", "upsample", "tf10535")
_FILTERED = {  # where minimal filtering saves products: the ratio to reach with bound filters
    "gan_16": 1.8,
    "k3s1": 1.5,
    "k3s1_64": 2.2,
    "keras": 1.25,
    "video": 1.5,
    "odd_out": 1.15,
}
_SMALL = Problem("small", 8, 8, (4, 4, 4), (3, 3, 3), (2, 2, 2))
_PROCESSES = 5  # started for one figure, of which the median counts
_MIB = 1 << 20
_TIMEOUT = 120.0  # seconds
_IMPORT = """
import time, numpy
start = time.perf_counter()
import convt
loaded = time.perf_counter()
convt.conv3d_transpose
print(loaded - start, time.perf_counter() - start)
"""


# --- from the rows of a run ---------------------------------------------------------------------
def from_rows(rows: Sequence[Row]) -> Iterator[Goal]:
    """The goals that rows on the most threads tell of."""
    most = max((row.threads for row in rows), default=0)
    rows = [row for row in rows if row.threads == most]
    mean = overall(row for row in rows if row.problem in QUICK)
    if mean is not None:
        yield _least("against the best library, geometric mean", 1.4, mean, "{:.2f}")
    worst = min((r for r in rows if r.best()), key=_best_ratio, default=None)
    if worst is not None:
        what = "against the best library, worst shape"
        yield _least(what, 0.95, _best_ratio(worst), "{:.2f}", worst.problem)
    yield from _bound(rows)
    rich = [r for r in rows if problem_of(r).rich and r.arithmetic and r.ours(BOUND)]
    yield from _lowest("many channels, share of the multiply-add peak", 0.92, rich, of_peak=True)
    few = [r for r in rows if r.problem in _FEW and r.ours(BOUND)]
    yield from _lowest("1 to 3 channels, share of the roofline", 0.6, few, of_peak=False)
    yield from _against_torch(rows)


def from_gradients(rows: Sequence[Row]) -> Iterator[Goal]:
    """The goals for the result and both gradients."""
    what = "with both gradients, against the best library"
    mean = overall(rows)
    worst = min((row for row in rows if row.best()), key=_best_ratio, default=None)
    if mean is not None and worst is not None:
        yield _least(f"{what}, geometric mean", 1.3, mean, "{:.2f}")
        yield _least(f"{what}, worst shape", 0.9, _best_ratio(worst), "{:.2f}", worst.problem)


def _bound(rows: Sequence[Row]) -> Iterator[Goal]:
    """Against the best library that binds filters beforehand, too."""
    found = {row.problem: best.ratio for row in rows if (best := row.best(BOUND))}
    twelve = {name: found[name] for name in QUICK if name in found}
    if twelve:
        what = "filters bound, against the best library"
        yield _least(f"{what}, geometric mean", 2, geometric_mean(twelve.values()), "{:.2f}")
        name = min(twelve, key=twelve.__getitem__)
        yield _least(f"{what}, worst of the twelve", 1, twelve[name], "{:.2f}", name)
    for name, goal in _FILTERED.items():
        if name in found:
            what = f"filters bound, `{name}` against the best library"
            yield _least(what, goal, found[name], "{:.2f}")


def _best_ratio(row: Row) -> float:
    best = row.best()
    return best.ratio if best else inf


def _lowest(what: str, goal: float, rows: list[Row], *, of_peak: bool) -> Iterator[Goal]:
    shares = {}
    for row in rows:
        own = row.ours(BOUND)
        if own:
            shares[row.problem] = own.of_peak if of_peak else own.of_roofline
    if shares:
        name = min(shares, key=shares.__getitem__)
        middle = median(shares.values())
        yield _least(what, goal, shares[name], "{:.0%}", f"{name}; median {middle:.0%}")


def _against_torch(rows: Iterable[Row]) -> Iterator[Goal]:
    for row in rows:
        names = ("torch", "torch-last")
        found = [p.ratio for p in row.pairs if p.peer in names and p.status == COMPARED]
        if row.problem == "upsample" and found:
            yield _least("`upsample` against PyTorch", 12, min(found), "{:.1f}")


def _least(what: str, goal: float, found: float, form: str, note: str = "") -> Goal:
    return _goal(what, "at least", goal, found, form, note, met=found >= goal)


def _most(what: str, goal: float, found: float, form: str, note: str = "") -> Goal:
    return _goal(what, "at most", goal, found, form, note, met=found <= goal)


def _goal(
    what: str, word: str, goal: float, found: float, form: str, note: str, *, met: bool
) -> Goal:
    text = form.format(found) + (f" ({note})" if note else "")
    return Goal(what, f"{word} {form.format(goal)}", text, met)


# --- convt against itself -----------------------------------------------------------------------
def measured(problems: Sequence[Problem], threads: int, pace: Pace) -> Iterator[Goal]:
    """The goals that are measured apart from the rows, for those of `problems` that they concern."""
    with Worker(OURS, threads) as worker, Worker(OURS, 1) as single:
        yield from _whole("layouts and element types", _variants(worker, problems, pace))
        if threads > 1:
            yield from _whole("threads", _threads(worker, single, problems, pace))
        yield from _whole("small problem", _small(worker, pace))
    yield from _whole("memory", _memory(problems, threads))
    yield from _whole("import", _import())
    yield from _whole("first calls", _first_calls(threads))


def _whole(what: str, goals: Iterator[Goal]) -> Iterator[Goal]:
    """`goals`, and one that is missed where they broke off: a long run is not lost for that."""
    try:
        yield from goals
    except Failed as failure:
        yield Goal(what, "measured", str(failure), met=False)


def _ratio(one: tuple[Worker, Problem], other: tuple[Worker, Problem], pace: Pace) -> float | None:
    """How many times as long the other takes, bound filters, by alternating turns."""
    first, second = (Contender(worker, problem, BOUND) for worker, problem in (one, other))
    for contender in (first, second):
        wanted = expected(contender.problem, *make_data(contender.problem))
        contender.build(wanted, pace.longest)
    for _ in range(pace.rounds):
        if first.status == second.status == COMPARED:
            duel(first, second, pace)
    for contender in (first, second):
        contender.drop()
    return median(second.ratios) if second.ratios else None


def _variants(worker: Worker, problems: Sequence[Problem], pace: Pace) -> Iterator[Goal]:
    kinds = {"ncdhw": ("NCDHW, time relative to NDHWC", 1.3)}
    kinds["bf16"] = ("bfloat16, time relative to float32", 1.0)
    kinds["f16"] = ("float16, time relative to float32", 1.0)
    names = {problem.base for problem in problems}
    for kind, (what, goal) in kinds.items():
        found = {}
        for name in names:
            variant = PROBLEMS.get(f"{name}@{kind}")
            if variant is not None:
                found[name] = _ratio((worker, PROBLEMS[name]), (worker, variant), pace)
        yield from _worst(what, goal, found, max, _most)


def _threads(
    worker: Worker, single: Worker, problems: Sequence[Problem], pace: Pace
) -> Iterator[Goal]:
    """How much faster all threads are than one, where arithmetic sets the limit."""
    found = {
        problem.name: _ratio((worker, problem), (single, problem), pace)
        for problem in problems
        if problem.rich and problem.name == problem.base
    }
    goal = 0.925 * worker.threads  # 1.85 on two
    yield from _worst(f"{worker.threads} threads against 1", goal, found, min, _least)


def _worst(
    what: str,
    goal: float,
    found: dict[str, float | None],
    choose: Callable[..., str],
    compare: Callable[..., Goal],
) -> Iterator[Goal]:
    ratios = {name: ratio for name, ratio in found.items() if ratio is not None}
    if ratios:
        name = choose(ratios, key=ratios.__getitem__)
        note = f"{name}; median {median(ratios.values()):.2f}"
        yield compare(what, goal, ratios[name], "{:.3f}", note)


def _small(worker: Worker, pace: Pace) -> Iterator[Goal]:
    for setting, goal in ((BOUND, 40), (GIVEN, 80)):
        contender = Contender(worker, _SMALL, setting)
        contender.build(expected(_SMALL, *make_data(_SMALL)), pace.longest)
        times = [seconds for _ in range(_PROCESSES) if (seconds := contender.turn(pace))]
        if times:
            what = f"small problem ({_SMALL.title}), filters {setting}"
            yield _most(what, goal, 1e6 * median(times), "{:.0f} us")


def _memory(problems: Sequence[Problem], threads: int) -> Iterator[Goal]:
    """The most that one call takes beyond its arrays, and what TensorFlow takes on one shape."""
    found = {}
    for problem in problems:
        with Worker(OURS, threads) as worker:
            found[problem.name] = worker.ask("memory", problem, False, timeout=_TIMEOUT) / _MIB
    if found:
        name = max(found, key=found.__getitem__)
        note = f"{name}{_of_tensorflow(threads) if 'tf10535' in found else ''}"
        yield _most("memory beyond input, filters and output", 64, found[name], "{:.1f} MiB", note)


def _of_tensorflow(threads: int) -> str:
    peer = PEERS[0]
    if not peer.installed:
        return ""
    with Worker(peer, threads) as worker, suppress(Failed):
        size = worker.ask("memory", PROBLEMS["tf10535"], False, timeout=_TIMEOUT)
        return f"; TensorFlow takes {size / _MIB:,.0f} MiB for tf10535"
    return ""


def _import() -> Iterator[Goal]:
    times = []
    variables = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # the first compiles modules
    for _ in range(_PROCESSES + 1):
        done = subprocess.run(
            [sys.executable, "-c", _IMPORT], capture_output=True, check=True, env=variables
        )
        times.append([1e3 * float(seconds) for seconds in done.stdout.split()])
    found, functions = (median(column) for column in zip(*times[1:], strict=True))
    note = f"with its functions, which load when first used: {functions:.0f} ms"
    yield _most("import of convt, beyond NumPy's", 50, found, "{:.0f} ms", note)


class _First(NamedTuple):
    """Seconds of first calls in one process."""

    process: float  # of the very first, which loads the compiler
    problem: float  # of a new problem thereafter
    size: float  # of the same problem at another size
    kept: int  # objects that the last of them added to the cache


def _first_calls(threads: int) -> Iterator[Goal]:
    cold, warm = [], []
    for _ in range(_PROCESSES):
        with tempfile.TemporaryDirectory() as folder:
            cold.append(_first_call(folder, threads))
            warm.append(_first_call(folder, threads))
    for what, calls, goal in (("cold", cold, 150), ("from the disk cache", warm, 15)):
        found = 1e3 * float(np.median([call.problem for call in calls]))
        process = 1e3 * float(np.median([call.process for call in calls]))
        note = f"the first of a process, which loads LLVM: {process:.0f} ms"
        yield _most(f"first call of a new problem, {what}", goal, found, "{:.1f} ms", note)
    added = max(call.kept for call in cold)
    note = f"{1e3 * float(np.median([call.size for call in cold])):.1f} ms"
    yield _most("kernels compiled for another size alone", 0, added, "{:.0f}", note)


def _first_call(folder: str, threads: int) -> _First:
    problem = replace(PROBLEMS["keras"], size=(6, 6, 12))
    other = replace(PROBLEMS["upsample"], size=(12, 12, 48))
    larger = replace(problem, size=(7, 9, 20))
    with Worker(OURS, threads, {"CONVT_CACHE_DIR": folder}) as worker:
        first, new = (worker.ask("first", p, False, timeout=_TIMEOUT) for p in (other, problem))
        before = len(list(Path(folder).rglob("*.o")))
        size = worker.ask("first", larger, False, timeout=_TIMEOUT)
        return _First(first, new, size, len(list(Path(folder).rglob("*.o"))) - before)
