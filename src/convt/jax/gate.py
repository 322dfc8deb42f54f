"""A few instructions between XLA and Python, which shut when the interpreter ends.

A program may end while XLA still computes. A thread that then asked for Python's lock would never return,
and XLA would wait for it for ever. So XLA calls machine code, which counts the calls that are in Python and
refuses further ones once the gate is shut: `enclose` shuts it at exit and waits for those inside.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import time

from convt import jit, target
from convt.jax import frame

__all__ = ["enclose"]

_MESSAGE = b"convt: the interpreter is shutting down"
_TEXT = f"""
@shut = global i64 0
@inside = global i64 0
@message = private constant [{len(_MESSAGE) + 1} x i8] c"{_MESSAGE.decode()}\\00"

define ptr @run(ptr %frame) {{
  %before = atomicrmw add ptr @inside, i64 1 seq_cst
  %state = load atomic i64, ptr @shut seq_cst, align 8
  %open = icmp eq i64 %state, 0
  br i1 %open, label %enter, label %refuse

enter:
  %handler = inttoptr i64 HANDLER to ptr
  %result = call ptr %handler(ptr %frame)
  %after = atomicrmw sub ptr @inside, i64 1 seq_cst
  ret ptr %result

refuse:
  %left = atomicrmw sub ptr @inside, i64 1 seq_cst
  %arguments = alloca {{ i64, ptr, ptr, i32 }}
  store {{ i64, ptr, ptr, i32 }}
    {{ i64 {frame.ERROR_BYTES}, ptr null, ptr @message, i32 {frame.CANCELLED} }}, ptr %arguments
  %api.place = getelementptr i8, ptr %frame, i64 {frame.API_OFFSET}
  %api = load ptr, ptr %api.place
  %make.place = getelementptr i8, ptr %api, i64 {frame.MAKE_ERROR_OFFSET}
  %make = load ptr, ptr %make.place
  %error = call ptr %make(ptr %arguments)
  ret ptr %error
}}
"""


def enclose(handler: int) -> int:
    """The address of a function that calls the one at the address `handler` until the interpreter ends."""
    code = jit.compile_text(_TEXT.replace("HANDLER", str(handler)), target.host(), "shut", "inside")
    shut, inside = (ctypes.c_int64.from_address(code[name]) for name in ("shut", "inside"))

    def close() -> None:
        shut.value = 1
        while inside.value:
            time.sleep(0.001)

    def renew() -> None:
        inside.value = 0  # the threads inside are in the parent

    atexit.register(close)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)
    return code["run"]
