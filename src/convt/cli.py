"""The ``convt`` command: one line per error, and an exit code that scripts can rely on.

0: done. 1: a volume could not be read or written on the way, said in one line on standard error, or the
reader of standard output left. 2: something about the call, a file or this machine is wrong, said so too.
130: interrupted, 143: told to stop. After any of these a result that is not finished is one that `--resume`
goes on with, under another name, or nothing. A traceback is a defect of convt. The commands themselves are
in `commands`, which needs the libraries of the extra ``cli``; this module needs none of them.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib.util import find_spec
from types import FrameType

__all__ = ["main", "run"]

EXTRA = ("matplotlib", "nibabel", "rich", "typer")
CHECKS = ("convt.arguments", "convt.spec", "convt.threads", "convt.target", "convt.volumes")
READER_LEFT, FAILED, WRONG, INTERRUPTED, TOLD_TO_STOP = 1, 1, 2, 130, 143


def main() -> None:
    """Run the command line of this process, and exit."""
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    Parameters
    ----------
    arguments : sequence of str
        What follows ``convt``.

    Returns
    -------
    int
        The exit code.
    """
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        return _fail(f'the command line needs {", ".join(missing)}: pip install "convt[cli]"')
    try:
        from convt.commands import app

        code = app(list(arguments), prog_name="convt", standalone_mode=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe has gone, as in `convt info | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return READER_LEFT
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        return _fail(message, FAILED if _on_the_way(error) else WRONG)
    return code if isinstance(code, int) else 0


def _message(error: Exception) -> str | None:
    """What to tell the user, or None for an error that should not happen."""
    describe = getattr(error, "format_message", None)  # of a usage error
    if describe is not None:
        return f"{describe()} (see convt --help)"
    if isinstance(error, FileExistsError):
        if str(error.filename).endswith(".part"):
            return f"{error.filename}: is unfinished; --resume goes on with it, --force starts anew"
        return f"{error.filename}: exists already; --force replaces it"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError):
        return f"not enough memory: {error}" if str(error) else "not enough memory"
    if isinstance(error, (TypeError, ImportError)) and not _checked(error):
        return None
    return str(error) if isinstance(error, (OSError, ValueError, TypeError, ImportError)) else None


def _checked(error: Exception) -> bool:
    """Whether an error comes from where arguments and files are checked, and not from a defect."""
    frames = [frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__)]
    return str(frames[-1]).startswith(CHECKS)


def _on_the_way(error: Exception) -> bool:
    from convt.volumes.files import StreamError

    return isinstance(error, StreamError)


def _fail(message: str, code: int = WRONG) -> int:
    sys.stderr.write(f"convt: {' '.join(message.split())}\n")
    return code


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(TOLD_TO_STOP)  # an exception, so that temporary files are removed


if __name__ == "__main__":
    main()
