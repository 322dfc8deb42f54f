"""Where a run took place: the machine, and the versions of everything that was measured."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from convt import target

__all__ = ["describe", "processors", "versions"]

_DISTRIBUTIONS = {
    "convt": ("convt",),
    "NumPy": ("numpy",),
    "llvmlite": ("llvmlite",),
    "TensorFlow": ("tensorflow", "tensorflow-cpu"),
    "PyTorch": ("torch",),
    "JAX": ("jax",),
    "ONNX Runtime": ("onnxruntime",),
    "OpenVINO": ("openvino",),
}


def processors() -> int:
    """Processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe() -> dict[str, str]:
    """The machine, line by line."""
    host = target.host()
    sizes = (host.l1_bytes, host.l2_bytes, host.l3_bytes)
    caches = (f"L{level} {size >> 10:,} KiB" for level, size in enumerate(sizes, start=1))
    found = {
        "processor": _model(),
        "processors used": str(processors()),
        "instruction set": f"{host.isa} ({host.registers} vectors of {host.vector_bits} bits)",
        "caches": ", ".join(caches),
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()}, {platform.libc_ver()[0]} "
        f"{platform.libc_ver()[1]}".rstrip(", "),
        "Python": platform.python_version(),
    }
    return {name: value for name, value in found.items() if value}


def versions() -> dict[str, str]:
    """Versions of the libraries that are installed."""
    found = {}
    for label, names in _DISTRIBUTIONS.items():
        for name in names:
            try:
                found[label] = version(name)
                break
            except PackageNotFoundError:
                continue
    return found


def _model() -> str:
    return _field(Path("/proc/cpuinfo"), "model name") or platform.processor()


def _memory() -> str:
    found = _field(Path("/proc/meminfo"), "MemTotal")
    return f"{int(found.split()[0]) / (1 << 20):.0f} GiB" if found else ""


def _field(path: Path, name: str) -> str:
    try:
        found = re.search(rf"^{name}\s*:\s*(.+)$", path.read_text(), re.MULTILINE)
    except OSError:
        return ""
    return found[1].strip() if found else ""
