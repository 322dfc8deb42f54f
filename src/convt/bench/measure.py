"""Turns: convt, another library, convt, another library, each in its own process, one at a time.

A round measures the machine's limits, then goes through the libraries. Every turn of a library follows one
of convt's, and only the two are compared: a machine that slows down slows both.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from convt.bench.check import Expected, expected
from convt.bench.check_gradients import expected_gradients
from convt.bench.client import Failed, Worker
from convt.bench.peers import BOUND, GIVEN, GRADIENTS, OURS, Peer
from convt.bench.problems import Problem, make_data, make_gradient
from convt.bench.results import COMPARED, DIFFERS, Own, Pair, Row

__all__ = ["Contender", "Pace", "measure"]

_LONGEST = 60.0  # seconds that anything else may take
_SETTLE = 0.01  # seconds before a turn, for the threads of the last one to fall asleep
_SUMS = {GIVEN: 1, BOUND: 1, GRADIENTS: 3}  # in a call, each as large as the forward one


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
            arguments = (self.key, self.problem, self.setting)
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
    problems: Sequence[Problem],
    peers: Sequence[Peer],
    threads: int,
    pace: Pace,
    settings: Sequence[str] = (GIVEN, BOUND),
) -> Iterator[Row]:
    """Measure one problem after another on so many threads."""
    with ExitStack() as stack:
        ours = stack.enter_context(Worker(OURS, threads))
        others = [stack.enter_context(Worker(peer, threads)) for peer in peers]
        for problem in problems:
            data = make_data(problem)
            wanted = dict.fromkeys((GIVEN, BOUND), expected(problem, *data))
            if GRADIENTS in settings:
                wanted[GRADIENTS] = expected_gradients(problem, *data, make_gradient(problem))
            matches = {s: _Match(problem, s, ours, others, pace) for s in settings}
            for setting, match in matches.items():
                match.play(wanted[setting])
            yield _row(problem, threads, list(matches.values()), _SUMS[settings[0]])


class _Match:
    """One problem in one setting, convt against all libraries."""

    def __init__(
        self, problem: Problem, setting: str, ours: Worker, others: Sequence[Worker], pace: Pace
    ) -> None:
        self._problem, self._worker, self._pace = problem, ours, pace
        self._sums = _SUMS[setting]
        self._own = Contender(ours, problem, setting)
        self._rivals = [
            Contender(worker, problem, setting)
            for worker in others
            if setting in worker.peer.settings
        ]
        self.rates: list[tuple[float, float]] = []  # peak flops and bytes per second: of each round
        self._shares: list[tuple[float, float]] = []  # of the peak and the roofline: of each turn

    def play(self, wanted: Expected) -> None:
        """Build for everyone, check, take turns, and free the memory."""
        for contender in (self._own, *self._rivals):
            self._build(contender, wanted)
        for _ in range(self._pace.rounds):
            self._round()
        for contender in (self._own, *self._rivals):
            contender.drop()

    def _build(self, contender: Contender, wanted: Expected) -> None:
        """Build; a library slower than patience allows is compared by this one call."""
        seconds = contender.build(wanted, self._pace.longest)
        if contender is self._own or contender.status != COMPARED or seconds < self._pace.patience:
            return
        if self._own.status == COMPARED and (mine := self._own.turn(self._pace)):
            contender.times.append(seconds)
            contender.ratios.append(seconds / mine)

    def _round(self) -> None:
        code = "f64" if self._problem.dtype == "float64" else "f32"
        rates = self._worker.ask("limits", code, timeout=_LONGEST)
        self.rates.append((rates.flops, rates.bytes))
        if self._own.status != COMPARED:
            return
        before = len(self._own.times)
        rivals = [rival for rival in self._rivals if self._plays(rival)]
        for rival in rivals:
            duel(self._own, rival, self._pace)
        if not rivals:
            self._own.turn(self._pace)
        self._shares += map(self._share, self._own.times[before:])

    def _plays(self, rival: Contender) -> bool:
        spent = sum(max(seconds, self._pace.turn) for seconds in rival.times)
        return rival.status == COMPARED and (not rival.times or spent < self._pace.patience)

    def _share(self, seconds: float) -> tuple[float, float]:
        """A call's share of the peak, and of what peak and memory allow, as last measured."""
        flops, memory = self.rates[-1]
        least = self._sums * self._problem.flops / flops
        moved = self._sums * self._problem.bytes / memory
        return least / seconds, max(least, moved) / seconds

    def own(self) -> Own:
        """What was found of convt."""
        own = self._own
        found = (own.setting, own.status, own.reason, own.error)
        if own.status != COMPARED or not self._shares:
            return Own(*found)
        peak, roofline = zip(*self._shares, strict=True)
        return Own(*found, median(own.times), median(peak), median(roofline))

    def pairs(self) -> list[Pair]:
        """What was found of the other libraries."""
        return [rival.pair() for rival in self._rivals]


def _row(problem: Problem, threads: int, matches: Sequence[_Match], sums: int) -> Row:
    rates = [rate for match in matches for rate in match.rates]
    return Row(
        problem=problem.name,
        title=problem.title,
        threads=threads,
        flops=sums * problem.flops,
        bytes=sums * problem.bytes,
        peak_flops=median(flops for flops, _ in rates),
        copy_bytes=median(memory for _, memory in rates),
        own=tuple(match.own() for match in matches),
        pairs=tuple(pair for match in matches for pair in match.pairs()),
    )
