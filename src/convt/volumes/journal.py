"""What is finished of an unfinished volume: a line a block, readable after any end of a process.

The first line says what job it is, so that only the same job goes on; each other line is the number of a
block that is written. A line is appended whole, after its block; one that was cut short counts for nothing.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from convt.volumes.files import VolumeError

__all__ = ["Journal"]


class Journal:
    """The record of finished blocks.

    Parameters
    ----------
    path : str
        The file.
    job : dict
        What the result depends on, in plain values: blocks are finished for this job alone.
    resume : bool
        Go on with a file that is there, instead of starting anew.

    Raises
    ------
    VolumeError
        If the file to go on with belongs to another job.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Journal(f"{folder}/journal", {"blocks": 3}, resume=False).add(2)
    ...     sorted(Journal(f"{folder}/journal", {"blocks": 3}, resume=True).done)
    [2]
    """

    def __init__(self, path: str, job: dict[str, Any], *, resume: bool) -> None:
        self.path = path
        self.done: set[int] = set()
        first = json.dumps(job, sort_keys=True)
        if resume and Path(path).exists():
            *lines, _ = Path(path).read_text("utf-8").split("\n")
            if not lines or lines[0] != first:
                raise VolumeError(f"{path}: {self._difference(job)}")
            self.done = {int(line) for line in lines[1:]}
            os.truncate(path, len("".join(f"{line}\n" for line in lines).encode()))
        else:
            Path(path).write_text(f"{first}\n", "utf-8")

    @staticmethod
    def read_job(path: str) -> dict[str, Any]:
        """The job that a journal belongs to."""
        try:
            job = json.loads(Path(path).read_text("utf-8").partition("\n")[0])
        except ValueError:
            job = None
        if not isinstance(job, dict):
            raise VolumeError(f"{path}: is no journal of an unfinished volume; start anew")
        return job

    def add(self, block: int) -> None:
        """Record a finished block."""
        self._append(f"{block}\n")
        self.done.add(block)

    def _append(self, text: str) -> None:
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)

    def _difference(self, job: dict[str, Any]) -> str:
        """Why a journal can't be gone on with."""
        other = self.read_job(self.path)
        names = [name for name in job if other.get(name) != job[name]]
        another = " and another ".join(names)
        return f"the unfinished volume was started with another {another}; start anew"
