"""Blocks of an upsampled volume, wherever it is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convt.volumes.interpolate import Interpolation, Span, each
from convt.volumes.kernels import LINES

SIZE = (7, 5, 19)


@st.composite
def blocks(draw: st.DrawFn, factors: tuple[int, int, int]) -> list[Span]:
    """Any part of the result, not only whole input voxels."""
    spans = []
    for size, factor in zip(SIZE, factors, strict=True):
        start = draw(st.integers(0, size * factor - 1))
        spans.append((start, draw(st.integers(start + 1, size * factor))))
    return spans


@settings(max_examples=60)
@given(data=st.data(), kernel=st.sampled_from(sorted(LINES)))
def test_a_block_has_the_bits_of_the_whole(data: st.DataObject, kernel: str) -> None:
    factors = data.draw(st.sampled_from([(2, 2, 2), (3, 1, 2), (1, 5, 4), (1, 1, 1)]))
    outputs = data.draw(blocks(factors))
    interpolation = Interpolation(kernel, factors)
    volume = np.random.default_rng(0).normal(size=(*SIZE, 1)).astype(np.float32)
    whole = interpolation(
        volume, [(0, n * f) for n, f in zip(SIZE, factors, strict=True)], SIZE, threads=1
    )
    reads = interpolation.reads(outputs, SIZE)
    block = volume[tuple(slice(*span) for span in reads)]
    got = interpolation(block, outputs, SIZE, threads=2)
    expected = whole[tuple(slice(*span) for span in outputs)]
    np.testing.assert_array_equal(
        got.view(np.uint32), np.ascontiguousarray(expected).view(np.uint32)
    )


@pytest.mark.parametrize(
    ("kernel", "factors", "passes"),
    [
        ("trilinear", (2, 2, 2), ((0, 1, 2),)),
        ("cubic", (2, 2, 2), ((0,), (1,), (2,))),
        ("lanczos3", (2, 2, 2), ((0,), (1,), (2,))),
        ("lanczos3", (1, 3, 1), ((1,),)),
        ("cubic", (1, 1, 1), ((2,),)),
    ],
)
def test_axes_are_parted_where_that_is_less_work(
    kernel: str, factors: tuple[int, int, int], passes: tuple[tuple[int, ...], ...]
) -> None:
    assert Interpolation(kernel, factors).passes == passes


def test_each_does_everything_once_and_passes_errors_on() -> None:
    done: list[int] = []
    each(done.append, 100, 3)
    assert sorted(done) == list(range(100))

    def fail(number: int) -> None:
        raise OSError(number)

    with pytest.raises(OSError, match="0"):
        each(fail, 1, 1)
    each(fail, 0, 2)


@pytest.mark.parametrize("kernel", sorted(LINES))
def test_without_compiled_code_the_definition_answers(
    kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = np.random.default_rng(0).random((3, 4, 5, 2), np.float32)
    interpolation, outputs = Interpolation(kernel, (2, 1, 3)), [(1, 5), (0, 4), (2, 15)]
    expected = interpolation(volume, outputs, (3, 4, 5))
    for module in ("convt.volumes.interpolate", "convt.api"):
        monkeypatch.setattr(f"{module}.compiled", lambda: False)
    out = np.zeros_like(expected)
    interpolation(volume, outputs, (3, 4, 5), out=out)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(interpolation(volume, outputs, (3, 4, 5)), out)
