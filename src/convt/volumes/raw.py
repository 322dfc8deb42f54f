"""Regions of an array that lies in a file as it does in memory: at an offset, in C order.

Read and written in place, by position: a file that is cut short while it is read gives an error, where
touching a mapping of it would end the process, and what was read counts as no memory of the process.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convt.volumes.regions import Region, five_axes, slices, stored_axes

__all__ = ["Raw"]


@dataclass(frozen=True)
class Raw:
    """Where an array lies in a file."""

    path: str
    offset: int  # bytes before it
    dtype: np.dtype[Any]  # as stored, in the file's byte order
    shape: tuple[int, ...]  # as stored
    axes: str  # of `shape`, by the letters of `regions.AXES`

    @property
    def size(self) -> int:
        """Bytes of the array."""
        return prod(self.shape) * self.dtype.itemsize

    def read(self, region: Region) -> NDArray[Any]:
        """The values of a region, with five axes, in native byte order."""
        index = slices(region, self.axes)
        found = np.empty([s.stop - s.start for s in index], self.dtype)
        whole = _leading(index, self.shape)
        with self._open(os.O_RDONLY) as file:
            for place, part in self._runs(index, whole) if found.size else ():
                _read(file, found[part], place, self.path)
        return five_axes(found, self.axes).astype(self.dtype.newbyteorder("="), copy=False)

    def write(self, region: Region, values: NDArray[Any]) -> None:
        """Write the values of a region, which has five axes."""
        index = slices(region, self.axes)
        block = np.ascontiguousarray(stored_axes(values, self.axes), self.dtype)
        whole = _leading(index, self.shape)
        with self._open(os.O_WRONLY) as file:
            for place, part in self._runs(index, whole):
                _write(file, block[part], place)

    def reserve(self) -> None:
        """Make room for the array, so that a full disk is known at once."""
        with self._open(os.O_WRONLY) as file:
            end = self.offset + self.size
            if hasattr(os, "posix_fallocate") and self.size:
                os.posix_fallocate(file, 0, end)
            else:
                os.ftruncate(file, end)

    @contextmanager
    def _open(self, flags: int) -> Iterator[int]:
        file = os.open(self.path, flags | getattr(os, "O_BINARY", 0))
        try:
            yield file
        except OSError as error:
            if error.filename is None:
                raise OSError(error.errno, error.strerror or str(error), self.path) from error
            raise
        finally:
            os.close(file)

    @property
    def _steps(self) -> list[int]:
        """Bytes from one element of each axis to the next."""
        steps = [self.dtype.itemsize]
        for size in reversed(self.shape[1:]):
            steps.append(steps[-1] * size)
        return steps[::-1]

    def _runs(self, index: Sequence[slice], whole: int) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Parts of a region that are contiguous: their places in the file, and in the region."""
        steps = self._steps
        base = self.offset + sum(s.start * step for s, step in zip(index, steps, strict=True))
        for part in np.ndindex(*(_length(s) for s in index[:whole])):
            yield base + sum(p * step for p, step in zip(part, steps, strict=False)), part


def _length(index: slice) -> int:
    return int(index.stop - index.start)


def _leading(index: Sequence[slice], shape: Sequence[int]) -> int:
    """Leading axes to step along, so that what is left is contiguous in the file."""
    axes = len(shape)
    while axes and (index[axes - 1].start, index[axes - 1].stop) == (0, shape[axes - 1]):
        axes -= 1
    return max(axes - 1, 0)


def _read(file: int, target: NDArray[Any], place: int, path: str) -> None:
    room = memoryview(target.reshape(-1).view(np.uint8).data)
    while len(room):
        got = os.preadv(file, [room], place)
        if not got:
            raise OSError(errno.EIO, "ends before its last voxel", path)
        room, place = room[got:], place + got


def _write(file: int, source: NDArray[Any], place: int) -> None:
    rest = memoryview(np.ascontiguousarray(source).reshape(-1).view(np.uint8).data)
    while len(rest):
        done = os.pwrite(file, rest, place)
        rest, place = rest[done:], place + done
