"""Kernels that tests write themselves, compiled as any other.

Constraint of this file: `jit` imports it by name to ask for a kernel's text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from convt.target import Target

__all__ = ["Tiny", "emit"]


@dataclass(frozen=True)
class Tiny:
    """A kernel by its name, which must be its own: code is kept under it."""

    name: str
    make: Callable[[Target], str] = field(compare=False)

    emitter: ClassVar[str] = "tiny"


def emit(kernel: Tiny, target: Target) -> str:
    return kernel.make(target)
