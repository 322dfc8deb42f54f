"""What is remembered of a call: found again by the same arguments only, and nothing kept alive."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import convt
from convt import recall as module
from convt.recall import Layout, recall

X = np.ones((1, 2, 2, 2, 3), np.float32)
Y = np.ones((1, 4, 4, 4, 5), np.float32)
W = np.ones((2, 2, 2, 5, 3), np.float32)
calls: list[tuple[Any, ...]] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    module._found.clear()
    calls.clear()


def noted(*arguments: Any) -> tuple[Any, ...]:
    calls.append(arguments)
    return arguments


def test_equal_plain_arguments_are_looked_up() -> None:
    first = recall(noted, (X, None), [1, 2], 3, "a", None)
    assert recall(noted, (X.copy(), None), (1, 2), 3, "a", None) is first
    assert calls == [(Layout(X.shape, X.strides, X.dtype), None, [1, 2], 3, "a", None)]


@pytest.mark.parametrize(
    "value", [True, 1.0, np.int64(1), (True,), [1.0], ((1, True),), [[[1]]], np.ones(1)]
)
def test_what_only_equals_is_handed_on(value: Any) -> None:
    """1 == True == 1.0, so the function is asked each time, with what came."""
    for plain in (1, (1,), [1], ((1, 1),)):
        recall(noted, (X,), plain)
    count = len(calls)
    for _ in range(2):
        assert recall(noted, (X,), value)[1] is value
    assert len(calls) == count + 2


def test_a_list_within_itself_is_handed_on() -> None:
    value: list[Any] = []
    value.append(value)
    assert recall(noted, (X,), value)[1] is value


@pytest.mark.parametrize(
    "other",
    [X[:, :, ::-1], X.astype(np.float64), X.astype(">f4"), X[..., :2], np.asfortranarray(X)],
)
def test_another_layout_is_another_call(other: Any) -> None:
    recall(noted, (X,), 1)
    recall(noted, (other,), 1)
    assert len(calls) == 2


def test_an_error_is_raised_anew_and_remembered_by_nothing() -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            recall(divide, (X,), 0)
    assert not module._found


def divide(layout: Layout, number: int) -> float:
    return layout.shape[0] / number


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 4)
    for number in range(20):
        recall(noted, (X,), number)
    assert len(module._found) <= 4


# --- the operations -----------------------------------------------------------------------------
OPERATIONS: dict[str, Callable[..., Any]] = {
    "transpose": lambda strides, **more: convt.conv3d_transpose(X, W, None, strides, **more),
    "convolve": lambda strides, **more: convt.conv3d(Y, W, strides, "SAME", **more),
    "filters": lambda strides, **more: convt.conv3d_transpose_filter_gradient(
        X, Y, W.shape, strides, **more
    ),
}


@pytest.mark.parametrize("call", OPERATIONS.values(), ids=OPERATIONS)
@pytest.mark.parametrize(
    ("strides", "more", "message"),
    [
        (True, {}, r"strides must be an integer, or 1, 3 or 5 integers, got True \(bool\)"),
        ((2, 2.0, 2), {}, r"strides\[1\] must be an integer, got 2\.0 \(float\)"),
        ([2, 2], {}, r"strides must be an integer, or 1, 3 or 5 integers .*, got 2: \[2, 2\]"),
        (2, {"groups": True}, r"groups must be an integer, got True \(bool\)"),
        (2, {"threads": True}, "threads = True must be an integer, at least 1"),
        (2, {"threads": 1.0}, "threads = 1.0 must be an integer, at least 1"),
    ],
)
def test_errors_are_the_same_after_a_call_that_equals(
    call: Callable[..., Any], strides: Any, more: dict[str, Any], message: str
) -> None:
    expected = call(2, threads=1).tobytes()
    assert call([2, 2, 2], threads=1, groups=1).tobytes() == expected
    for _ in range(2):
        with pytest.raises((TypeError, ValueError), match=message):
            call(strides, **more)


def test_defaults_of_the_process_are_asked_at_each_call() -> None:
    before = convt.get_num_threads()
    try:
        for threads, algorithm in ((1, "direct"), (3, "fast")):
            convt.set_num_threads(threads)
            convt.set_algorithm(algorithm)
            convt.conv3d_transpose(X, W, None, 2)
    finally:
        convt.set_num_threads(before)
        convt.set_algorithm("auto")
    found = [(ready.threads, ready.algorithm) for ready in module._found.values()]
    assert found == [(1, "direct"), (3, "fast")]


@pytest.mark.skipif(not hasattr(sys, "getrefcount"), reason="asks for references that are counted")
def test_no_array_is_kept_alive() -> None:
    x, w, b = X.copy(), W.copy(), np.ones(5, np.float32)
    y = convt.conv3d_transpose(x, w, None, 2, bias=b)
    dw = convt.conv3d_transpose_filter_gradient(x, y, w.shape, 2)
    alive = [weakref.ref(array) for array in (x, w, b, y, dw)]
    assert module._found
    del x, w, b, y, dw
    gc.collect()
    assert [array() for array in alive] == [None] * 5
