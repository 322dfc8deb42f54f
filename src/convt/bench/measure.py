"""Turns: convt, another library, convt, another library, each in its own process, one at a time.

A round measures the machine's limits, then goes through the settings and the libraries. Every turn of a
library follows one of convt's, and only the two are compared: a machine that slows down slows both.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from convt.bench.check import Expected, expected
from convt.bench.client import Failed, Worker
from convt.bench.peers import BOUND, GIVEN, OURS, Peer
from convt.bench.problems import Problem, make_data
from convt.bench.results import COMPARED, DIFFERS, Own, Pair, Row

__all__ = ["Contender", "Pace", "measure"]

_LONGEST = 60.0  # seconds that anything else may take
_SETTLE = 0.01  # seconds before a turn, for the threads of the last one to fall asleep
SETTINGS = (GIVEN, BOUND)


class Pace(NamedTuple):
    """How long to measure."""

    rounds: int  # turns of each pair, at most
    turn: float  # seconds in a turn, but at least one call
    patience: float  # seconds that a library's turns may take on one problem
    longest: float  # seconds after which a library that does not answer is given up


@dataclass
class Contender:
    """One library at work on one problem in one setting."""

    worker: Worker
    problem: Problem
    setting: str
    status: str = COMPARED
    reason: str = ""
    error: float = 0.0
    times: list[float] = field(default_factory=list)  # seconds: the median of each turn
    ratios: list[float] = field(default_factory=list)  # to the turn of convt's before

    @property
    def key(self) -> str:
        return f"{self.problem.name} {self.setting}"

    def build(self, wanted: Expected, longest: float) -> float:
        """Prepare the problem, compute it once, check the result; the seconds of that call."""
        try:
            arguments = (self.key, self.problem, self.setting == BOUND)
            found, seconds = self.worker.ask("build", *arguments, timeout=longest)
        except Failed as failure:
            self.give_up(failure)
            return 0.0
        self.error = wanted.error(found)
        if self.error > 1:
            self.status = DIFFERS
            self.reason = f"its error is {self.error:.3g} times what is let pass"
        return float(seconds)

    def turn(self, pace: Pace) -> float | None:
        """The median of a few calls, or None if they failed."""
        time.sleep(_SETTLE)
        try:
            times = self.worker.ask("turn", self.key, pace.turn, timeout=2 * pace.longest)
        except Failed as failure:
            self.give_up(failure)
            return None
        self.times.append(median(times))
        return self.times[-1]

    def give_up(self, failure: Failed) -> None:
        self.status = failure.status
        self.reason = str(failure)

    def drop(self) -> None:
        """Free the problem's memory."""
        if self.status in (COMPARED, DIFFERS):
            with suppress(Failed):  # where there is nothing left to free
                self.worker.ask("drop", self.key, timeout=_LONGEST)

    def pair(self) -> Pair:
        """What was found, of another library."""
        found = Pair(self.worker.peer.name, self.setting, self.status, self.reason, self.error)
        if self.status != COMPARED or not self.ratios:
            return found
        return Pair(
            *(found.peer, found.setting, found.status, found.reason, found.error),
            ratios=tuple(self.ratios),
            ratio=median(self.ratios),
            seconds=median(self.times),
        )


def duel(ours: Contender, theirs: Contender, pace: Pace) -> None:
    """A turn of each, and how many times as long theirs took."""
    mine = ours.turn(pace)
    other = theirs.turn(pace) if mine else None
    if mine and other:
        theirs.ratios.append(other / mine)


def measure(
    problems: Sequence[Problem], peers: Sequence[Peer], threads: int, pace: Pace
) -> Iterator[Row]:
    """Measure one problem after another on so many threads."""
    with ExitStack() as stack:
        ours = stack.enter_context(Worker(OURS, threads))
        others = [stack.enter_context(Worker(peer, threads)) for peer in peers]
        for problem in problems:
            yield _Match(problem, ours, others, pace).play()


class _Match:
    """One problem, all settings and libraries."""

    def __init__(
        self, problem: Problem, ours: Worker, others: Sequence[Worker], pace: Pace
    ) -> None:
        self._problem, self._ours, self._pace = problem, ours, pace
        self._own = {setting: Contender(ours, problem, setting) for setting in SETTINGS}
        self._rivals = [
            Contender(worker, problem, setting)
            for setting in SETTINGS
            for worker in others
            if setting in worker.peer.settings
        ]
        self._rates: list[tuple[float, float]] = []  # peak flops, bytes: of each round
        self._fractions: dict[str, list[tuple[float, float]]] = {s: [] for s in SETTINGS}

    def play(self) -> Row:
        everyone = [*self._own.values(), *self._rivals]
        wanted = expected(self._problem, *make_data(self._problem))
        for contender in everyone:
            self._build(contender, wanted)
        for _ in range(self._pace.rounds):
            self._round()
        for contender in everyone:
            contender.drop()
        return self._row()

    def _build(self, contender: Contender, wanted: Expected) -> None:
        """Build; a library slower than patience allows is compared by this one call."""
        seconds = contender.build(wanted, self._pace.longest)
        own = self._own[contender.setting]
        if contender is own or contender.status != COMPARED or seconds < self._pace.patience:
            return
        if own.status == COMPARED and (mine := own.turn(self._pace)):
            contender.times.append(seconds)
            contender.ratios.append(seconds / mine)

    def _round(self) -> None:
        code = "f64" if self._problem.dtype == "float64" else "f32"
        rates = self._ours.ask("limits", code, timeout=_LONGEST)
        self._rates.append((rates.flops, rates.bytes))
        for setting, own in self._own.items():
            rivals = [r for r in self._rivals if r.setting == setting and self._plays(r)]
            before = len(own.times)
            if own.status != COMPARED:
                continue
            for rival in rivals:
                duel(own, rival, self._pace)
            if not rivals:
                own.turn(self._pace)
            self._fractions[setting] += map(self._fraction, own.times[before:])

    def _plays(self, rival: Contender) -> bool:
        spent = sum(max(seconds, self._pace.turn) for seconds in rival.times)
        return rival.status == COMPARED and (not rival.times or spent < self._pace.patience)

    def _fraction(self, seconds: float) -> tuple[float, float]:
        """A call's share of the peak, and of what peak and memory allow, as last measured."""
        flops, memory = self._rates[-1]
        least = self._problem.flops / flops
        return least / seconds, max(least, self._problem.bytes / memory) / seconds

    def _row(self) -> Row:
        problem = self._problem
        return Row(
            problem=problem.name,
            title=problem.title,
            threads=self._ours.threads,
            flops=problem.flops,
            bytes=problem.bytes,
            peak_flops=median(flops for flops, _ in self._rates),
            copy_bytes=median(memory for _, memory in self._rates),
            own=tuple(self._summary(own) for own in self._own.values()),
            pairs=tuple(rival.pair() for rival in self._rivals),
        )

    def _summary(self, own: Contender) -> Own:
        found = (own.setting, own.status, own.reason, own.error)
        if own.status != COMPARED or not self._fractions[own.setting]:
            return Own(*found)
        peak, roofline = zip(*self._fractions[own.setting], strict=True)
        return Own(*found, median(own.times), median(peak), median(roofline))
