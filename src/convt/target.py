"""The processor that kernels are compiled for: instruction set, lanes, registers, caches.

By default the processor this process runs on, as LLVM reads it. ``CONVT_TARGET_CPU`` lowers that to one
of the levels of x86-64 (``x86-64``, ``x86-64-v3``, ``x86-64-v4``); a level that this processor lacks is
refused, since its code would end the process.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

__all__ = ["ISAS", "Isa", "Target", "host", "named"]


class Isa(NamedTuple):
    """What kernels use of an instruction set."""

    name: str
    vector_bits: int  # width of a vector register
    registers: int  # vector registers there are
    fma: bool  # multiplies and adds in one instruction
    half: bool  # converts float16 in hardware
    level: str  # LLVM's name of the plainest processor that has it
    needs: tuple[str, ...] = ()  # LLVM's names of the features that it takes


_V3 = ("avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
ISAS = (
    Isa("AVX-512", 512, 32, True, True, "x86-64-v4", _V4),
    Isa("AVX2+FMA", 256, 16, True, True, "x86-64-v3", _V3),
    Isa("SSE2", 128, 16, False, False, "x86-64"),
    Isa("NEON", 128, 32, True, True, "generic"),
    Isa("baseline", 128, 16, False, False, "generic"),
)
_AVX512, _AVX2, _SSE2, _NEON, _BASELINE = ISAS


@dataclass(frozen=True, slots=True)
class Target:
    """What a planner and an emitter need to know of a processor."""

    triple: str  # LLVM's name of the platform
    cpu: str  # LLVM's name of the processor
    features: str  # LLVM's feature string: "+avx2,+fma,..."; empty: those of `cpu`
    isa: str  # the instruction set that kernels use
    vector_bits: int  # width of a vector register
    registers: int  # vector registers there are
    fma: bool  # multiplies and adds in one instruction
    half: bool  # converts float16 in hardware
    l1_bytes: int = 32 << 10  # first-level data cache of one core
    l2_bytes: int = 512 << 10  # second-level cache of one core
    l3_bytes: int = 8 << 20  # last-level cache

    def lanes(self, item_bytes: int) -> int:
        """Elements of `item_bytes` bytes in one vector register."""
        return self.vector_bits // (8 * item_bytes)


def named(cpu: str, triple: str, isa: Isa, features: str = "") -> Target:
    """The processor `cpu` of the platform `triple`, used as far as `isa` goes."""
    caches = (_cache(1, 32 << 10), _cache(2, 512 << 10), _cache(3, 8 << 20))
    return Target(
        triple, cpu, features, isa.name, isa.vector_bits, isa.registers, isa.fma, isa.half, *caches
    )


@lru_cache(maxsize=1)
def host() -> Target:
    """The processor to compile for: this one, or the level of it that ``CONVT_TARGET_CPU`` names.

    Raises
    ------
    ValueError
        If ``CONVT_TARGET_CPU`` names no level, or one that this processor lacks.
    """
    from llvmlite import binding as llvm

    triple = llvm.get_process_triple()
    features = llvm.get_host_cpu_features()
    on_x86 = triple.startswith(("x86_64", "amd64"))
    choices = [i for i in ISAS if i.level.startswith("x86-64") == on_x86]
    wanted = os.environ.get("CONVT_TARGET_CPU")
    if wanted:
        isa = _level(wanted, choices)
        missing = [name for name in isa.needs if not features.get(name)]
        if missing:
            raise ValueError(
                f"CONVT_TARGET_CPU={wanted!r} needs {', '.join(missing)}, which this processor lacks"
            )
        return named(isa.level, triple, isa)
    if triple.startswith(("aarch64", "arm64")):
        isa = _NEON
    elif on_x86:
        isa = next(i for i in choices if all(features.get(name) for name in i.needs))
    else:
        isa = _BASELINE
    return named(llvm.get_host_cpu_name(), triple, isa, features.flatten())


def _level(wanted: str, choices: list[Isa]) -> Isa:
    for isa in choices:
        if isa.level == wanted:
            return isa
    levels = ", ".join(sorted({isa.level for isa in choices}))
    raise ValueError(f"CONVT_TARGET_CPU={wanted!r} is none of the levels known here: {levels}")


def _cache(level: int, otherwise: int) -> int:
    """Bytes of the data cache of `level` that one core sees, as Linux tells it."""
    from pathlib import Path  # only once a process asks for its caches

    folder = Path("/sys/devices/system/cpu/cpu0/cache")
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    for index in sorted(folder.glob("index*")):
        try:
            found = int((index / "level").read_text())
            kind = (index / "type").read_text().strip()
            size = (index / "size").read_text().strip()
            if found == level and kind in ("Data", "Unified"):
                return int(size[:-1]) * units[size[-1]]
        except (OSError, ValueError, KeyError):
            continue
    return otherwise
