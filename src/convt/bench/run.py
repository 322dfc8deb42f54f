"""A whole run: every shape with every library, then gradients, then convt's goals."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from typing import NamedTuple

from convt.bench import goals, machine
from convt.bench.journal import Journal
from convt.bench.measure import Pace, measure
from convt.bench.peers import BOUND, GIVEN, GRADIENTS, OURS, Peer, choose
from convt.bench.problems import PROBLEMS, QUICK, Problem, select
from convt.bench.results import Results, Row

__all__ = ["Choice", "choose_run", "run"]

_FULL = Pace(rounds=7, turn=0.1, patience=3, longest=30)
_QUICK = Pace(rounds=3, turn=0.06, patience=1, longest=6)


class Choice(NamedTuple):
    """What to run."""

    problems: list[Problem]
    peers: list[Peer]
    threads: tuple[int, ...]  # one pass over the problems each, the most threads first
    pace: Pace
    complete: bool  # nothing was left out


def choose_run(
    *,
    quick: bool,
    shapes: Sequence[str] | None,
    peers: Sequence[str] | None,
    threads: Sequence[int] | None,
    rounds: int | None,
) -> Choice:
    """Turn options into a choice; None stands for the default, which `quick` shortens.

    Raises
    ------
    ValueError
        If a name is unknown or a number is below 1.
    """
    if rounds is not None and rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    if threads is not None and min(threads, default=0) < 1:
        raise ValueError(f"threads must be at least 1, got {', '.join(map(str, threads))}")
    most = machine.processors()
    counts = threads or ((most,) if quick else (most, 1))
    names = shapes or (QUICK if quick else tuple(PROBLEMS))
    pace = _QUICK if quick else _FULL
    return Choice(
        select(names),
        choose(peers),
        tuple(sorted(set(counts), reverse=True)),
        pace if rounds is None else pace._replace(rounds=rounds),
        complete=not quick and shapes is None and peers is None,
    )


def run(
    choice: Choice, say: Callable[[Row | str], None], journal: Journal | None = None
) -> Results:
    """Measure all of it; `say` hears of every row, and of what comes next.

    What `journal` holds of an earlier run that was broken off is not measured again.
    """
    start = time.perf_counter()
    journal = journal or Journal(None, choice.peers, choice.pace)

    def rows_of(
        part: str, problems: list[Problem], peers: list[Peer], threads: int, *settings: str
    ) -> Iterator[Row]:
        def measured(rest: list[Problem]) -> Iterator[Row]:
            return measure(rest, peers, threads, choice.pace, settings)

        for row in journal.through(part, threads, problems, measured):
            say(row)
            yield row

    rows: list[Row] = []
    for number, threads in enumerate(choice.threads):
        problems, peers = choice.problems, choice.peers
        if number and choice.complete:  # what takes long, and variants, on the most threads alone
            problems = [problem for problem in problems if problem.name == problem.base]
            peers = [peer for peer in peers if not peer.once]
        say(f"{len(problems)} shapes, {_threads(threads)}")
        rows += rows_of("results", problems, peers, threads, GIVEN, BOUND)
    threads = choice.threads[0]
    problems = [problem for problem in choice.problems if problem.name in QUICK]
    peers = [peer for peer in choice.peers if GRADIENTS in peer.settings]
    if problems:
        say(f"{len(problems)} shapes with both gradients, {_threads(threads)}")
    gradients = list(rows_of(GRADIENTS, problems, peers, threads, GRADIENTS))
    say("convt against its goals")
    found = [
        *goals.from_rows(rows),
        *goals.from_gradients(gradients),
        *goals.measured(choice.problems, choice.threads[0], choice.pace),
    ]
    return Results(
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        seconds=time.perf_counter() - start,
        machine=machine.describe(),
        versions=machine.versions(),
        peers={peer.name: peer.label for peer in (OURS, *choice.peers)},
        rounds=choice.pace.rounds,
        rows=tuple(rows),
        gradients=tuple(gradients),
        goals=tuple(found),
    )


def _threads(count: int) -> str:
    return f"{count} thread" if count == 1 else f"{count} threads"
