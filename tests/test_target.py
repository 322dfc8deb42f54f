"""Kernels for processors that are not at hand, read as assembly; and this one, run as a lesser one."""

from __future__ import annotations

import platform
import re
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from convt import jit, target
from convt.plan import Access, Plan, make_plan
from convt.spec import make_spec
from convt.target import ISAS, Target, named
from oracles import BFLOAT16
from processes import python

X86, ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
ISA = {isa.name: isa for isa in ISAS}
TARGETS: dict[str, Target] = {
    "skylake-avx512": named("skylake-avx512", X86, ISA["AVX-512"]),
    "znver4": named("znver4", X86, ISA["AVX-512"]),
    "haswell": named("haswell", X86, ISA["AVX2+FMA"]),
    "x86-64": named("x86-64", X86, ISA["SSE2"]),
    "neoverse-n1": named("neoverse-n1", ARM, ISA["NEON"]),
    "apple-m1": named("apple-m1", "arm64-apple-darwin", ISA["NEON"]),
}
# Of each instruction set: how it multiplies full vectors of float32 and of float64.
MULTIPLY = {
    "AVX-512": (r"vfmadd\d+ps .*%zmm\d+$", r"vfmadd\d+pd .*%zmm\d+$"),
    "AVX2+FMA": (r"vfmadd\d+ps .*%ymm\d+$", r"vfmadd\d+pd .*%ymm\d+$"),
    "SSE2": (r"mulps .*%xmm\d+$", r"mulpd .*%xmm\d+$"),
    "NEON": (r"fmla(\.4s)? .*v\d+", r"fmla(\.2d)? .*v\d+"),
}
# A vector register beside an address on the stack.
SPILL = re.compile(r"%[xyz]mm\d+.*\(%rsp|\(%rsp.*%[xyz]mm\d+|\b[qdsv]\d+\b.*\[sp")

# A symbol whose address an instruction takes or jumps to.
SYMBOL = re.compile(
    r"(?:\$|:abs_g\d(?:_nc)?:|(?:callq?|bl) )([A-Za-z_.][\w.$]*)|([A-Za-z_.][\w.$]*)(?=@)"
)

# (dtype, data_format, channels in and out, groups, kernel, stride, family)
PROBLEMS: dict[str, Any] = {
    "channels": ("float32", "NDHWC", 32, 64, 1, 3, 2, "channels"),
    "channels of three vectors": ("float32", "NDHWC", 5, 48, 1, 2, 2, "channels"),
    "channels with a wider last block": ("float32", "NDHWC", 8, 80, 1, 3, 1, "channels"),
    "channels in NCDHW": ("float64", "NCDHW", 32, 40, 1, 3, 1, "channels"),
    "channels of float16": ("float16", "NDHWC", 32, 64, 1, 3, 2, "channels"),
    "groups": ("float32", "NDHWC", 48, 48, 48, 3, 1, "channels"),
    "rows": ("float32", "NCDHW", 1, 1, 1, 4, 2, "rows"),
    "rows of three channels": ("float32", "NDHWC", 3, 3, 1, 3, 1, "rows"),
    "rows of float64": ("float64", "NCDHW", 8, 2, 1, 5, 3, "rows"),
    "rows of bfloat16": ("bfloat16", "NCDHW", 4, 4, 1, 2, 2, "rows"),
    "dots": ("float32", "NDHWC", 64, 1, 1, 3, 2, "dots"),
    "dots of even taps": ("float32", "NDHWC", 48, 1, 1, 4, 2, "dots"),
    "dots of float64": ("float64", "NDHWC", 32, 1, 1, 3, 1, "dots"),
    "dots of bfloat16": ("bfloat16", "NDHWC", 32, 1, 1, 5, 3, "dots"),
    "filtering": ("float32", "NDHWC", 64, 64, 1, 3, 1, "filtering"),
    "filtering with a wider last block": ("float32", "NDHWC", 32, 80, 1, 4, 2, "filtering"),
    "filtering in NCDHW": ("float64", "NCDHW", 32, 40, 1, 3, 2, "filtering"),
    "filtering of float16": ("float16", "NDHWC", 32, 32, 1, 4, 2, "filtering"),
}
# What the quick part of the suite compiles; a server's processors compile everything.
QUICK = [
    ("znver4", "channels"),
    ("haswell", "rows"),
    ("haswell", "dots"),
    ("neoverse-n1", "channels"),
    ("haswell", "filtering"),
]


def plan(name: str, processor: Target) -> Plan:
    dtype, data_format, into, out, groups, kernel, stride, family = PROBLEMS[name]
    dtype = BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype)
    last = data_format == "NDHWC"
    spec = make_spec(
        input_shape=(1, 8, 8, 48, into) if last else (1, into, 8, 8, 48),
        input_dtype=dtype,
        filters_shape=(kernel, kernel, kernel, out, into // groups),
        filters_dtype=dtype,
        output_shape=None,
        strides=stride,
        padding="SAME",
        data_format=data_format,
        dilations=None,
        groups=groups,
    )
    access = Access(
        input_channels_dense=last,
        output_channels_dense=last,
        output_width_dense=not last or out == 1,
    )
    algorithm = "auto" if family == "filtering" else "direct"
    made = make_plan(spec, processor, access, 2, family=family, algorithm=algorithm)
    assert made.kernel.family == family
    return made


def lines(assembly: str) -> list[str]:
    """Instructions and labels with single spaces, without comments and directives."""
    bare = (" ".join(re.split(r"##|//|;", line)[0].split()) for line in assembly.splitlines())
    return [line for line in bare if line and (line[0] != "." or line.endswith(":"))]


def inner_loops(code: list[str]) -> list[list[str]]:
    """From a label to a jump back to it, where no such stretch lies within."""
    labels = {line[:-1]: place for place, line in enumerate(code) if line.endswith(":")}
    stretches = []
    for place, line in enumerate(code):
        jump = re.match(r"(?:j\w+|b|b\.\w+|b\w\w|cbn?z|tbn?z) (?:.*, ?)?([.\w]+)$", line)
        start = labels.get(jump.group(1), place) if jump else place
        if start < place:
            stretches.append((start, place))
    return [
        code[start : end + 1]
        for start, end in stretches
        if not any(start <= a and b <= end and (a, b) != (start, end) for a, b in stretches)
    ]


@lru_cache(maxsize=200)
def assembly(kernel: Any, processor: Target) -> list[str]:
    return lines(jit.assembly(kernel, processor))


def cases() -> list[Any]:
    """Every problem for every processor, but two for the one that differs in its symbols alone."""
    return [
        pytest.param(
            processor, problem, marks=() if (processor, problem) in QUICK else pytest.mark.slow
        )
        for processor in TARGETS
        for problem in PROBLEMS
        if problem in ("channels", "rows") or processor != "apple-m1"
    ]


def stray(processor: str, problem: str, products: int) -> float:
    """How many moves to and from the stack may lie beside that many multiplications.

    None on the servers' processors; on AArch64 LLVM's schedule keeps one value too many here and
    there. SSE2 has a register too few for multiplication and addition apart, and lanes that are
    groups load both factors of every product: there speed isn't in the registers.
    """
    isa = TARGETS[processor].isa
    if isa == "SSE2" or problem == "groups":
        return float("inf")
    return products / 8 if isa == "NEON" else 0


def functions(code: list[str], prefix: str) -> list[str]:
    """The instructions of the functions whose names begin so."""
    found, inside = [], False
    for line in code:
        if name := re.match(r"_?([A-Za-z]\w*):$", line):
            inside = name.group(1).startswith(prefix)
        if inside:
            found.append(line)
    return found


@pytest.mark.parametrize(("processor", "problem"), cases())
def test_sums_are_fused_on_full_vectors_and_stay_in_registers(processor: str, problem: str) -> None:
    made = plan(problem, TARGETS[processor])
    double = made.kernel.wide.code == "f64"
    multiply = re.compile(MULTIPLY[made.target.isa][double])
    found = False
    code = assembly(made.kernel, made.target)
    if made.filtered:  # beside products it has the transforms, of more values than registers
        code = functions(code, "block_")
    for loop in inner_loops(code):
        products = sum(bool(multiply.match(line)) for line in loop)
        if products:
            found = True
            spills = [line for line in loop if SPILL.search(line)]
            assert len(spills) <= stray(processor, problem, products), spills
    assert found


@pytest.mark.parametrize(("processor", "problem"), cases())
def test_compiled_code_calls_nothing_else(processor: str, problem: str) -> None:
    """No symbol is left to find when code is loaded: no conversion routine, no fma, no memcpy."""
    made = plan(problem, TARGETS[processor])
    for kernel in filter(None, (made.pack, made.transform, made.kernel)):
        code = assembly(kernel, made.target)
        found = {name for line in code for names in SYMBOL.findall(line) for name in names}
        here = {line[:-1] for line in code if line.endswith(":")}
        assert found - {""} <= here


# Of each instruction set: how it adds full vectors of float32 and of float64.
ADD = {
    "AVX-512": (r"vaddps .*%zmm\d+$", r"vaddpd .*%zmm\d+$"),
    "AVX2+FMA": (r"vaddps .*%ymm\d+$", r"vaddpd .*%ymm\d+$"),
    "SSE2": (r"addps .*%xmm\d+$", r"addpd .*%xmm\d+$"),
    "NEON": (r"fadd(\.4s)? .*v\d+", r"fadd(\.2d)? .*v\d+"),
}
FILTERED = [case for case in cases() if "filtering" in case.values[1]]


@pytest.mark.parametrize(("processor", "problem"), FILTERED)
def test_points_are_reached_by_additions_of_full_vectors(processor: str, problem: str) -> None:
    """There is not one multiplication on the way there, and on the way back those of the check."""
    made = plan(problem, TARGETS[processor])
    double = made.kernel.wide.code == "f64"
    add, multiply = (re.compile(table[made.target.isa][double]) for table in (ADD, MULTIPLY))
    code = assembly(made.kernel, made.target)
    enter, leave = functions(code, "enter_"), functions(code, "leave_")
    for way in (enter, leave):
        assert any(add.match(line) for line in way)
    assert not any(multiply.match(line) for line in enter)
    assert any(multiply.match(line) for line in leave)


# --- this processor -----------------------------------------------------------------------------
def test_the_host_is_one_of_the_instruction_sets() -> None:
    host = target.host()
    isa = ISA[host.isa]
    assert (host.vector_bits, host.registers) == (isa.vector_bits, isa.registers)
    assert (host.fma, host.half) == (isa.fma, isa.half)
    assert host.cpu
    assert 0 < host.l1_bytes <= host.l2_bytes
    assert host.l3_bytes > 0


def test_lanes() -> None:
    assert TARGETS["znver4"].lanes(4) == 16
    assert TARGETS["haswell"].lanes(8) == 4
    assert TARGETS["neoverse-n1"].lanes(4) == 4


LEVEL = """
    import ml_dtypes
    import numpy as np
    import convt
    from convt import reference, target

    rng = np.random.default_rng(0)
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64):
        for into, out, k, s in ((5, 3, 3, 2), (20, 33, 2, 2)):
            for data_format in ("NDHWC", "NCDHW"):
                last = data_format == "NDHWC"
                x = rng.integers(-9, 9, (2, 3, 4, 9, into) if last else (2, into, 3, 4, 9))
                w = rng.integers(-9, 9, (k, k, k, out, into)).astype(dtype)
                arguments = (x.astype(dtype), w, None, s, "SAME", data_format)
                y = convt.conv3d_transpose(*arguments)
                expected = reference.conv3d_transpose(*arguments)
                assert y.dtype == expected.dtype
                assert np.array_equal(y.astype(np.float64), expected.astype(np.float64))
    print(target.host().isa)
"""
on_x86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="levels are those of x86-64"
)


@on_x86
@pytest.mark.slow
@pytest.mark.parametrize(
    ("level", "isa"), [("x86-64", "SSE2"), ("x86-64-v3", "AVX2+FMA"), ("x86-64-v4", "AVX-512")]
)
def test_lesser_levels_give_right_results(level: str, isa: str) -> None:
    from llvmlite import binding

    found = binding.get_host_cpu_features()
    if not all(found.get(name) for name in ISA[isa].needs):
        pytest.skip(f"this processor lacks {isa}")
    assert python(LEVEL, CONVT_TARGET_CPU=level) == f"{isa}\n"


FAILS = """
    import numpy as np
    import convt
    from llvmlite import binding

    lacking = binding.get_host_cpu_features()
    lacking.update(avx2=False, fma=False)
    binding.get_host_cpu_features = lambda: lacking
    x = np.ones((1, 1, 1, 1, 1), np.float32)
    try:
        convt.conv3d_transpose(x, x, None, 1)
    except ValueError as error:
        print(error)
"""


@on_x86
def test_an_unknown_level_is_an_error() -> None:
    assert python(FAILS, CONVT_TARGET_CPU="pentium") == (
        "CONVT_TARGET_CPU='pentium' is none of the levels known here: "
        "x86-64, x86-64-v3, x86-64-v4\n"
    )


@on_x86
def test_a_level_that_the_processor_lacks_is_an_error() -> None:
    assert python(FAILS, CONVT_TARGET_CPU="x86-64-v3") == (
        "CONVT_TARGET_CPU='x86-64-v3' needs avx2, fma, which this processor lacks\n"
    )
