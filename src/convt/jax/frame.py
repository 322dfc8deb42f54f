"""XLA's call frame, as the public C header of its foreign-function interface lays it out.

Constraints of this file: structs, and reading them, nothing else. It follows ``xla/ffi/api/c_api.h``, which
jaxlib ships below ``jax.ffi.include_dir()``, in version 0.3 of the interface. Other versions with the same
major number differ in what is appended to structs, which nothing here reads.
"""

from __future__ import annotations

import ctypes
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

__all__ = [
    "API_OFFSET",
    "CANCELLED",
    "ERROR_BYTES",
    "EXECUTE",
    "INTERNAL",
    "INVALID_ARGUMENT",
    "MAKE_ERROR_OFFSET",
    "METADATA",
    "RESOURCE_EXHAUSTED",
    "VERSION",
    "CallFrame",
    "Handler",
    "MetadataExtension",
    "attribute",
    "buffer",
    "make_error",
]

Array = npt.NDArray[Any]

VERSION = (0, 3)  # of the interface, as the structs below have it
METADATA = 1  # the extension that asks a handler for its version
EXECUTE = 3  # the stage in which a handler computes
CANCELLED, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, INTERNAL = 1, 3, 8, 13  # codes of errors
_BUFFER, _STRING = 1, 4  # types of arguments and results; of attributes
_DTYPES: dict[int, np.dtype[Any]] = {
    10: np.dtype(np.float16),
    11: np.dtype(np.float32),
    12: np.dtype(np.float64),
    16: np.dtype(ml_dtypes.bfloat16),
}


class _Extension(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("next", ctypes.c_void_p),
    )


class _Version(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension_start", ctypes.c_void_p),
        ("major", ctypes.c_int),
        ("minor", ctypes.c_int),
    )


class _Metadata(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("api_version", _Version),
        ("traits", ctypes.c_uint32),
    )


class MetadataExtension(ctypes.Structure):
    """What a handler fills when it is registered."""

    _fields_ = (("base", _Extension), ("metadata", ctypes.POINTER(_Metadata)))


class _ErrorArguments(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension_start", ctypes.c_void_p),
        ("message", ctypes.c_char_p),
        ("code", ctypes.c_int),
    )


class _Api(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension_start", ctypes.c_void_p),
        ("version", _Version),
        ("internal", ctypes.c_void_p),
        ("make_error", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_ErrorArguments))),
    )


class _Buffer(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension_start", ctypes.c_void_p),
        ("dtype", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("rank", ctypes.c_int64),
        ("dims", ctypes.POINTER(ctypes.c_int64)),
    )


class _Span(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Operands(ctypes.Structure):
    """Arguments or results: as many types as pointers."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension_start", ctypes.c_void_p),
        ("size", ctypes.c_int64),
        ("types", ctypes.POINTER(ctypes.c_int)),
        ("values", ctypes.POINTER(ctypes.POINTER(_Buffer))),
    )


class _Attributes(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension_start", ctypes.c_void_p),
        ("size", ctypes.c_int64),
        ("types", ctypes.POINTER(ctypes.c_int)),
        ("names", ctypes.POINTER(ctypes.POINTER(_Span))),
        ("values", ctypes.POINTER(ctypes.POINTER(_Span))),
    )


class CallFrame(ctypes.Structure):
    """What XLA hands to a handler."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension_start", ctypes.POINTER(_Extension)),
        ("api", ctypes.POINTER(_Api)),
        ("context", ctypes.c_void_p),
        ("stage", ctypes.c_int),
        ("arguments", _Operands),
        ("results", _Operands),
        ("attributes", _Attributes),
    )


API_OFFSET = CallFrame.api.offset
MAKE_ERROR_OFFSET = _Api.make_error.offset
ERROR_BYTES = ctypes.sizeof(_ErrorArguments)

# A handler returns an error, or no pointer for success.
Handler = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(CallFrame))


class _Memory:
    """Memory of somebody else, in the form in which NumPy borrows it."""

    __slots__ = ("__array_interface__",)

    def __init__(self, address: int, shape: tuple[int, ...], kind: str, read_only: bool) -> None:
        self.__array_interface__ = {
            "data": (address, read_only),
            "shape": shape,
            "typestr": kind,
            "version": 3,
        }


def buffer(operands: Any, index: int, *, read_only: bool) -> Array:
    """The argument or the result at `index` as an array on XLA's own memory, which is row-major.

    Raises
    ------
    TypeError
        If it is no buffer, or of another dtype than float16, bfloat16, float32 and float64.
    """
    if not 0 <= index < operands.size or operands.types[index] != _BUFFER:
        raise TypeError(f"the call frame has no buffer at {index}")
    found = operands.values[index].contents
    dtype = _DTYPES.get(found.dtype)
    if dtype is None:
        raise TypeError(f"element type {found.dtype} is none that convt computes with")
    shape = tuple(found.dims[: found.rank])
    if not found.data or 0 in shape:
        return np.empty(shape, dtype)
    memory = _Memory(found.data, shape, f"<u{dtype.itemsize}", read_only)
    return np.asarray(memory).view(dtype)


def attribute(attributes: Any, index: int) -> bytes:
    """The attribute at `index`, which is a string.

    Raises
    ------
    TypeError
        If it is none.
    """
    if not 0 <= index < attributes.size or attributes.types[index] != _STRING:
        raise TypeError(f"the call frame has no string at {index}")
    span = attributes.values[index].contents
    return ctypes.string_at(span.data, span.length)


def make_error(api: Any, message: str, code: int) -> int | None:
    """An error of XLA's, which then owns it."""
    text = message.encode().replace(b"\0", b"?")
    arguments = _ErrorArguments(ctypes.sizeof(_ErrorArguments), None, text, code)
    error: int | None = api.make_error(ctypes.byref(arguments))
    return error
