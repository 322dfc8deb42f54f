"""Rows that are finished, kept in a file so that a run that is broken off goes on from them.

The file's first line tells what the rows depend on: convt's code, the libraries, the machine and the
pace. A file of anything else is begun anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from convt.bench import machine
from convt.bench.measure import Pace
from convt.bench.peers import Peer
from convt.bench.problems import Problem
from convt.bench.results import Row, read_row

__all__ = ["Journal"]


class Journal:
    """The file, or nothing where `path` is None."""

    def __init__(self, path: Path | None, peers: Sequence[Peer], pace: Pace) -> None:
        self._path = path
        self._head = json.dumps(_head(peers, pace), sort_keys=True)
        self._rows: dict[tuple[str, int, str], Row] = {}
        if path is not None:
            lines = [self._head, *self._read(path)]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join([*lines, ""]))

    def through(
        self,
        part: str,
        threads: int,
        problems: Sequence[Problem],
        measure: Callable[[list[Problem]], Iterable[Row]],
    ) -> Iterator[Row]:
        """The rows of `problems`: those that are kept, then the others, measured and kept."""
        kept = [row for p in problems if (row := self._rows.get((part, threads, p.name)))]
        yield from kept
        names = {row.problem for row in kept}
        for row in measure([problem for problem in problems if problem.name not in names]):
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(f"{json.dumps([part, asdict(row)])}\n")
            yield row

    def drop(self) -> None:
        """Remove the file: the run is complete."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _read(self, path: Path) -> Iterator[str]:
        """The lines of rows of such a run, but for a last one that broke off."""
        head, *lines = path.read_text().splitlines() if path.exists() else [""]
        if head != self._head:
            return
        with suppress(ValueError):
            for line in lines:
                part, found = json.loads(line)
                row = read_row(found)
                self._rows[part, row.threads, row.problem] = row
                yield line


def _head(peers: Sequence[Peer], pace: Pace) -> dict[str, Any]:
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        digest.update(path.read_bytes())
    return {
        "code": digest.hexdigest(),
        "versions": machine.versions(),
        "machine": machine.describe(),
        "peers": [peer.name for peer in peers],
        "pace": list(pace),
    }
