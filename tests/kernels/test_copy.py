"""The strided copy: every pair of element types, any sizes, strides and order of axes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convt import jit, target
from convt.kernels import ir
from convt.kernels.builder import F32, PTR, Builder
from convt.kernels.copy import transpose
from convt.kernels.keys import Element
from oracles import BFLOAT16, assert_identical, integers
from problems import examples, layouts, untouched
from tiny import Tiny, copy, copying

HOST = target.host()
DTYPES: dict[str, np.dtype[Any]] = {
    "f16": np.dtype(np.float16),
    "bf16": BFLOAT16,
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
}
NARROW, WIDE = ("f16", "bf16", "f32"), ("f64",)
# The quick part of the suite takes one pair of every kind.
QUICK = [("f32", "f32"), ("f16", "f32"), ("bf16x", "f32"), ("f32", "f16"), ("f64x", "f64")]
PAIRS = [
    pytest.param(source, destination, marks=() if pair in QUICK else pytest.mark.slow)
    for codes in (NARROW, WIDE)
    for source in (Element(code, swapped) for code in codes for swapped in (False, True))
    for destination in map(Element, codes)
    for pair in [(source.name, destination.name)]
]
sizes = st.integers(0, 33) | st.integers(1, 5)


@pytest.mark.parametrize(("source", "destination"), PAIRS, ids=lambda e: e.name)
@examples(40)
@given(sizes, sizes, st.data())
def test_every_pair_of_types(
    source: Element, destination: Element, rows: int, columns: int, data: st.DataObject
) -> None:
    dtype, kept = DTYPES[source.code], DTYPES[destination.code]
    # As bit patterns, since ml_dtypes has no bfloat16 in foreign byte order.
    bits = integers(np.random.default_rng(0), (rows, columns), dtype).view(f"u{dtype.itemsize}")
    layout = replace(data.draw(layouts(2, bits.dtype)), swapped=source.swapped)
    array = layout.array(bits)
    out = data.draw(layouts(2, kept, written=True)).array(np.zeros((rows, columns), kept))
    copy(copying(source, destination), array, out)
    assert_identical(out, array.astype(bits.dtype, order="C").view(dtype).astype(kept))
    assert untouched(out)


# Where copies take other paths: channels beside each other, a few or a vector of them, either way.
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 8, 16, 17])
@pytest.mark.parametrize("pixels", [1, 7, 8, 31, 64, 101])
@pytest.mark.parametrize("code", DTYPES)
def test_channels_become_planes_and_back(code: str, pixels: int, channels: int) -> None:
    dtype = DTYPES[code]
    wide = np.dtype(np.float64 if code == "f64" else np.float32)
    values = integers(np.random.default_rng(0), (pixels, channels), dtype)
    planes = np.zeros((channels, pixels + 3), wide)[:, :pixels].T
    narrow, broad = Element(code), Element(code).wide
    copy(copying(narrow, broad), values, planes)
    assert_identical(planes, values.astype(wide))
    back = np.zeros_like(values)
    copy(copying(broad, narrow), planes, back)
    assert_identical(back, values)


@pytest.mark.parametrize("lanes", [2, 4, 8, 16])
def test_transpose_turns_about_the_diagonal(lanes: int) -> None:
    def make(processor: target.Target) -> str:
        """Load `lanes` vectors from the record, and store them there, turned."""
        module = ir.Module()
        run = ir.Function(module, "run", [PTR, PTR])
        b = Builder(run, fma=processor.fma)
        kind = ir.vector(F32, lanes)
        places = [b.at(run.args[0], b.i64(4 * lanes * row)) for row in range(lanes)]
        rows = [b.load(place, align=4, typ=kind) for place in places]
        for row, place in zip(transpose(b, rows), places, strict=True):
            b.store(row, place, align=4)
        b.ret_void()
        return str(module)

    square = np.arange(lanes * lanes, dtype=np.float32).reshape(lanes, lanes)
    turned = square.T.copy()
    jit.load(Tiny(f"test_transpose_{lanes}", make), HOST)(square.ctypes.data, 0)
    assert_identical(square, turned)
