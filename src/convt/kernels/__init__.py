"""Kernels as LLVM IR text, one file a family, on the builder, driver and copies that they share.

Nothing here compiles or runs: `emit` returns text, ``jit`` compiles it.
"""

from __future__ import annotations

from convt.kernels.keys import Channels, Kernel, PackFilters
from convt.target import Target

__all__ = ["emit"]


def emit(kernel: Kernel, target: Target) -> str:
    """The module of `kernel` for `target`: LLVM IR that defines ``run(record, workspace)``."""
    # Emitters load llvmlite, which takes longer than all of convt: only once a kernel is asked for.
    if isinstance(kernel, PackFilters):
        from convt.kernels import filters

        return filters.emit(kernel, target)
    if isinstance(kernel, Channels):
        from convt.kernels import channels

        return channels.emit(kernel, target)
    from convt.kernels import rows

    return rows.emit(kernel, target)
