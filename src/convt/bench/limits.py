"""What this machine can do at most, measured by generated code: fused multiply-adds, and copied bytes.

The peak is that of independent chains of full-vector multiply-adds on registers alone, on as many threads
as the benchmark uses. Copying is measured with arrays far larger than the caches, with stores that go
through them and with stores that go past them.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any, ClassVar, NamedTuple

import numpy as np

from convt import jit, target
from convt.kernels import ir
from convt.kernels.builder import F32, F64, PTR, Builder, Slot
from convt.target import Target

__all__ = ["Copy", "Limits", "MultiplyAdd", "Rates", "emit"]

_STEPS = 1 << 18  # multiply-adds of each chain in one measurement
_UNROLL = 8
_LEAST_BYTES = 64 << 20  # copied in one measurement, or four times the last-level cache
_REPEATS = 3  # measurements in a turn, of which the fastest counts


class Rates(NamedTuple):
    """Limits of the machine at one moment."""

    flops: float  # multiplications and additions per second
    copy: float  # bytes read and written per second, stores through the caches
    stream: float  # the same, stores past the caches

    @property
    def bytes(self) -> float:
        """The faster way to move memory."""
        return max(self.copy, self.stream)


@dataclass(frozen=True, slots=True)
class MultiplyAdd:
    """Chains of multiply-adds, one vector each; as many as registers hold beside two factors."""

    code: str  # "f32" or "f64"
    lanes: int
    chains: int

    emitter: ClassVar[str] = "convt.bench.limits"

    @property
    def name(self) -> str:
        return f"limit1_{self.code}_multiply_add_{self.chains}x{self.lanes}_u{_UNROLL}"


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy in vectors of float32."""

    lanes: int
    stream: bool  # past the caches

    emitter: ClassVar[str] = "convt.bench.limits"

    @property
    def name(self) -> str:
        return f"limit1_copy_{'stream_' if self.stream else ''}{self.lanes}_u{_UNROLL}"


def emit(kernel: MultiplyAdd | Copy, target: Target) -> ir.Module:
    """The kernel: its record holds counts and addresses, its workspace is where results go."""
    module = ir.Module(kernel.name)
    run = ir.Function(module, "run", [PTR, PTR])
    b = Builder(run, fma=target.fma)
    if isinstance(kernel, MultiplyAdd):
        _multiply_add(b, kernel, *run.args)
    else:
        _copy(b, kernel, *run.args)
    b.ret_void()
    return module


def _multiply_add(b: Builder, kernel: MultiplyAdd, record: Any, workspace: Any) -> None:
    """``sum = sum * factor + step`` in every lane of every chain; record: number of rounds."""
    element = F32 if kernel.code == "f32" else F64
    kind = ir.vector(element, kernel.lanes)
    size = kernel.lanes * (4 if kernel.code == "f32" else 8)
    factor, step = (b.read(b.at(workspace, b.i64(i * size)), kind, align=8) for i in range(2))
    sums = [Slot(b, kind, step) for _ in range(kernel.chains)]
    with b.loop(b.i64(0), b.word(record, 0)):
        for _ in range(_UNROLL):
            for chain in sums:
                chain.set(b.multiply_add(chain.get(), factor, step))
    for place, chain in enumerate(sums):
        b.store(chain.get(), b.at(workspace, b.i64((2 + place) * size)), align=8)


def _copy(b: Builder, kernel: Copy, record: Any, workspace: Any) -> None:
    """Record: bytes to copy, and from where to where in the workspace."""
    kind, size = ir.vector(F32, kernel.lanes), 4 * kernel.lanes
    source, result = (b.at(workspace, b.word(record, i)) for i in (1, 2))
    with b.loop(b.i64(0), b.word(record, 0), size * _UNROLL) as start:
        offsets = [b.add(start, b.i64(size * i)) for i in range(_UNROLL)]
        values = [b.read(b.at(source, offset), kind, align=size) for offset in offsets]
        for value, offset in zip(values, offsets, strict=True):
            b.put(value, b.at(result, offset), stream=kernel.stream)


class Limits:
    """Measures this machine's limits on so many threads."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._host = target.host()
        length = max(_LEAST_BYTES, 4 * self._host.l3_bytes) // threads
        self._length = length // 4096 * 4096  # whole pages, copied by each thread
        self._memory = _pages(2 * self._length * threads)
        self._pool = ThreadPoolExecutor(threads)

    def measure(self, code: str) -> Rates:
        """The fastest of a few measurements for numbers of the type `code`, "f32" or "f64"."""
        return Rates(self._flops(code), self._copied(stream=False), self._copied(stream=True))

    def _flops(self, code: str) -> float:
        lanes = self._host.lanes(4 if code == "f32" else 8)
        chains = 12 if self._host.registers <= 16 else 24
        function = jit.load(MultiplyAdd(code, lanes, chains), self._host)
        record = np.array([_STEPS // _UNROLL], np.int64)
        room = 64 * (chains + 2)  # bytes: vectors have at most 64
        place = _pages(room * self._threads)
        place.view(np.float32)[:] = 0.5 if code == "f32" else 0
        if code == "f64":
            place.view(np.float64)[:] = 0.5
        seconds = self._fastest(function, record, place.ctypes.data, room)
        return 2 * lanes * chains * _STEPS * self._threads / seconds

    def _copied(self, *, stream: bool) -> float:
        function = jit.load(Copy(self._host.lanes(4), stream), self._host)
        record = np.array([self._length, 0, self._length * self._threads], np.int64)
        seconds = self._fastest(function, record, self._memory.ctypes.data, self._length)
        return 2 * self._length * self._threads / seconds

    def _fastest(self, function: jit.Function, record: Any, start: int, step: int) -> float:
        """Seconds of the fastest of a few runs on all threads, whose workspaces are `step` apart."""
        places = [start + index * step for index in range(self._threads)]
        times = []
        for _ in range(_REPEATS):
            begin = perf_counter()
            list(self._pool.map(lambda place: function(record.ctypes.data, place), places))
            times.append(perf_counter() - begin)
        return min(times)


def _pages(size: int) -> Any:
    """So many bytes, in memory already, from the start of a page on."""
    block = np.zeros(size + 4096, np.uint8)
    block.fill(1)
    return block[-block.ctypes.data % 4096 :][:size]
