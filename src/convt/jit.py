"""Kernel key -> callable: emit, verify, optimise, compile; object code is kept in memory and on disk.

A kernel is one function ``void run(record, workspace)``. Its key spells everything that its code depends
on, so equal keys share code: inside the process by a dictionary, between processes by `objects`.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from convt.kernels import emit
from convt.kernels.keys import Kernel
from convt.target import Target

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["assembly", "cache_folder", "can_execute", "load"]

_OPTIMISE = 2  # LLVM's level for code generation; measured: 3 is no faster here

Function = Callable[[Any, int | None], None]


_loaded: dict[tuple[Target, str], tuple[Function, Any]] = {}
_lock = threading.Lock()


def load(kernel: Kernel, target: Target) -> Function:
    """The compiled `kernel`: called with the addresses of its record and its workspace."""
    key = (target, kernel.name)
    found = _loaded.get(key)
    if found is None:
        with _lock:
            found = _loaded.get(key)
            if found is None:
                found = _loaded[key] = _link(_object(kernel, target), target)
    return found[0]


def assembly(kernel: Kernel, target: Target) -> str:
    """The machine code of `kernel` as text, compiled for any `target` and not run."""
    machine = _machine(target)
    return str(machine.emit_assembly(_optimised(kernel, target, machine)))


# --- compiling ----------------------------------------------------------------------------------
@lru_cache(maxsize=1)
def _llvm() -> Any:
    from llvmlite import binding

    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    return binding


def _machine(target: Target) -> Any:
    # Every engine owns and frees its machine, so machines are never shared.
    llvm = _llvm()
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=_OPTIMISE, reloc="default", jit=True
    )


def _optimised(kernel: Kernel, target: Target, machine: Any) -> Any:
    """The module of `kernel`; it is emitted in the shape it should have, so few passes run."""
    llvm = _llvm()
    module = llvm.parse_assembly(emit(kernel, target))
    module.triple = target.triple
    module.data_layout = str(machine.target_data)
    module.verify()
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    return module


def _object(kernel: Kernel, target: Target) -> bytes:
    from convt import objects  # hashes, files and logging, which a process may never need

    path = objects.path_of(kernel, target)
    code = objects.read(path)
    if code is None:
        objects.log.info("compile %s for %s", kernel.name, target.cpu)
        machine = _machine(target)
        code = bytes(machine.emit_object(_optimised(kernel, target, machine)))
        objects.write(path, code)
    return code


def _link(code: bytes, target: Target) -> tuple[Function, Any]:
    llvm = _llvm()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine(target))
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    address = engine.get_function_address("run")
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(address)
    return function, engine  # the engine keeps the code alive


@lru_cache(maxsize=1)
def can_execute() -> bool:
    """Whether this process may make memory executable; LLVM ends the process where it may not."""
    if not hasattr(mmap, "PROT_EXEC"):
        return True
    libc = ctypes.CDLL(None, use_errno=True)
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        start = ctypes.addressof(ctypes.c_char.from_buffer(page))
        mode = mmap.PROT_READ | mmap.PROT_EXEC
        return not libc.mprotect(ctypes.c_void_p(start), mmap.PAGESIZE, mode)
    finally:
        with contextlib.suppress(BufferError):
            page.close()


def cache_folder() -> Path:
    """Where object code is kept: ``CONVT_CACHE_DIR``, or the user's cache folder."""
    from convt import objects

    return objects.cache_folder()
