"""``convt info``: what is installed, and what convt would use of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer

import convt
from convt import jit, target

__all__ = ["info"]

LIBRARIES = ("numpy", "llvmlite", "ml_dtypes", "platformdirs")
OPTIONAL = ("typer", "rich", "matplotlib", "nibabel")
FRAMEWORKS = ("tensorflow", "tensorflow-cpu", "keras", "torch", "jax", "jaxlib", "dask", "zarr")


def info() -> None:
    """Show version, instruction set, threads, cache folder and the libraries found."""
    for name, value in _rows():
        typer.echo(f"{name:<17}{value}")


def _rows() -> Iterator[tuple[str, str]]:
    host, folder = target.host(), jit.cache_folder()
    yield "convt", convt.__version__
    yield "processor", f"{host.cpu} ({host.triple})"
    yield "instruction set", f"{host.isa}, {host.registers} vectors of {host.vector_bits} bits"
    yield (
        "caches",
        ", ".join(
            f"L{level} {_size(size)}"
            for level, size in enumerate((host.l1_bytes, host.l2_bytes, host.l3_bytes), start=1)
        ),
    )
    yield "threads", str(convt.get_num_threads())
    yield "compiled code", f"{folder}: {_contents(folder)}"
    yield "libraries", ", ".join([*_found(LIBRARIES), f"LLVM {_llvm()}"])
    yield "command line", ", ".join(_found(OPTIONAL))
    yield "frameworks", ", ".join(_found(FRAMEWORKS)) or "none found"


def _found(names: tuple[str, ...]) -> Iterator[str]:
    """Installed versions, without importing anything."""
    for name in names:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            continue


def _llvm() -> str:
    from llvmlite import binding

    return ".".join(map(str, binding.llvm_version_info))


def _contents(folder: Path) -> str:
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    return f"{len(sizes)} objects, {_size(sum(sizes))}"


def _size(count: int) -> str:
    """Bytes in the largest unit that leaves at least 1."""
    for unit in ("MiB", "KiB"):
        size = 1 << (20 if unit == "MiB" else 10)
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count} bytes"
