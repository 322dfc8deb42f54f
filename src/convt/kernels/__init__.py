"""Kernels as LLVM IR text, one file a family, on the builder, driver and copies that they share.

Nothing here compiles or runs: `emit` returns text, ``jit`` compiles it.
"""

from __future__ import annotations

from importlib import import_module

from convt.kernels.ir import Module
from convt.kernels.keys import Kernel
from convt.target import Target

__all__ = ["emit"]


def emit(kernel: Kernel, target: Target) -> Module:
    """The module of `kernel` for `target`: LLVM IR that defines ``run(record, workspace)``."""
    # Loaded only once a kernel is asked for.
    module: Module = import_module(kernel.emitter).emit(kernel, target)
    return module
