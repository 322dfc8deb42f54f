"""The handler that XLA calls on the CPU: from a call frame to NumPy views to `Problem.compute`.

Constraints of this file: it runs on XLA's threads, on XLA's memory. No exception leaves `_handle`, since C
code is above it: what goes wrong becomes an error of XLA's, which JAX raises where the result is asked for.
A problem arrives as text that spells everything, so a compiled program means the same in another process.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

import jax

from convt.jax import frame
from convt.jax.gate import enclose
from convt.trilinear import decode

__all__ = ["TARGET", "register"]

TARGET = "convt_trilinear"


def register() -> None:
    """Make the handler known to XLA's CPU platform.

    Raises
    ------
    ImportError
        If this jaxlib's interface is another one; XLA's own refusal would leave JAX without a CPU.
    """
    if _VERSION[0] != frame.VERSION[0]:
        raise ImportError(
            f"this jaxlib has version {_VERSION[0]}.{_VERSION[1]} of XLA's foreign-function interface, "
            f"convt knows {frame.VERSION[0]}.{frame.VERSION[1]}"
        )
    address = enclose(ctypes.cast(_HANDLER, ctypes.c_void_p).value or 0)
    jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(address), platform="cpu")


def _runtime_version() -> tuple[int, int]:
    """The version of the interface that this jaxlib has, by the header that it ships."""
    path = Path(jax.ffi.include_dir()) / "xla" / "ffi" / "api" / "c_api.h"
    found = dict(re.findall(r"#define XLA_FFI_API_(MAJOR|MINOR) (\d+)", path.read_text()))
    return int(found["MAJOR"]), int(found["MINOR"])


_VERSION = _runtime_version()


def _handle(pointer: Any) -> int | None:
    call = pointer.contents
    try:
        if call.extension_start and call.extension_start.contents.type == frame.METADATA:
            _agree(call)
        elif call.stage == frame.EXECUTE:
            _compute(call)
    except BaseException as error:
        return _report(call, error)
    return None


_HANDLER = frame.Handler(_handle)  # kept, for XLA has its address only


def _agree(call: Any) -> None:
    """Tell the version that both sides know, when the handler is registered."""
    pointer = ctypes.cast(call.extension_start, ctypes.POINTER(frame.MetadataExtension))
    version = pointer.contents.metadata.contents.api_version
    version.major, version.minor = min(frame.VERSION, _VERSION)


def _compute(call: Any) -> None:
    kind, problem = decode(frame.attribute(call.attributes, 0))
    a, b, *bias = (
        frame.buffer(call.arguments, i, read_only=True) for i in range(call.arguments.size)
    )
    out = frame.buffer(call.results, 0, read_only=False)
    problem.compute(kind, a, b, bias[0] if bias else None, out)


def _report(call: Any, error: BaseException) -> int | None:
    """`error` as XLA's, which passes no API in older versions while it registers a handler."""
    if not call.api:
        return None
    code = frame.INTERNAL
    if isinstance(error, (TypeError, ValueError)):
        code = frame.INVALID_ARGUMENT
    elif isinstance(error, MemoryError):
        code = frame.RESOURCE_EXHAUSTED
    return frame.make_error(call.api.contents, f"convt: {type(error).__name__}: {error}", code)
