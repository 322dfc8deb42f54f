"""Outputs reuse the memory of outputs that are gone, and of no others."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from convt import memory
from convt.memory import ALIGNED_FROM, ALIGNMENT, empty_output
from processes import python

FLOAT = np.dtype(np.float32)
LARGE = (ALIGNED_FROM // 4, 3)


def place(array: np.ndarray) -> int:
    return int(array.ctypes.data)


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_outputs", memory._Outputs())


def test_large_outputs_start_on_a_cache_line_and_are_contiguous() -> None:
    for extra in range(3):
        y = empty_output((LARGE[0] + extra, 3), FLOAT)
        assert place(y) % ALIGNMENT == 0
        assert y.flags.c_contiguous
        assert y.flags.writeable
        assert y.shape == (LARGE[0] + extra, 3)


@pytest.mark.parametrize("size", [1, ALIGNED_FROM - 1, ALIGNED_FROM, 2 * ALIGNED_FROM])
def test_blocks_of_one_call_start_on_a_cache_line_and_large_ones_serve_again(size: int) -> None:
    block, other = memory.recycled(size), memory.recycled(size)
    for one in (block, other):
        assert one.address % ALIGNMENT == 0
        assert one.address == place(one.array)
        assert one.array.size == size
    apart = abs(block.address - other.address)
    assert apart >= size
    first = block.address
    del block, one
    if size >= ALIGNED_FROM:
        assert memory.recycled(size).address == first


def test_the_address_of_any_array() -> None:
    dense = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    frozen = dense.copy()
    frozen.flags.writeable = False
    arrays = (
        dense,
        frozen,
        dense.T,
        dense[:, ::-2],
        dense[1:, :0],
        dense.view(">f4"),
        dense[0, 0, 0:1],
    )
    for array in (*arrays, dense.astype(ml_dtypes.bfloat16), np.empty((0, 3)), np.array(2.0)):
        assert memory.address(array) == place(array)


def test_memory_serves_again_once_the_array_is_gone() -> None:
    y = empty_output(LARGE, FLOAT)
    first = place(y)
    del y
    assert place(empty_output(LARGE, FLOAT)) == first


def test_memory_of_a_living_array_is_never_reused() -> None:
    kept: list[np.ndarray[Any, Any]] = []
    for _ in range(4):
        y = empty_output(LARGE, FLOAT)
        y.fill(len(kept))
        kept.append(y[:, 1:].T)  # a view of a view, by which alone the memory lives
        del y
    assert [set(np.unique(view)) for view in kept] == [{0.0}, {1.0}, {2.0}, {3.0}]
    view = memoryview(empty_output(LARGE, FLOAT))  # type: ignore[arg-type]
    other = empty_output(LARGE, FLOAT)
    other.fill(7)
    assert not np.shares_memory(np.asarray(view), other)


def test_a_much_smaller_output_takes_no_large_block() -> None:
    first = place(empty_output((8 * LARGE[0], 3), FLOAT))
    assert place(empty_output(LARGE, FLOAT)) != first


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 3 * (LARGE[0] * LARGE[1] * 4 + ALIGNMENT)
    monkeypatch.setattr(memory, "_limit", lambda: limit)
    arrays = [empty_output((LARGE[0], 3 + i), FLOAT) for i in range(4)]
    assert len({place(y) for y in arrays}) == 4
    del arrays
    for columns in (6, 3, 2):
        empty_output((LARGE[0], columns), FLOAT)
        assert sum(block.size for block in memory._outputs.blocks) <= limit


def test_small_outputs_are_numpys_own() -> None:
    assert empty_output((3, 4), FLOAT).base is None


@pytest.mark.slow
def test_keep_bytes_is_read_from_the_environment() -> None:
    code = (
        "import numpy as np\n"
        "from convt import memory\n"
        "y = memory.empty_output((1 << 20,), np.dtype('f4')); del y\n"
        "print(len(memory._outputs.blocks))"
    )
    assert python(code, CONVT_KEEP_BYTES="0").strip() == "0"
    assert python(code, CONVT_KEEP_BYTES="100000000").strip() == "1"
    with pytest.raises(AssertionError, match="CONVT_KEEP_BYTES='much' must be an integer"):
        python(code, CONVT_KEEP_BYTES="much")
