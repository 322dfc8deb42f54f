"""How array elements become lanes: widened on load, rounded once on store.

float16 and bfloat16 are computed in float32. Where a processor converts float16 itself, it does; elsewhere
the conversions are a few integer instructions on the lanes, since LLVM would call a library that a
compiled kernel can't reach. Elements in foreign byte order are swapped on load.
"""

from __future__ import annotations

from convt.kernels import ir
from convt.kernels.builder import F32, F64, I16, I32, I64, Builder
from convt.kernels.ir import Value
from convt.kernels.keys import Element

__all__ = [
    "Element",
    "bits_of",
    "load",
    "narrow",
    "narrow_pairs",
    "number",
    "store",
]

_BITS = {"f16": I16, "bf16": I16, "f32": I32, "f64": I64}


def number(element: Element) -> ir.Type:
    """The type of a native `element` as a number; of float16 and bfloat16, that of their sums."""
    return F64 if element.code == "f64" else F32


def bits_of(element: Element) -> ir.Type:
    """The integer type of an `element`'s bits."""
    return _BITS[element.code]


def load(b: Builder, element: Element, pointer: Value, lanes: int, *, half: bool) -> Value:
    """`lanes` elements (1: a scalar) from `pointer` on, widened."""
    kind = _kind(number(element), lanes)
    if element.code in ("f32", "f64") and not element.swapped:
        return b.load(pointer, align=1, typ=kind)
    bits = b.load(pointer, align=1, typ=_kind(_BITS[element.code], lanes))
    if element.swapped:
        bits = b.intrinsic("llvm.bswap", bits.type, [bits])
    if element.code in ("f32", "f64"):
        return b.bitcast(bits, kind)
    if element.code == "bf16":
        shifted = b.shl(b.zext(bits, _kind(I32, lanes)), _constant(I32, lanes, 16))
        return b.bitcast(shifted, kind)
    if half:
        return b.fpext(b.bitcast(bits, _kind(ir.F16, lanes)), kind)
    return _widen_half(b, bits, lanes)


def store(
    b: Builder, element: Element, value: Value, pointer: Value, lanes: int, *, half: bool
) -> None:
    """Round `value` to `element` and store it; only in native byte order."""
    b.store(narrow(b, element, value, lanes, half=half), pointer, align=1)


def narrow(b: Builder, element: Element, value: Value, lanes: int, *, half: bool) -> Value:
    """`value` rounded to `element`: as it is stored, in native byte order."""
    assert not element.swapped
    if element.code == "bf16":
        return _round_bfloat(b, value, lanes)
    if element.code == "f16" and half:
        return b.bitcast(b.fptrunc(value, _kind(ir.F16, lanes)), _kind(I16, lanes))
    return _round_half(b, value, lanes) if element.code == "f16" else value


def narrow_pairs(b: Builder, first: Value, second: Value) -> Value:
    """The elements of two vectors of sums of bfloat16, rounded to it, in turn.

    Rounds half to even, all elements at once. A NaN among such sums has the bits of an element or those
    that processors make, of which bfloat16 holds all: rounding cuts zeros off and can't end it.
    """
    bits = ir.vector(I32, first.type.count)
    low, high = b.bitcast(first, bits), b.bitcast(second, bits)

    def word(value: int) -> Value:
        return ir.constant(bits, value)

    upper = b.or_(b.lshr(low, word(16)), b.and_(high, word(-0x10000)))
    lower = b.or_(b.and_(low, word(0xFFFF)), b.shl(high, word(16)))
    kind = ir.vector(I16, 2 * bits.count)
    upper, lower = b.bitcast(upper, kind), b.bitcast(lower, kind)
    # Up where the lower half is more than 0x8000, or is it and the upper is odd; compared as signed.
    even = b.neg(b.and_(upper, ir.constant(kind, 1)))
    up = b.icmp_signed(">", b.xor(lower, ir.constant(kind, -0x8000)), even)
    return b.sub(upper, b.sext(up, kind))


def _kind(element: ir.Type, lanes: int) -> ir.Type:
    return element if lanes == 1 else ir.vector(element, lanes)


def _constant(element: ir.Type, lanes: int, value: float) -> Value:
    return ir.constant(_kind(element, lanes), value)


def _widen_half(b: Builder, bits: Value, lanes: int) -> Value:
    """float16 -> float32: shift exponent and fraction in place, scale by 2**112, mend Inf and NaN."""
    wide, kind = _kind(I32, lanes), _kind(F32, lanes)

    def constant(value: int) -> Value:
        return _constant(I32, lanes, value)

    whole = b.zext(bits, wide)
    sign = b.shl(b.and_(whole, constant(0x8000)), constant(16))
    size = b.and_(whole, constant(0x7FFF))
    shifted = b.shl(size, constant(13))
    scaled = b.bitcast(b.fmul(b.bitcast(shifted, kind), _constant(F32, lanes, 2.0**112)), wide)
    special = b.or_(shifted, constant(0x7F800000))
    finite = b.icmp_unsigned("<", size, constant(0x7C00))
    return b.bitcast(b.or_(sign, b.select(finite, scaled, special)), kind)


def _round_half(b: Builder, value: Value, lanes: int) -> Value:
    """float32 -> float16, to nearest, ties to even."""
    wide, kind = _kind(I32, lanes), _kind(F32, lanes)

    def constant(value: int) -> Value:
        return _constant(I32, lanes, value)

    bits = b.bitcast(value, wide)
    size = b.and_(bits, constant(0x7FFFFFFF))
    odd = b.and_(b.lshr(size, constant(13)), constant(1))
    normal = b.lshr(
        b.add(b.sub(size, constant(112 << 23)), b.add(odd, constant(0xFFF))), constant(13)
    )
    # Below 2**-14 the sum with 0.5 rounds at float16's last subnormal place.
    lifted = b.fadd(b.bitcast(size, kind), _constant(F32, lanes, 0.5))
    tiny = b.sub(b.bitcast(lifted, wide), constant(0x3F000000))
    result = b.select(b.icmp_unsigned("<", size, constant(113 << 23)), tiny, normal)
    large = b.icmp_unsigned(">=", size, constant(0x477FF000))  # 65520 and more round to Inf
    result = b.select(large, constant(0x7C00), result)
    result = b.select(b.icmp_unsigned(">", size, constant(0x7F800000)), constant(0x7E00), result)
    sign = b.lshr(b.and_(bits, constant(0x80000000)), constant(16))
    return b.trunc(b.or_(result, sign), _kind(I16, lanes))


def _round_bfloat(b: Builder, value: Value, lanes: int) -> Value:
    """float32 -> bfloat16, to nearest, ties to even; a NaN stays one."""
    rounded = _rounded_bfloat(b, _short_nan(b, value, lanes), lanes)
    return b.trunc(b.lshr(rounded, _constant(I32, lanes, 16)), _kind(I16, lanes))


def _short_nan(b: Builder, value: Value, lanes: int) -> Value:
    """`value`, if it is NaN a quiet one with nothing in the lower half, which no rounding ends."""
    wide = _kind(I32, lanes)
    bits = b.and_(b.bitcast(value, wide), _constant(I32, lanes, -0x10000))
    short = b.bitcast(b.or_(bits, _constant(I32, lanes, 0x400000)), value.type)
    return b.select(b.unordered(value, value), short, value)


def _rounded_bfloat(b: Builder, value: Value, lanes: int) -> Value:
    """float32 -> bits whose upper half is the bfloat16; the lower half is of no meaning."""

    def constant(value: int) -> Value:
        return _constant(I32, lanes, value)

    bits = b.bitcast(value, _kind(I32, lanes))
    odd = b.and_(b.lshr(bits, constant(16)), constant(1))
    return b.add(bits, b.add(constant(0x7FFF), odd))
