"""Kernel key -> callable: emit, verify, optimise, compile; object code is kept in memory and on disk.

A kernel is one function ``void run(record, workspace)``. Its key spells everything that its code depends
on, so equal keys share code: inside the process by a dictionary, between processes by `objects`.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from convt.kernels import emit
from convt.kernels.keys import Kernel
from convt.target import Target
from convt.threads import begin

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["assembly", "cache_folder", "can_execute", "compile_text", "load", "load_all"]

_OPTIMISE = 1  # LLVM's level for code generation; measured: 2 and 3 are no faster here
_PART = 600  # lines that one thread compiles at a time: so a kernel has work for two

Function = Callable[[Any, int | None], None]
Code = list[bytes]  # of one kernel, in parts


_loaded: dict[tuple[Target, str], tuple[Function, Any]] = {}
_lock = threading.Lock()


def load(kernel: Kernel, target: Target) -> Function:
    """The compiled `kernel`: called with the addresses of its record and its workspace."""
    return load_all((kernel,), target)[0]


def load_all(kernels: Sequence[Kernel], target: Target) -> list[Function]:
    """The compiled `kernels`; where several are missing, put the one that takes longest last."""
    keys = [(target, kernel.name) for kernel in kernels]
    if any(key not in _loaded for key in keys):
        with _lock:
            missing = [k for k, key in zip(kernels, keys, strict=True) if key not in _loaded]
            for kernel, code in zip(missing, _codes(missing, target), strict=True):
                _loaded[target, kernel.name] = _link(code, target)
    return [_loaded[key][0] for key in keys]


def assembly(kernel: Kernel, target: Target) -> str:
    """The machine code of `kernel` as text, compiled for any `target` and not run."""
    machine = _machine(target)
    return str(machine.emit_assembly(_optimised(str(emit(kernel, target)), target, machine)))


def compile_text(text: str, target: Target, *variables: str) -> dict[str, int]:
    """The addresses of the function ``run`` and of `variables` in LLVM IR that is no kernel.

    It is kept on no disk, and in memory to the end of the process, whoever may still call it.
    """
    llvm = _llvm()
    module = llvm.parse_assembly(text)
    module.verify()
    engine = llvm.create_mcjit_compiler(module, _machine(target))
    engine.finalize_object()
    found = {name: engine.get_global_value_address(name) for name in variables}
    found["run"] = engine.get_function_address("run")
    engine.detach()
    return found


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


def _optimised(text: str, target: Target, machine: Any) -> Any:
    """The module of `text`; kernels are emitted in the shape they should have, so few passes run."""
    llvm = _llvm()
    module = llvm.parse_assembly(text, llvm.create_context())
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


def _object(module: Any, machine: Any) -> bytes:
    """The object code of `module`, generated while other threads may be in LLVM too.

    llvmlite lets one thread at a time into LLVM. Here no other has the context or the machine, which is
    all that generating code changes, so this calls what the lock is around.
    """
    from llvmlite.binding import ffi

    library = ffi.lib
    locked = library.LLVMPY_TargetMachineEmitToMemory
    generate = getattr(locked, "_cfn", locked)
    with ffi.OutputString() as error:
        buffer = generate(machine, module, True, error)
        if not buffer:
            raise RuntimeError(str(error))
    try:
        start, size = library.LLVMPY_GetBufferStart(buffer), library.LLVMPY_GetBufferSize(buffer)
        return ctypes.string_at(start, size)
    finally:
        library.LLVMPY_DisposeMemoryBuffer(buffer)


def _codes(kernels: Sequence[Kernel], target: Target) -> list[Code]:
    """Object code from disk or made anew: while a helper has LLVM generate it, kernels are emitted."""
    from convt import objects  # hashes, files and logging, which a process may never need

    paths = {kernel.name: objects.path_of(kernel, target) for kernel in kernels}
    codes = {name: objects.read(path) for name, path in paths.items()}
    missing = [kernel for kernel in kernels if codes[kernel.name] is None]
    jobs: deque[Callable[[], None]] = deque()

    def work() -> None:
        while True:
            try:
                job = jobs.popleft()
            except IndexError:  # the other thread took the last
                return
            job()

    def generate(code: Code, place: int, module: Any, machine: Any) -> None:
        code[place] = _object(module, machine)

    waits = []
    for kernel in missing:
        objects.log.info("compile %s for %s", kernel.name, target.cpu)
        texts = emit(kernel, target).parts(_PART)
        code = codes[kernel.name] = [b""] * len(texts)
        for place, text in enumerate(texts):
            machine = _machine(target)
            module = _optimised(text, target, machine)
            jobs.append(partial(generate, code, place, module, machine))
            waits.append(begin(work))
    work()
    for wait in waits:
        wait()
    for kernel in missing:
        objects.write(paths[kernel.name], codes[kernel.name] or [])
    return [code for code in codes.values() if code is not None]


def _link(code: Code, target: Target) -> tuple[Function, Any]:
    llvm = _llvm()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine(target))
    for part in code:
        engine.add_object_file(llvm.ObjectFileRef.from_data(part))
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
