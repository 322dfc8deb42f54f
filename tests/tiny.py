"""Kernels that tests write themselves, compiled as any other.

Constraint of this file: `jit` imports it by name to ask for a kernel's text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from convt import jit, target
from convt.kernels import ir
from convt.kernels.copy import emit_copy
from convt.kernels.keys import Element
from convt.target import Target
from oracles import Array

__all__ = ["Tiny", "copy", "copying", "emit"]

HOST = target.host()


@dataclass(frozen=True)
class Tiny:
    """A kernel by its name, which must be its own: code is kept under it."""

    name: str
    make: Callable[[Target], str | ir.Module] = field(compare=False)

    emitter: ClassVar[str] = "tiny"


class Text(ir.Module):
    """A module that someone else wrote."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._whole = text

    def __str__(self) -> str:
        return self._whole

    def parts(self, length: int) -> list[str]:
        return [self._whole]


def emit(kernel: Tiny, target: Target) -> ir.Module:
    made = kernel.make(target)
    return Text(made) if isinstance(made, str) else made


# --- one copy -----------------------------------------------------------------------------------
# What a kernel reads from its record: eight words, the arguments of the copy.
CALL = """
define void @run(ptr %record, ptr %workspace) {{
  %words = load [8 x i64], ptr %record
  {extract}
  %a = inttoptr i64 %w0 to ptr
  %b = inttoptr i64 %w3 to ptr
  call void @{name}(ptr %a, i64 %w1, i64 %w2, ptr %b, i64 %w4, i64 %w5, i64 %w6, i64 %w7)
  ret void
}}
"""


def copying(source: Element, destination: Element, processor: Target = HOST) -> Tiny:
    """A kernel that makes one copy."""

    def make(processor: Target) -> str:
        module = ir.Module()
        name = emit_copy(module, processor, source, destination).name
        extract = "\n  ".join(f"%w{i} = extractvalue [8 x i64] %words, {i}" for i in range(8))
        return f"{module}\n{CALL.format(extract=extract, name=name)}"

    how = "half" if processor.half else "integers"
    return Tiny(f"test_copy_{source.name}_{destination.name}_{how}", make)


def copy(kernel: Tiny, source: Array, destination: Array, processor: Target = HOST) -> None:
    """Copy a two-dimensional array to another through `kernel`."""
    words = [source.ctypes.data, *source.strides, destination.ctypes.data, *destination.strides]
    record = np.array([*words, *source.shape], np.int64)
    jit.load(kernel, processor)(record.ctypes.data, 0)
