"""Elements widened and rounded, in hardware and with integers, against NumPy and ml_dtypes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from convt import jit, target
from convt.kernels import ir
from convt.kernels.builder import F32, PTR, Builder
from convt.kernels.elements import narrow_pairs
from convt.kernels.keys import Element
from oracles import BFLOAT16, Array
from tiny import Tiny, copy, copying

HOST = target.host()
# Without conversions in hardware; another name, so that its code is kept apart.
INTEGERS = replace(HOST, half=False, isa=f"{HOST.isa} without half")
PROCESSORS = [HOST, INTEGERS] if HOST.half else [HOST]
DTYPES: dict[str, np.dtype[Any]] = {"f16": np.dtype(np.float16), "bf16": BFLOAT16}
FLOAT32 = np.dtype(np.float32)

every = pytest.mark.parametrize("code", DTYPES)
processors = pytest.mark.parametrize("processor", PROCESSORS, ids=lambda p: p.isa)
steps = pytest.mark.parametrize("step", [1, 2], ids=["vectors", "scalars"])


def converted(values: Array, to: np.dtype[Any], processor: target.Target, step: int) -> Array:
    """Convert through a compiled copy; elements that lie apart are moved one by one."""
    codes = {FLOAT32: "f32"} | {dtype: code for code, dtype in DTYPES.items()}
    kernel = copying(Element(codes[values.dtype]), Element(codes[to]), processor)
    source = np.zeros((1, len(values) * step), values.dtype)[:, ::step]
    result = np.zeros((1, len(values) * step), to)[:, ::step]
    source[0] = values
    copy(kernel, source, result, processor)
    row: Array = result[0]
    return row


def assert_same_bits(actual: Array, expected: Array) -> None:
    """Check every bit, the sign of zero too; of a NaN only that it is one."""
    with np.errstate(invalid="ignore"):  # some NaNs are signalling
        nan = np.isnan(expected)
        assert np.array_equal(np.isnan(actual), nan)
    bits = f"u{expected.itemsize}"
    np.testing.assert_array_equal(actual[~nan].view(bits), expected[~nan].view(bits))


@every
@processors
@steps
def test_every_pattern_is_widened(code: str, processor: target.Target, step: int) -> None:
    values = np.arange(1 << 16, dtype=np.uint16).view(DTYPES[code])
    with np.errstate(invalid="ignore"):
        expected = values.astype(np.float32)
    assert_same_bits(converted(values, FLOAT32, processor, step), expected)


@every
@processors
@steps
def test_every_pattern_survives_there_and_back(
    code: str, processor: target.Target, step: int
) -> None:
    values = np.arange(1 << 16, dtype=np.uint16).view(DTYPES[code])
    assert_same_bits(converted(values, DTYPES[code], processor, step), values)


def hard_to_round(dtype: np.dtype[Any]) -> Array:
    """Every value of `dtype`, every tie between two of them, and their neighbours in float32."""
    with np.errstate(all="ignore"):
        exact = np.arange(1 << 16, dtype=np.uint16).view(dtype).astype(np.float32)
        exact = np.unique(exact[np.isfinite(exact)])
        middle = (exact[1:].astype(np.float64) + exact[:-1]) / 2
        step = exact[-1].astype(np.float64) - exact[-2]
        overflow = exact[-1] + np.array([0.5, 1.0, 2.0]) * step  # to the next one, were there one
        ends = np.concatenate([overflow, -overflow, [np.inf, -np.inf, np.nan, 1e30, 3e38]])
        points = np.concatenate([exact, middle, ends]).astype(np.float32)
        around = [np.nextafter(points, np.float32(end)) for end in (-np.inf, np.inf)]
    return np.concatenate([points, *around, np.array([-0.0, 1e-45, -1e-45], np.float32)])


@every
@processors
@steps
def test_ties_go_to_even(code: str, processor: target.Target, step: int) -> None:
    values = hard_to_round(DTYPES[code])
    with np.errstate(all="ignore"):
        expected = values.astype(DTYPES[code])
    assert_same_bits(converted(values, DTYPES[code], processor, step), expected)


@every
@processors
@steps
def test_any_pattern_is_rounded(code: str, processor: target.Target, step: int) -> None:
    bits = np.random.default_rng(0).integers(0, 1 << 32, 1 << 18, dtype=np.uint32)
    values = bits.view(np.float32)
    with np.errstate(all="ignore"):
        expected = values.astype(DTYPES[code])
    assert_same_bits(converted(values, DTYPES[code], processor, step), expected)


@processors
@steps
def test_a_nan_stays_one_whatever_its_payload(processor: target.Target, step: int) -> None:
    payloads = np.array([1, 0x1FFF, 0x2000, 0x8000, 0x3FFFFF, 0x400000, 0x7FFFFF], np.uint32)
    values = np.concatenate([payloads | 0x7F800000, payloads | 0xFF800000]).view(np.float32)
    for dtype in DTYPES.values():
        assert np.all(np.isnan(converted(values, dtype, processor, step)))


def joined_pairs(processor: target.Target) -> Tiny:
    """Rounds two rows in turn to bfloat16; its record: their places, the result's, their length."""
    lanes = processor.lanes(4)

    def make(machine: target.Target) -> ir.Module:
        module = ir.Module("pairs")
        run = ir.Function(module, "run", [PTR, PTR])
        b = Builder(run, fma=machine.fma)
        *places, result = (b.inttoptr(b.word(run.args[0], i), PTR) for i in range(3))
        with b.loop(b.i64(0), b.word(run.args[0], 3), lanes) as first:
            offset = b.mul(first, b.i64(4))
            rows = [b.read(b.at(p, offset), ir.vector(F32, lanes), align=4) for p in places]
            b.store(narrow_pairs(b, *rows), b.at(result, offset), align=4)
        b.ret_void()
        return module

    return Tiny(f"pairs_{processor.isa}_{lanes}", make)


def test_pairs_are_rounded_as_one_by_one() -> None:
    values = hard_to_round(BFLOAT16)
    nans = np.array([0x7FC0, 0x7F81, 0x7FFF, 0xFFFF, 0xFFC0], np.uint16).view(BFLOAT16)
    values = np.concatenate([values[~np.isnan(values)], nans.astype(np.float32)])
    lanes = HOST.lanes(4)
    values = np.resize(values, -(-len(values) // lanes) * lanes)
    rows = [values, values[::-1].copy()]
    result = np.empty(2 * len(values), BFLOAT16)
    places = [row.ctypes.data for row in (*rows, result)]
    record = np.array([*places, len(values)], np.int64)
    jit.load(joined_pairs(HOST), HOST)(record.ctypes.data, None)
    with np.errstate(all="ignore"):
        expected = np.stack(rows, axis=1).reshape(-1).astype(BFLOAT16)
    assert_same_bits(result, expected)
