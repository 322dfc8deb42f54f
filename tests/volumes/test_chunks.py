"""Decoded chunks that are kept: within the bound, read once, and no failure remembered."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from time import sleep

import numpy as np
import pytest

from convt.volumes.chunks import Array, Chunks


def test_what_was_used_last_is_kept_within_the_bound() -> None:
    read: list[int] = []

    def chunk(number: int) -> Array:
        read.append(number)
        return np.full(10, number, np.uint8)

    chunks = Chunks(limit=30)
    for number in (0, 1, 2, 0, 3, 0, 1):  # 3 drives 1 out, the one that was used longest ago
        assert (chunks.get(number, 10, lambda n=number: chunk(n)) == number).all()  # type: ignore[misc]
        assert len(chunks) <= 3
    assert read == [0, 1, 2, 3, 1]


def test_a_chunk_beyond_the_bound_is_not_kept() -> None:
    chunks = Chunks(limit=9)
    chunks.get("small", 9, lambda: np.zeros(9, np.uint8))
    chunks.get("large", 10, lambda: np.zeros(10, np.uint8))
    assert len(chunks) == 1
    assert chunks.get("small", 9, lambda: pytest.fail("it was kept")).size == 9


def test_threads_read_a_chunk_once() -> None:
    chunks, together, read = Chunks(limit=100), Barrier(4), []

    def slow() -> Array:
        read.append(1)
        sleep(0.05)
        return np.arange(10)

    def ask(_: int) -> int:
        together.wait()
        return int(chunks.get(0, 80, slow).sum())

    with ThreadPoolExecutor(4) as crew:
        assert list(crew.map(ask, range(4))) == [45] * 4
    assert len(read) == 1


def test_what_could_not_be_read_is_tried_again() -> None:
    chunks = Chunks(limit=100)

    def broken() -> Array:
        raise OSError("bad sector")

    for _ in range(2):
        with pytest.raises(OSError, match="bad sector"):
            chunks.get(0, 80, broken)
        assert len(chunks) == 0
    assert chunks.get(0, 80, lambda: np.arange(10)).sum() == 45


def test_a_pickled_cache_has_its_bound_alone() -> None:
    chunks = Chunks(limit=100)
    chunks.get(0, 80, lambda: np.arange(10))
    copy = pickle.loads(pickle.dumps(chunks))
    assert (copy.limit, len(copy), len(chunks)) == (100, 0, 1)
