"""Decoded chunks of a store, kept for the next regions that touch them, within a bound of bytes.

Regions with halos share chunks, which a store reads whole. Threads that want the same chunk at once wait
for the first one to read it. What could not be read is not kept: the next region tries again. A pickled
cache takes its bound along and nothing else.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any

from numpy.typing import NDArray

__all__ = ["Chunks"]

Array = NDArray[Any]


class Chunks:
    """The chunks that were used last.

    Parameters
    ----------
    limit : int
        Bytes that they take together, at most; 0 keeps nothing.

    Examples
    --------
    >>> import numpy as np
    >>> chunks = Chunks(limit=100)
    >>> chunks.get(0, 80, lambda: np.zeros(10)).size, chunks.get(0, 80, lambda: np.ones(5)).size
    (10, 10)
    >>> chunks.get(1, 80, lambda: np.ones(5)).size, len(chunks)  # there is no room for both
    (5, 1)
    """

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[int, Future[Array]]] = OrderedDict()
        self._taken = 0  # bytes

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable, size: int, read: Callable[[], Array]) -> Array:
        """The chunk of `key`, of `size` bytes, by ``read()`` if it is not there."""
        if size > self.limit:
            return read()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                found = self._kept[key][1]
                missing = False
            else:
                found, missing = Future(), True
                self._kept[key] = size, found
                self._taken += size
                while self._taken > self.limit:
                    self._drop(next(iter(self._kept)))
        if missing:
            try:
                found.set_result(read())
            except BaseException as error:
                with self._lock:
                    if self._kept.get(key, (0, None))[1] is found:
                        self._drop(key)
                found.set_exception(error)
        return found.result()

    def _drop(self, key: Hashable) -> None:
        self._taken -= self._kept.pop(key)[0]

    def __reduce__(self) -> tuple[type[Chunks], tuple[int]]:
        return Chunks, (self.limit,)
