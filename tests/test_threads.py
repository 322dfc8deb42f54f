"""Threads share the work and change nothing, whoever starts them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import convt
from convt import target
from convt.threads import begin, share
from oracles import DTYPES, Array
from problems import FAMILIES, Problem, compute
from processes import python


@pytest.fixture(autouse=True)
def kept() -> Iterator[None]:
    """Put back the number of threads that a test sets."""
    before = convt.get_num_threads()
    yield
    convt.set_num_threads(before)


# (input size, channels in and out, kernel, stride): enough work to be cut into many tasks.
SHAPES: list[Any] = [
    ((6, 7, 9), 24, 40, 3, 2),
    ((9, 11, 33), 2, 1, 4, 2),
    ((1, 5, 70), 3, 5, 5, 3),
    ((12, 12, 12), 16, 3, 2, 2),
    ((2, 2, 2), 300, 64, 4, 2),
]


def problem(shape: Any, data_format: str, dtype: Any, batch: int = 2) -> Problem:
    size, into, out, kernel, stride = shape
    return Problem(
        batch=batch,
        in_channels=into,
        out_channels=out,
        groups=1,
        input_size=size,
        kernel=(kernel,) * 3,
        output_size=tuple(n * stride for n in size),
        strides=(stride,) * 3,
        dilations=(1, 1, 1),
        padding="SAME",
        data_format=data_format,
        dtype=np.dtype(dtype),
        bias=True,
    )


def call(given: Problem, arrays: Any, threads: int | None) -> Array:
    x, w, bias = arrays
    return convt.conv3d_transpose(x, w, **given.arguments, bias=bias, threads=threads)


# The quick part of the suite runs one dtype of four: a kernel for each is compiled first.
SOME = [pytest.param(d, marks=() if d == np.float32 else pytest.mark.slow) for d in DTYPES]


@pytest.mark.parametrize("dtype", SOME, ids=str)
@pytest.mark.parametrize("data_format", ["NDHWC", "NCDHW"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_number_of_threads_gives_the_same_bits(
    shape: Any, data_format: str, dtype: Any
) -> None:
    given = problem(shape, data_format, dtype)
    arrays = given.normal()
    one = call(given, arrays, 1).tobytes()
    for threads in (2, 5, 64):
        assert call(given, arrays, threads).tobytes() == one


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "family"),
    [
        (shape, family)
        for shape in SHAPES
        for family in FAMILIES
        if family in ("channels", "rows") or min(shape[1:3]) >= 16  # others fill vectors
    ],
    ids=str,
)
def test_so_does_each_family(shape: Any, family: str) -> None:
    given = problem(shape, "NDHWC", np.float32)
    arrays = given.normal()
    results = [compute(given, *arrays, family, target.host(), threads=n) for n in (1, 2, 5)]
    first = results[0]
    assert first is not None
    for result in results[1:]:
        assert result is not None
        assert result.tobytes() == first.tobytes()


def test_many_callers_at_once() -> None:
    problems = [problem(s, f, np.float32) for s in SHAPES for f in ("NDHWC", "NCDHW")]
    arrays = [p.normal(seed) for seed, p in enumerate(problems)]
    expected = [call(p, a, 1).tobytes() for p, a in zip(problems, arrays, strict=True)]
    barrier = threading.Barrier(8)

    def caller(number: int) -> list[bool]:
        barrier.wait(60)
        order = np.random.default_rng(number).permutation(len(problems))
        return [
            call(problems[i], arrays[i], 1 + number % 3).tobytes() == expected[i] for i in order
        ]

    with ThreadPoolExecutor(8) as callers:
        for right in callers.map(caller, range(8)):
            assert all(right)


COLD = """
    import threading
    import numpy as np
    import convt

    x, w = np.ones((1, 9, 9, 9, 8), np.float32), np.ones((3, 3, 3, 24, 8), np.float32)
    results, barrier = [], threading.Barrier(6)

    def first_call():
        barrier.wait()
        results.append(convt.conv3d_transpose(x, w, None, 2, threads=2))

    callers = [threading.Thread(target=first_call) for _ in range(6)]
    [caller.start() for caller in callers]
    [caller.join() for caller in callers]
    assert len(results) == 6
    assert all(np.array_equal(y, results[0]) for y in results)
    print("done")
"""


@pytest.mark.slow
def test_many_first_calls_at_once(tmp_path: Any) -> None:
    assert python(COLD, CONVT_CACHE_DIR=str(tmp_path / "objects")) == "done\n"


FORK = """
    import os, warnings
    import numpy as np
    import convt

    warnings.simplefilter("ignore", DeprecationWarning)  # Python advises against forks with threads
    x, w = np.ones((1, 9, 9, 9, 8), np.float32), np.ones((3, 3, 3, 24, 8), np.float32)
    before = convt.conv3d_transpose(x, w, None, 2, threads=3)

    def child():
        # A kernel that is known, and one that isn't yet.
        same = np.array_equal(before, convt.conv3d_transpose(x, w, None, 2, threads=3))
        other = convt.conv3d_transpose(x, w[..., :5, :], None, 2, threads=3)
        return same and np.array_equal(other, before[..., :5])

    codes = []
    for _ in range(2):  # the second fork is the child of a process that forked before
        number = os.fork()
        if number == 0:
            os._exit(0 if child() else 1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]))
    assert np.array_equal(before, convt.conv3d_transpose(x, w, None, 2, threads=3))
    print(codes)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_after_a_fork() -> None:
    assert python(FORK) == "[0, 0]\n"


# --- how many -----------------------------------------------------------------------------------
def test_the_number_is_kept_for_the_process() -> None:
    convt.set_num_threads(3)
    assert convt.get_num_threads() == 3
    found: list[int] = []
    other = threading.Thread(target=lambda: found.append(convt.get_num_threads()))
    other.start()
    other.join()
    assert found == [3]
    convt.set_num_threads(np.int64(2))  # type: ignore[arg-type]  # any integer will do
    assert convt.get_num_threads() == 2
    assert type(convt.get_num_threads()) is int


@pytest.mark.parametrize(
    ("count", "kind", "message"),
    [
        (0, ValueError, "threads = 0 must be at least 1"),
        (-4, ValueError, "threads = -4 must be at least 1"),
        (2.0, TypeError, r"threads = 2\.0 must be an integer, at least 1"),
        ("2", TypeError, "threads = '2' must be an integer, at least 1"),
        (True, TypeError, "threads = True must be an integer, at least 1"),
        (None, TypeError, "threads = None must be an integer, at least 1"),
    ],
)
def test_other_numbers_are_refused(count: Any, kind: type[Exception], message: str) -> None:
    before = convt.get_num_threads()
    with pytest.raises(kind, match=message):
        convt.set_num_threads(count)
    assert convt.get_num_threads() == before


NUMBER = "import convt; print(convt.get_num_threads())"


def test_the_environment_chooses() -> None:
    assert python(NUMBER, CONVT_NUM_THREADS="7") == "7\n"
    chosen = "import convt; convt.set_num_threads(2); print(convt.get_num_threads())"
    assert python(chosen, CONVT_NUM_THREADS="7") == "2\n"


@pytest.mark.slow
def test_otherwise_the_processors_that_the_process_may_use() -> None:
    assert python(NUMBER, CONVT_NUM_THREADS="") == f"{len(os.sched_getaffinity(0))}\n"
    one = "import os; os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1]);" + NUMBER
    assert python(one, CONVT_NUM_THREADS="") == "1\n"


@pytest.mark.slow
@pytest.mark.parametrize("value", ["0", "-1", "many", "2.5"])
def test_a_wrong_environment_is_named(value: str) -> None:
    code = """
        import numpy as np, convt
        x = np.ones((1, 1, 1, 1, 1), np.float32)
        try:
            convt.conv3d_transpose(x, x, None, 1)
        except ValueError as error:
            print(error)
    """
    expected = f"CONVT_NUM_THREADS={value!r} must be an integer, at least 1\n"
    assert python(code, CONVT_NUM_THREADS=value) == expected


# --- sharing ------------------------------------------------------------------------------------
@pytest.mark.parametrize("count", [1, 2, 5])
def test_share_calls_that_often_side_by_side(count: int) -> None:
    together = threading.Barrier(count)
    done: list[int] = []

    def work() -> None:
        together.wait(60)
        done.append(threading.get_ident())

    share(work, count)
    assert len(set(done)) == count
    assert threading.get_ident() in done


@pytest.mark.parametrize("failing", ["caller", "helper"])
def test_share_waits_for_all_and_raises(failing: str) -> None:
    caller = threading.get_ident()
    together = threading.Barrier(3)
    done: list[str] = []

    def work() -> None:
        together.wait(60)
        name = "caller" if threading.get_ident() == caller else "helper"
        if name == failing:
            raise RuntimeError(f"in the {name}")
        done.append(name)

    with pytest.raises(RuntimeError, match=f"in the {failing}"):
        share(work, 3)
    assert done == (["helper"] * 2 if failing == "caller" else ["caller"])


def test_where_no_thread_can_be_had_the_caller_does_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    done: list[str] = []
    monkeypatch.setattr(convt.threads, "_pool", convt.threads._Pool())
    monkeypatch.setattr(threading.Thread, "start", start)
    share(lambda: done.append("shared"), 3)
    begin(lambda: done.append("begun"))()
    assert done == ["shared", "begun"]


def test_what_is_begun_runs_beside_and_raises_when_waited_for() -> None:
    together = threading.Barrier(2)

    def work() -> None:
        together.wait(60)
        raise RuntimeError("in the helper")

    wait = begin(work)
    together.wait(60)
    with pytest.raises(RuntimeError, match="in the helper"):
        wait()
