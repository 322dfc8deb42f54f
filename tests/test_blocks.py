"""Blocks of a problem: put together, the bits of the whole, for every cut, kernel and dtype."""

from __future__ import annotations

import gc
import pickle
import weakref
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import convt
from convt import blocks as module
from convt.blocks import Blocks, Region
from convt.spec import Spec, make_convolution_spec, make_spec
from oracles import Array
from problems import FAMILIES, Problem, examples, problems, problems_of


def posed(problem: Problem, bias: Array | None) -> Spec:
    return make_spec(
        input_shape=problem.input_shape,
        input_dtype=problem.dtype,
        filters_shape=problem.filters_shape,
        filters_dtype=problem.dtype,
        bias_shape=None if bias is None else bias.shape,
        bias_dtype=problem.dtype,
        **problem.arguments,
    )


def cut(spec: Spec, draw: Any) -> list[Region]:
    """Blocks that cover the outputs, cut anywhere."""
    edges = []
    for size in (spec.batch, *spec.output_size):
        inner = draw(st.lists(st.integers(0, size), max_size=2))
        edges.append(list(pairwise(sorted({0, size, *inner}))))
    return [(n, d, h, w) for n, d, h, w in product(*edges)]


def assembled(blocks: Blocks, x: Array, regions: list[Region]) -> Array:
    """All blocks, each computed from nothing but what it reads."""
    spec = blocks.spec
    y = np.zeros(spec.output_shape, spec.dtype)

    def place(region: Region) -> tuple[slice, ...]:
        n, *space = (slice(*ends) for ends in region)
        if spec.data_format == "NDHWC":
            return (n, *space)
        return (n, slice(None), *space)

    for region in regions:
        block = x[place(blocks.reads(region))].copy()
        y[place(region)] = blocks.compute(block, region)
    return y


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
@examples(15)
def test_any_cut_gives_the_bits_of_the_whole(family: str, data: st.DataObject) -> None:
    problem = data.draw(problems_of(family))
    x, w, bias = problem.normal()
    algorithm = "fast" if family == "filtering" else data.draw(st.sampled_from(["auto", "direct"]))
    whole = convt.conv3d_transpose(x, w, bias=bias, algorithm=algorithm, **problem.arguments)
    spec = posed(problem, bias)
    blocks = Blocks(spec, w, bias, algorithm)
    assert assembled(blocks, x, cut(spec, data.draw)).tobytes() == whole.tobytes()


@pytest.mark.slow
@given(problem=problems(channels=20), data=st.data())
@examples(15)
def test_of_a_convolution_too(problem: Problem, data: st.DataObject) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(problem.output_shape).astype(problem.dtype)
    share = problem.out_channels // problem.groups
    shape = (*problem.kernel, share, problem.in_channels)
    w = rng.standard_normal(shape).astype(problem.dtype)
    geometry: dict[str, Any] = {
        name: value for name, value in problem.arguments.items() if name != "output_shape"
    }
    whole = convt.conv3d(x, w, **geometry)
    spec = make_convolution_spec(
        input_shape=x.shape,
        input_dtype=x.dtype,
        filters_shape=w.shape,
        filters_dtype=w.dtype,
        **geometry,
    )
    blocks = Blocks(spec, w.swapaxes(3, 4))
    assert assembled(blocks, x, cut(spec, data.draw)).tobytes() == whole.tobytes()


def regular(spec: Spec, size: int) -> list[Region]:
    edges = [list(pairwise([*range(0, o, size), o])) for o in (spec.batch, *spec.output_size)]
    return [(n, d, h, w) for n, d, h, w in product(*edges)]


LARGE: dict[str, tuple[Any, ...]] = {
    "minimal filtering": ((1, 12, 13, 14, 64), (4, 4, 4, 64, 64), np.float32),
    "packed in slabs": ((1, 9, 12, 12, 64), (4, 4, 4, 80, 64), np.float16),
    "halves of the channels": ((1, 4, 4, 4, 256), (3, 3, 3, 1600, 256), np.float32),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", LARGE)
def test_what_only_a_large_problem_chooses(case: str) -> None:
    x_shape, w_shape, dtype = LARGE[case]
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(dtype) for shape in (x_shape, w_shape))
    whole = convt.conv3d_transpose(x, w, None, 2)
    spec = make_spec(
        input_shape=x.shape,
        input_dtype=x.dtype,
        filters_shape=w.shape,
        filters_dtype=w.dtype,
        output_shape=None,
        strides=2,
        padding="SAME",
        data_format=None,
        dilations=None,
    )
    blocks = Blocks(spec, w)
    assert (blocks.units == (2, 2, 2)) == case.startswith("halves")  # units of tiles are larger
    assert assembled(blocks, x, regular(spec, 7)).tobytes() == whole.tobytes()


def small(algorithm: str | None = None) -> tuple[Blocks, Array]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 5, 6, 7, 3)).astype(np.float32)
    w = rng.standard_normal((3, 4, 5, 2, 3)).astype(np.float32)
    spec = make_spec(
        input_shape=x.shape,
        input_dtype=x.dtype,
        filters_shape=w.shape,
        filters_dtype=w.dtype,
        output_shape=None,
        strides=(2, 1, 3),
        padding="SAME",
        data_format=None,
        dilations=None,
    )
    return Blocks(spec, w, algorithm=algorithm), x


def test_a_copy_from_a_pickle_computes_the_same() -> None:
    blocks, x = small()
    regions = regular(blocks.spec, 3)
    before = assembled(blocks, x, regions)
    copy = pickle.loads(pickle.dumps(blocks))
    assert assembled(copy, x, regions).tobytes() == before.tobytes()


def test_filters_that_are_not_finite() -> None:
    blocks, x = small()
    blocks.filters[0, 0, 0, 0, 0] = np.inf
    whole = convt.conv3d_transpose(x, blocks.filters, None, (2, 1, 3))
    assert assembled(blocks, x, regular(blocks.spec, 4)).tobytes() == whole.tobytes()


def test_a_block_of_another_size_is_refused() -> None:
    blocks, x = small()
    with pytest.raises(ValueError, match=r"the block has shape \(1, 5, 6, 7, 3\), but .* reads"):
        blocks.compute(x, ((0, 1), (0, 1), (0, 1), (0, 1)))


def test_without_code_the_definition_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks, x = small()
    expected = assembled(blocks, x, regular(blocks.spec, 3))
    monkeypatch.setattr(module, "compiled", lambda: False)
    defined, _ = small()
    found = assembled(defined, x, regular(defined.spec, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert defined.workspace(((0, 1), (0, 2), (0, 2), (0, 2))) > 0


def test_a_block_is_freed_with_its_last_reference() -> None:
    blocks, x = small()
    region = ((0, 1), (0, 10), (0, 6), (0, 21))
    result = blocks.compute(x, region)
    gone: list[str] = []
    weakref.finalize(x, gone.append, "input")
    weakref.finalize(result, gone.append, "result")
    gc.disable()
    try:
        del x, result
        assert sorted(gone) == ["input", "result"]
    finally:
        gc.enable()
