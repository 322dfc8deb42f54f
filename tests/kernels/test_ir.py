"""Modules as text: constants to the bit, and functions dealt to parts that work together."""

from __future__ import annotations

import re
import struct

import numpy as np
import pytest

from convt import jit, target
from convt.kernels import emit, ir
from convt.kernels.builder import PTR, Builder, function
from convt.kernels.keys import Channels, Element
from tiny import Tiny

HOST = target.host()
F32 = Element("f32")
KERNEL = Channels(F32, 8, 6, 2, 0, 0, 4, source=F32, destination=F32)


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, 0.1, -1e-45, 2.0**112, np.inf])
@pytest.mark.parametrize(("kind", "code"), [(ir.F32, "f"), (ir.F64, "d")])
def test_numbers_are_written_to_the_bit(kind: ir.Type, code: str, value: float) -> None:
    (rounded,) = struct.unpack(code, struct.pack(code, value))
    (found,) = struct.unpack(">d", bytes.fromhex(ir.constant(kind, value).text[2:]))
    assert struct.pack("d", found) == struct.pack("d", rounded)


def test_a_constant_vector_has_the_value_in_every_lane() -> None:
    kind = ir.vector(ir.integer(32), 3)
    assert ir.constant(kind, -1) == ir.lanes(kind, [-1, -1, -1])
    assert ir.constant(kind, 7).typed == "<3 x i32> <i32 7, i32 7, i32 7>"


def names(text: str) -> list[str]:
    return re.findall(r"^define dso_local \w+ @(\w+)", text, re.MULTILINE)


@pytest.mark.parametrize("length", [1, 600, 1 << 20])
def test_every_function_is_in_one_part(length: int) -> None:
    module = emit(KERNEL, HOST)
    parts = module.parts(length)
    assert sorted(name for part in parts for name in names(part)) == sorted(names(str(module)))
    if length == 1:
        assert all(len(names(part)) == 1 for part in parts)
    if length == 1 << 20:
        assert len(parts) == 1


def test_parts_call_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """``run`` adds 3 in another part, and both parts inline what adds 1."""

    def make(processor: target.Target) -> ir.Module:
        module = ir.Module("parts")
        add_one = function(module, "add_one", [PTR], inline=True)
        b = Builder(add_one, fma=False)
        b.store(b.add(b.read(add_one.args[0]), b.i64(1)), add_one.args[0], align=8)
        b.ret_void()
        add_three = function(module, "add_three", [PTR])
        run = ir.Function(module, "run", [PTR, PTR])
        for made, called in ((add_three, [add_one] * 3), (run, [add_one, add_three])):
            b = Builder(made, fma=False)
            for other in called:
                b.call(other, made.args[:1])
            b.ret_void()
        return module

    monkeypatch.setattr(jit, "_PART", 1)
    assert len(make(HOST).parts(1)) == 2
    record = np.array([10], np.int64)
    jit.load(Tiny("test_parts", make), HOST)(record.ctypes.data, 0)
    assert record[0] == 14
