"""What a run found, as plain frozen records, and their JSON.

A ratio is always the other library's seconds divided by convt's: above 1, convt is faster.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from convt.bench.problems import PROBLEMS, Problem

__all__ = [
    "COMPARED",
    "DIFFERS",
    "Goal",
    "Own",
    "Pair",
    "Results",
    "Row",
    "load",
    "read_row",
    "save",
]

COMPARED, DIFFERS = "compared", "differs"  # other states: "failed", "slow", "unserved"
_FORMAT = 2


@dataclass(frozen=True, slots=True)
class Pair:
    """convt against one other library on one problem."""

    peer: str
    setting: str  # of filters: "given" or "bound"
    status: str  # "compared", "differs", "failed", "slow" or "unserved"
    reason: str = ""  # why it was not compared
    error: float = 0.0  # largest error, as a multiple of what is let pass
    ratios: tuple[float, ...] = ()  # one for each pair of neighbouring turns
    ratio: float = 0.0  # their median
    seconds: float = 0.0  # of the other library's calls: the median


@dataclass(frozen=True, slots=True)
class Own:
    """convt by itself on one problem."""

    setting: str
    status: str
    reason: str = ""
    error: float = 0.0
    seconds: float = 0.0  # the median
    of_peak: float = 0.0  # its rate, as a fraction of the multiply-adds that the machine can do
    of_roofline: float = 0.0  # the same of what peak and memory together allow


@dataclass(frozen=True, slots=True)
class Row:
    """One problem on so many threads."""

    problem: str
    title: str
    threads: int
    flops: int
    bytes: int
    peak_flops: float  # what the machine could do per second, measured between the turns
    copy_bytes: float
    own: tuple[Own, ...]
    pairs: tuple[Pair, ...]

    @property
    def intensity(self) -> float:
        """Multiplications and additions per byte of input, filters and output."""
        return self.flops / self.bytes

    @property
    def arithmetic(self) -> bool:
        """Whether multiply-adds, and not memory, set the limit."""
        return self.intensity * self.copy_bytes >= self.peak_flops

    def best(self, setting: str | None = None) -> Pair | None:
        """The fastest of the other libraries, relative to convt in the same setting."""
        found = [p for p in self.pairs if p.status == COMPARED and setting in (None, p.setting)]
        return min(found, key=lambda pair: pair.ratio, default=None)

    def ours(self, setting: str) -> Own | None:
        """What convt did in one setting, if it was timed."""
        return next((o for o in self.own if o.setting == setting and o.seconds), None)


@dataclass(frozen=True, slots=True)
class Goal:
    """One thing that convt means to reach, and what was found."""

    what: str
    goal: str
    found: str
    met: bool


@dataclass(frozen=True, slots=True)
class Results:
    """A whole run."""

    date: str
    seconds: float  # that the run took
    machine: dict[str, str]
    versions: dict[str, str]
    peers: dict[str, str]  # names and labels
    rounds: int  # turns of each pair, at most
    rows: tuple[Row, ...]
    gradients: tuple[Row, ...]  # the result and both gradients
    goals: tuple[Goal, ...]

    @property
    def sound(self) -> bool:
        """Whether convt computed everything, and rightly."""
        rows = (*self.rows, *self.gradients)
        return all(own.status == COMPARED for row in rows for own in row.own)


def overall(rows: Iterable[Row]) -> float | None:
    """The geometric mean of the ratios to the best other library of each row."""
    ratios = [best.ratio for row in rows if (best := row.best())]
    return geometric_mean(ratios) if ratios else None


def problem_of(row: Row) -> Problem:
    return PROBLEMS[row.problem]


def save(results: Results, path: Path) -> None:
    """Write `results` as JSON; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"format": _FORMAT, **asdict(results)}, indent=1) + "\n")


def load(path: Path) -> Results:
    """Read what `save` wrote.

    Raises
    ------
    ValueError
        If the file is something else.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        if found.pop("format") != _FORMAT:
            raise ValueError("another format")
        rows, gradients = (tuple(map(read_row, found.pop(k))) for k in ("rows", "gradients"))
        goals = tuple(Goal(**goal) for goal in found.pop("goals"))
        return Results(**found, rows=rows, gradients=gradients, goals=goals)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: no results of this benchmark: {error}") from None


def read_row(found: dict[str, Any]) -> Row:
    """The row that ``asdict`` took apart."""
    if found["problem"] not in PROBLEMS:
        raise ValueError(f"{found['problem']!r} is no shape known here")
    own = tuple(Own(**own) for own in found.pop("own"))
    pairs = tuple(Pair(**{**pair, "ratios": tuple(pair["ratios"])}) for pair in found.pop("pairs"))
    return Row(**found, own=own, pairs=pairs)
