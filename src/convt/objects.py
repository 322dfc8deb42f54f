"""Object code on disk: compiled once, used by every process of this user.

A file is used only if this user owns it, nobody else can write to it, and its digest matches; anything else
counts as missing and is rewritten. `jit` loads this file when it is first asked for a kernel, since what it
imports takes longer than the rest of convt.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

from convt.kernels.keys import Kernel
from convt.target import Target

__all__ = ["cache_folder", "log", "path_of", "read", "write"]

log = logging.getLogger("convt")

_MAGIC = b"convt object 2\n"


def cache_folder() -> Path:
    """Where object code is kept: ``CONVT_CACHE_DIR``, or the user's cache folder."""
    named = os.environ.get("CONVT_CACHE_DIR")
    if named:
        return Path(named)
    import platformdirs

    return Path(platformdirs.user_cache_dir("convt", appauthor=False)) / "objects"


@lru_cache(maxsize=1)
def _sources() -> str:
    """A digest of everything that object code depends on beside key and target."""
    import llvmlite

    digest = hashlib.sha256(f"{llvmlite.__version__} {sys.platform}".encode())
    here = Path(__file__).parent
    names = ("jit.py", "objects.py", "target.py", "transforms.py")
    for path in [*(here / name for name in names), *sorted((here / "kernels").glob("*.py"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def path_of(kernel: Kernel, target: Target) -> Path:
    """Where the object code of `kernel` for `target` is kept."""
    facts = (target.triple, target.cpu, target.features, target.isa, target.fma, target.half)
    key = "\n".join([_sources(), *map(str, facts), kernel.name])
    digest = hashlib.sha256(key.encode()).hexdigest()[:24]
    return cache_folder() / f"{kernel.name}-{digest}.o"


def read(path: Path) -> list[bytes] | None:
    """The object code at `path`, in parts; None where there is none that can be trusted."""
    try:
        if not (_private(path.parent) and _private(path)):
            return None
        data = path.read_bytes()
    except OSError:
        return None
    code = data[len(_MAGIC) + 32 :]
    if data != _MAGIC + hashlib.sha256(code).digest() + code:
        return None
    parts = []
    while code:
        end = 8 + int.from_bytes(code[:8], "little")
        parts.append(code[8:end])
        code = code[end:]
    return parts


def _private(path: Path) -> bool:
    """Whether `path` belongs to this user and nobody else may write to it."""
    if not hasattr(os, "getuid"):
        return True
    status = path.stat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def write(path: Path, parts: list[bytes]) -> None:
    """Put the file in place in one step, so that no process ever reads a part of it."""
    code = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_MAGIC + hashlib.sha256(code).digest() + code)
            Path(temporary).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
    except OSError as error:
        log.info("object code is not kept: %s", error)
