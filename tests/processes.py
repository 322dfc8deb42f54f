"""Python in a process of its own: for what is decided once a process, or would end it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap


def python(code: str, **environment: str) -> str:
    """Run `code`, with `environment` added to this process' own, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def limited(line: list[str], size: int) -> list[str]:
    """The command `line`, with files limited to `size` bytes: as a command, since forks warn."""
    code = (
        f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size})); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    return [sys.executable, "-c", code, *line]
