"""``python -m benchmarks``: `convt bench` for this project; it takes the same options.

A complete run writes docs/performance.md and its pictures; one that leaves something out writes
benchmarks/results/performance.md. The figures of every run are kept in benchmarks/results/, and what a run
that was broken off had measured is not measured again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from convt.cli import run

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PARTIAL = ("--quick", "--shapes", "--peers", "--rounds", "--threads")


def with_defaults(arguments: Sequence[str]) -> list[str]:
    """The options, and where the files go unless they say so."""
    given = {argument.split("=")[0] for argument in arguments}
    added = ["--force"]
    if given.isdisjoint(("--output", "-o")):
        complete = given.isdisjoint(PARTIAL)
        added += ["--output", str(ROOT / "docs" if complete else RESULTS)]
    if given.isdisjoint(("--journal", "--draw")):
        added += ["--journal", str(RESULTS / "unfinished.jsonl")]
    if given.isdisjoint(("--json", "--draw")):
        added += ["--json", str(RESULTS / f"{datetime.now():%Y%m%d-%H%M%S}.json")]
    return [*arguments, *added]


if __name__ == "__main__":
    RESULTS.mkdir(exist_ok=True)
    sys.exit(run(["bench", *with_defaults(sys.argv[1:])]))
