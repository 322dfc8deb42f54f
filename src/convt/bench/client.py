"""The other side of `worker`: starts a library's process, tells it what to do, and survives its end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from convt.bench.peers import Peer

__all__ = ["Failed", "Worker"]

_START_SECONDS = 120.0
_CLEARED = ("OMP_", "MKL_", "KMP_", "TF_", "XLA_", "JAX_", "GOMP_", "CONVT_NUM_THREADS")


class Failed(Exception):  # noqa: N818 - an outcome that is reported, not an error of the run
    """The library did not do what it was told: it "failed", is too "slow", or "unserved" by it."""

    def __init__(self, reason: str, status: str = "failed") -> None:
        super().__init__(reason)
        self.status = status


class Worker:
    """A process that one peer works in, started when it is first needed and after it broke off."""

    def __init__(
        self, peer: Peer, threads: int, environment: Mapping[str, str] | None = None
    ) -> None:
        self.peer, self.threads = peer, threads
        self._environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def ask(self, method: str, *arguments: Any, timeout: float) -> Any:
        """Call a method of the worker's and wait for its answer.

        Raises
        ------
        Failed
            If the method raised an exception, took longer than `timeout` seconds, or ended the process.
        """
        if self._connection is None:
            self._start()
        return self._exchange((method, arguments), timeout)

    def close(self) -> None:
        """End the process."""
        self._stop()
        self._log.close()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "convt.bench.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env=self._variables(),
            )
        self._connection = Connection(ours.detach())
        try:
            self._exchange(("start", (self.peer, self.threads)), _START_SECONDS)
        except Failed:
            self._stop()
            raise

    def _variables(self) -> dict[str, str]:
        """The environment, without what would change a library's defaults; convt found as it is here."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(_CLEARED)}
        root = str(Path(__file__).parents[2])
        paths = [root, *filter(None, [kept.get("PYTHONPATH")])]
        kept["PYTHONPATH"] = os.pathsep.join(paths)
        kept["PYTHONDONTWRITEBYTECODE"] = (
            ""  # modules are compiled once, as where they are installed
        )
        return {**kept, **dict(self.peer.environment), **self._environment}

    def _exchange(self, message: Any, timeout: float) -> Any:
        assert self._connection is not None
        try:
            self._connection.send(message)
            if not self._connection.poll(timeout):
                self._stop()
                raise Failed(f"took more than {timeout:.0f} s", "slow")
            outcome, value = self._connection.recv()
        except (EOFError, OSError):
            raise Failed(self._last_words()) from None
        if outcome != "done":
            raise Failed(value, outcome)
        return value

    def _last_words(self) -> str:
        assert self._process is not None
        process = self._process
        self._stop()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "")
        return f"the process ended with code {process.returncode}: {last.strip()[:160]}"

    def _stop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            try:
                self._process.wait(0.2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
