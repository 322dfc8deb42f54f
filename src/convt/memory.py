"""Memory for outputs, packed filters and workspaces.

Fresh memory is slow: the system zeroes every page of it on first touch, which for a large output can
take as long as the sums. So blocks of large outputs are kept when the last array in them is gone, and
serve the next output of about their size. What is kept is bounded: by a part of the machine's memory, or
by ``CONVT_KEEP_BYTES`` (0 keeps nothing). Whether an array still lives in a block is told by the block's
reference count, so nothing is kept where there is none to ask.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "ALIGNED_FROM",
    "ALIGNMENT",
    "Block",
    "address",
    "aligned",
    "empty_output",
    "recycled",
    "workspace",
]

ALIGNMENT = 64  # bytes: a cache line, and the widest vector
ALIGNED_FROM = 1 << 20  # bytes from which a new output starts on a cache line, and may be kept
_SHARE = 16  # of the machine's memory, one part in so many is kept at most
_WASTE = 1.25  # a kept block may be so many times as large as asked for
_WORKSPACE = 16 << 20  # bytes of workspace that a thread keeps from call to call

Array = npt.NDArray[Any]
_Byte: Any = ctypes.c_char


class Block(NamedTuple):
    """Memory that starts on a cache line, and its address."""

    array: Array
    address: int


def address(array: Array) -> int:
    """Where the first element of `array` is."""
    if array.flags.carray:  # a third of the time, for dense arrays that may be written to
        try:
            return ctypes.addressof(_Byte.from_buffer(array))
        except (TypeError, ValueError):  # bfloat16, or nothing
            pass
    return int(array.ctypes.data)


def aligned(size: int) -> Block:
    """A fresh block of `size` bytes."""
    whole = np.empty(size + ALIGNMENT, np.uint8)
    place = address(whole)
    start = -place % ALIGNMENT
    return Block(whole[start : start + size], place + start)


def recycled(size: int) -> Block:
    """A block of `size` bytes for one call; a large one may be kept for the next."""
    if size < ALIGNED_FROM:
        return aligned(size)
    array = _outputs.take(size)
    return Block(array, address(array))


def empty_output(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """A new C-contiguous array, a large one from a cache line on; its elements are arbitrary."""
    size = prod(shape) * dtype.itemsize
    if size < ALIGNED_FROM:
        return np.empty(shape, dtype)
    return _outputs.take(size).view(dtype).reshape(shape)


class _Outputs:
    """Blocks of outputs: those in use, which arrays refer to, and those kept for the next."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.blocks: list[Array] = []

    def take(self, size: int) -> Array:
        """`size` bytes from a cache line on, in a kept block if one fits."""
        limit = _limit()
        if size > limit:
            return aligned(size).array
        with self.lock:
            free = [i for i in range(len(self.blocks)) if self._unused(i)]
            fitting = [i for i in free if size <= self.blocks[i].size - ALIGNMENT <= size * _WASTE]
            if fitting:
                return self._within(
                    self.blocks[min(fitting, key=lambda i: self.blocks[i].size)], size
                )
            # All blocks together stay within the limit, so that what is kept once all are free does too.
            held = sum(block.size for block in self.blocks)
            for i in reversed(free):
                if held + size <= limit:
                    break
                held -= self.blocks.pop(i).size
            if held + size > limit:
                return aligned(size).array
            self.blocks.append(np.empty(size + ALIGNMENT, np.uint8))
            return self._within(self.blocks[-1], size)

    def _unused(self, index: int) -> bool:
        return sys.getrefcount(self.blocks[index]) <= _REFERENCES

    def _within(self, block: Array, size: int) -> Array:
        start = -address(block) % ALIGNMENT
        return block[start : start + size]


def _count_references() -> int:
    """The reference count of a block that only a list holds."""
    blocks = [np.empty(0, np.uint8)]
    return sys.getrefcount(blocks[0])


_REFERENCES = _count_references() if hasattr(sys, "getrefcount") else 0
_outputs = _Outputs()


def _renew() -> None:
    _outputs.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


@lru_cache(maxsize=1)
def _limit() -> int:
    """Bytes of outputs that may be kept."""
    if sys.implementation.name != "cpython" or not getattr(sys, "_is_gil_enabled", lambda: True)():
        return 0
    named = os.environ.get("CONVT_KEEP_BYTES")
    if named:
        try:
            return max(int(named), 0)
        except ValueError:
            raise ValueError(f"CONVT_KEEP_BYTES={named!r} must be an integer") from None
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _SHARE
    except (AttributeError, ValueError, OSError):
        return 0


_kept = threading.local()


def workspace(size: int) -> Block:
    """Room for one call in this thread; a small one is kept for the next."""
    if size > _WORKSPACE:
        return aligned(size)
    block: Block | None = getattr(_kept, "block", None)
    if block is None or block.array.size < size:
        block = _kept.block = aligned(size)
    return block
