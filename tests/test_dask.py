"""Dask arrays: lazy results, equal in every bit to those of NumPy arrays, for every chunking."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import convt
from convt.blocks import Blocks
from problems import Problem, examples, problems

da: Any = pytest.importorskip("dask.array")
conv3d: Any = convt.conv3d  # arrays of any kind in, the same kind out
conv3d_transpose: Any = convt.conv3d_transpose
filter_gradient: Any = convt.conv3d_transpose_filter_gradient
X = np.random.default_rng(0).standard_normal((2, 9, 10, 11, 3)).astype(np.float32)
W = np.random.default_rng(1).standard_normal((3, 4, 3, 5, 3)).astype(np.float32)
CHUNKS = ((1, 1), (4, 4, 1), (3, 3, 4), (5, 6), (2, 1))


def lazy() -> Any:
    return conv3d_transpose(da.from_array(X, chunks=CHUNKS), W, None, 2)


def chunks_of(draw: Any, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Any chunks of an array."""
    found = []
    for size in shape:
        edges = sorted({0, size, *draw(st.lists(st.integers(0, size), max_size=3))})
        sizes = tuple(b - a for a, b in pairwise(edges))
        found.append(sizes or (0,))
    return tuple(found)


def test_the_result_is_lazy_and_chunked_like_its_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: Any) -> None:
        raise AssertionError("computed")

    monkeypatch.setattr(Blocks, "compute", never)
    result = lazy()
    assert isinstance(result, da.Array)
    assert (result.shape, result.dtype) == ((2, 18, 20, 22, 5), np.float32)
    assert result.chunks == ((1, 1), (8, 8, 2), (6, 6, 8), (10, 12), (5,))
    back = conv3d(result, W, 2, "SAME")
    assert back.chunks == ((1, 1), (4, 4, 1), (3, 3, 4), (5, 6), (3,))


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_schedulers_of_one_process(scheduler: str) -> None:
    expected = conv3d_transpose(X, W, None, 2)
    assert lazy().compute(scheduler=scheduler).tobytes() == expected.tobytes()


@pytest.mark.slow
def test_the_scheduler_of_processes() -> None:
    expected = conv3d_transpose(X, W, None, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        found = lazy().compute(scheduler="processes", num_workers=2)
    assert found.tobytes() == expected.tobytes()


@pytest.mark.slow
@given(problem=problems(channels=20), data=st.data())
@examples(15)
def test_any_chunks_give_the_bits_of_the_whole(problem: Problem, data: st.DataObject) -> None:
    x, w, bias = problem.normal()
    whole = conv3d_transpose(x, w, bias=bias, **problem.arguments)
    chunked = da.from_array(x, chunks=chunks_of(data.draw, x.shape))
    y = conv3d_transpose(chunked, w, bias=bias, **problem.arguments)
    found = y.compute(scheduler="synchronous")
    assert (found.shape, found.dtype) == (whole.shape, whole.dtype)
    assert found.tobytes() == whole.tobytes()


@pytest.mark.slow
@given(problem=problems(channels=20), data=st.data())
@examples(15)
def test_any_chunks_of_a_convolution_too(problem: Problem, data: st.DataObject) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(problem.output_shape).astype(problem.dtype)
    shape = (*problem.kernel, problem.out_channels // problem.groups, problem.in_channels)
    w = rng.standard_normal(shape).astype(problem.dtype)
    geometry = {k: v for k, v in problem.arguments.items() if k != "output_shape"}
    whole = conv3d(x, w, **geometry)
    chunked = da.from_array(x, chunks=chunks_of(data.draw, x.shape))
    found = conv3d(chunked, w, **geometry)
    assert np.asarray(found.compute(scheduler="synchronous")).tobytes() == whole.tobytes()


@pytest.mark.slow
def test_minimal_filtering_is_chosen_as_for_the_whole() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 12, 13, 14, 64)).astype(np.float32)
    w = rng.standard_normal((4, 4, 4, 64, 64)).astype(np.float32)
    found = conv3d_transpose(da.from_array(x, chunks=(1, 5, 5, 5, 32)), w, None, 2)
    assert found.compute().tobytes() == conv3d_transpose(x, w, None, 2).tobytes()
    direct = conv3d_transpose(x, w, None, 2, algorithm="direct")
    assert found.compute().tobytes() != direct.tobytes()


def test_a_piece_of_a_chunk_is_cut_once_and_a_chunk_that_is_all_needed_never() -> None:
    x = da.from_array(X, chunks=CHUNKS)
    graph = dict(conv3d_transpose(x, W, None, 2).__dask_graph__())
    cuts = [key for key in graph if "cut" in str(key[0])]
    assert len(cuts) == len(set(cuts))
    # Stride 1 and one tap: no halo, nothing to cut.
    single = conv3d_transpose(da.from_array(X, chunks=5), W[:1, :1, :1], None, 1)
    assert not [key for key in dict(single.__dask_graph__()) if "cut" in str(key[0])]


def test_the_gradient_in_the_filters() -> None:
    x, y = da.from_array(X, chunks=CHUNKS), lazy()
    found = filter_gradient(x, y, W.shape, 2)
    expected = filter_gradient(X, y.compute(), W.shape, 2)
    assert isinstance(found, da.Array)
    np.testing.assert_allclose(found.compute(), expected, rtol=1e-4, atol=2e-2)
    crop = {"padding": [(1, 3), (0, 4), (2, 0)]}
    g = conv3d_transpose(X, W, None, 2, **crop)
    found = filter_gradient(x, da.from_array(g, chunks=4), W.shape, 2, **crop)
    expected = filter_gradient(X, g, W.shape, 2, **crop)
    np.testing.assert_allclose(found.compute(), expected, rtol=1e-4, atol=2e-2)


def test_arrays_of_the_other_kinds_go_along() -> None:
    expected = conv3d_transpose(X, W, None, 2)
    found = conv3d_transpose(X, da.from_array(W, chunks=2), None, 2)
    assert found.compute().tobytes() == expected.tobytes()


def test_what_is_wrong_is_said_at_once() -> None:
    x = da.from_array(X, chunks=4)
    with pytest.raises(ValueError, match=r"output_shape\[1\] = 19 \(depth\)"):
        conv3d_transpose(x, W, (2, 19, 20, 22, 5), 2)
    with pytest.raises(ValueError, match="input must have 5 dimensions"):
        conv3d_transpose(x[0], W, None, 2)
    with pytest.raises(TypeError, match="out must be None for Dask arrays"):
        conv3d_transpose(x, W, None, 2, out=np.empty((2, 18, 20, 22, 5), np.float32))
    with pytest.raises(TypeError, match="threads"):
        conv3d_transpose(x, W, None, 2, threads=1.5)
    with pytest.raises(ValueError, match="input has chunks of unknown sizes"):
        conv3d_transpose(x[x[:, 0, 0, 0, 0] > 0], W, None, 2)
