"""How array elements become lanes: widened on load, rounded once on store.

float16 and bfloat16 are computed in float32. Where a processor converts float16 itself, it does; elsewhere
the conversions are a few integer instructions on the lanes, since LLVM would call a library that a
compiled kernel can't reach. Elements in foreign byte order are swapped on load.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from convt.kernels.builder import F32, F64, I16, I32, I64, Builder

__all__ = ["Element"]

Value = Any
_BITS = {"f16": I16, "bf16": I16, "f32": I32, "f64": I64}


@dataclass(frozen=True, slots=True)
class Element:
    """One element type in memory: "f16", "bf16", "f32" or "f64", in native byte order or swapped."""

    code: str
    swapped: bool = False

    @property
    def bytes(self) -> int:
        return int(_BITS[self.code].width) // 8

    @property
    def wide(self) -> ir.Type:
        """The type that sums are kept in."""
        return F64 if self.code == "f64" else F32

    @property
    def wide_bytes(self) -> int:
        return 8 if self.code == "f64" else 4

    @property
    def name(self) -> str:
        return self.code + ("x" if self.swapped else "")

    def load(self, b: Builder, pointer: Value, lanes: int, half: bool) -> Value:
        """`lanes` elements (1: a scalar) from `pointer` on, widened."""
        kind = _kind(self.wide, lanes)
        if self.code in ("f32", "f64") and not self.swapped:
            return b.load(pointer, align=1, typ=kind)
        bits = b.load(pointer, align=1, typ=_kind(_BITS[self.code], lanes))
        if self.swapped:
            bits = b.intrinsic("llvm.bswap", bits.type, [bits])
        if self.code in ("f32", "f64"):
            return b.bitcast(bits, kind)
        if self.code == "bf16":
            shifted = b.shl(b.zext(bits, _kind(I32, lanes)), _constant(I32, lanes, 16))
            return b.bitcast(shifted, kind)
        if half:
            return b.fpext(b.bitcast(bits, _kind(ir.HalfType(), lanes)), kind)
        return _widen_half(b, bits, lanes)

    def store(self, b: Builder, value: Value, pointer: Value, lanes: int, half: bool) -> None:
        """Round `value` to this type and store it; only in native byte order."""
        assert not self.swapped
        if self.code == "bf16":
            value = _round_bfloat(b, value, lanes)
        elif self.code == "f16" and half:
            value = b.fptrunc(value, _kind(ir.HalfType(), lanes))
        elif self.code == "f16":
            value = _round_half(b, value, lanes)
        b.store(value, pointer, align=1)


def _kind(element: ir.Type, lanes: int) -> ir.Type:
    return element if lanes == 1 else ir.VectorType(element, lanes)


def _constant(element: ir.Type, lanes: int, value: float) -> ir.Constant:
    kind = _kind(element, lanes)
    return ir.Constant(kind, value) if lanes == 1 else Builder.splat_constant(kind, value)


def _widen_half(b: Builder, bits: Value, lanes: int) -> Value:
    """float16 -> float32: shift exponent and fraction in place, scale by 2**112, mend Inf and NaN."""
    wide, kind = _kind(I32, lanes), _kind(F32, lanes)

    def number(value: int) -> ir.Constant:
        return _constant(I32, lanes, value)

    whole = b.zext(bits, wide)
    sign = b.shl(b.and_(whole, number(0x8000)), number(16))
    size = b.and_(whole, number(0x7FFF))
    shifted = b.shl(size, number(13))
    scaled = b.bitcast(b.fmul(b.bitcast(shifted, kind), _constant(F32, lanes, 2.0**112)), wide)
    special = b.or_(shifted, number(0x7F800000))
    finite = b.icmp_unsigned("<", size, number(0x7C00))
    return b.bitcast(b.or_(sign, b.select(finite, scaled, special)), kind)


def _round_half(b: Builder, value: Value, lanes: int) -> Value:
    """float32 -> float16, to nearest, ties to even."""
    wide, kind = _kind(I32, lanes), _kind(F32, lanes)

    def number(value: int) -> ir.Constant:
        return _constant(I32, lanes, value)

    bits = b.bitcast(value, wide)
    size = b.and_(bits, number(0x7FFFFFFF))
    odd = b.and_(b.lshr(size, number(13)), number(1))
    normal = b.lshr(b.add(b.sub(size, number(112 << 23)), b.add(odd, number(0xFFF))), number(13))
    # Below 2**-14 the sum with 0.5 rounds at float16's last subnormal place.
    lifted = b.fadd(b.bitcast(size, kind), _constant(F32, lanes, 0.5))
    tiny = b.sub(b.bitcast(lifted, wide), number(0x3F000000))
    result = b.select(b.icmp_unsigned("<", size, number(113 << 23)), tiny, normal)
    large = b.icmp_unsigned(">=", size, number(0x477FF000))  # 65520 and more round to Inf
    result = b.select(large, number(0x7C00), result)
    result = b.select(b.icmp_unsigned(">", size, number(0x7F800000)), number(0x7E00), result)
    sign = b.lshr(b.and_(bits, number(0x80000000)), number(16))
    return b.trunc(b.or_(result, sign), _kind(I16, lanes))


def _round_bfloat(b: Builder, value: Value, lanes: int) -> Value:
    """float32 -> bfloat16, to nearest, ties to even; a NaN stays one."""

    def number(value: int) -> ir.Constant:
        return _constant(I32, lanes, value)

    bits = b.bitcast(value, _kind(I32, lanes))
    top = b.lshr(bits, number(16))
    rounded = b.lshr(b.add(bits, b.add(number(0x7FFF), b.and_(top, number(1)))), number(16))
    nan = b.fcmp_unordered("uno", value, value)
    result = b.select(nan, b.or_(top, number(0x40)), rounded)
    return b.trunc(result, _kind(I16, lanes))
