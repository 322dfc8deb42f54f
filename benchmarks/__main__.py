"""``python -m benchmarks``: `convt bench` for this project; it takes the same options.

A complete run writes docs/performance.md and its pictures; one that leaves something out writes
benchmarks/results/performance.md. The figures of every run are kept in benchmarks/results/, and what a run
that was broken off had measured is not measured again.

``python -m benchmarks --choice`` measures, for many shapes, every kernel family that could serve, and tells
where the planner's choice takes more than a tenth longer than the fastest; names of shapes may follow.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from convt.bench import choice
from convt.cli import run

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PARTIAL = ("--quick", "--shapes", "--peers", "--rounds", "--threads")


def with_defaults(arguments: Sequence[str]) -> list[str]:
    """The options, and where the files go unless they say so."""
    given = {argument.split("=")[0] for argument in arguments}
    added = ["--force"]
    complete = given.isdisjoint(PARTIAL)
    if given.isdisjoint(("--output", "-o")):
        added += ["--output", str(ROOT / "docs" if complete else RESULTS)]
    if given.isdisjoint(("--journal", "--draw")):
        name = "unfinished.jsonl" if complete else "unfinished-partial.jsonl"
        added += ["--journal", str(RESULTS / name)]
    if given.isdisjoint(("--json", "--draw")):
        added += ["--json", str(RESULTS / f"{datetime.now():%Y%m%d-%H%M%S}.json")]
    return [*arguments, *added]


def check_choices(names: Sequence[str]) -> int:
    """Print how long each family takes, and where the choice loses; the exit code says whether it does."""
    known = {problem.name: problem for problem in choice.problems()}
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"{unknown[0]!r} is no shape known here: {', '.join(known)}", file=sys.stderr)
        return 2
    chosen = [known[name] for name in names] or list(known.values())
    found = list(choice.report(chosen, lambda line: print(line, flush=True)))
    for line in [choice.table(found).headings, *choice.table(found).rows]:
        print("| " + " | ".join(line) + " |")
    lost = sum(not one.good for one in found)
    print(f"{lost} of {len(found)} choices take more than {choice.ALLOWED - 1:.0%} longer")
    return int(lost > 0)


if __name__ == "__main__":
    RESULTS.mkdir(exist_ok=True)
    if sys.argv[1:2] == ["--choice"]:
        sys.exit(check_choices(sys.argv[2:]))
    sys.exit(run(["bench", *with_defaults(sys.argv[1:])]))
