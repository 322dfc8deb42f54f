"""TensorFlow's own names, for a block of code that can't be changed."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import tensorflow as tf

from convt.tensorflow.functions import conv3d_transpose

__all__ = ["patched"]

_active: ContextVar[bool] = ContextVar("convt.tensorflow.patched", default=False)
_lock = threading.Lock()
_blocks = 0  # blocks that are open, in all threads
_originals: dict[str, Callable[..., Any]] = {}


@contextmanager
def patched() -> Iterator[None]:
    """Let `tf.nn.conv3d_transpose` be convt's inside the block, for tensors on the CPU.

    `tf.nn.conv_transpose` of five-dimensional tensors too, by which Keras calls it. Also a decorator.
    Blocks may be nested, and other threads keep TensorFlow's unless they open a block themselves. Code that
    took the function out of `tf.nn` before the block keeps what it took, and a `tf.function` what it was
    traced with. XLA can't compile a call into Python: a function of ``jit_compile=True`` fails inside.

    Examples
    --------
    >>> import tensorflow as tf
    >>> import convt.tensorflow
    >>> x, w = tf.ones((1, 2, 2, 2, 3)), tf.ones((2, 2, 2, 5, 3))
    >>> with convt.tensorflow.patched():
    ...     y = tf.nn.conv3d_transpose(x, w, [1, 4, 4, 4, 5], strides=2)
    >>> y.shape
    TensorShape([1, 4, 4, 4, 5])
    """
    token = _active.set(True)
    _install()
    try:
        yield
    finally:
        _remove()
        _active.reset(token)


def _install() -> None:
    global _blocks
    with _lock:
        _blocks += 1
        if _blocks == 1:
            for name in ("conv3d_transpose", "conv_transpose"):
                _originals[name] = getattr(tf.nn, name)
                setattr(tf.nn, name, _replacement(_originals[name]))


def _remove() -> None:
    global _blocks
    with _lock:
        _blocks -= 1
        if _blocks == 0:
            for name, original in _originals.items():
                setattr(tf.nn, name, original)


def _replacement(original: Callable[..., Any]) -> Callable[..., Any]:
    """What stands for `original` while any block is open: it is `original` outside of blocks."""

    @functools.wraps(original)
    def call(
        input: Any,
        filters: Any,
        output_shape: Any,
        strides: Any,
        padding: Any = "SAME",
        data_format: str | None = None,
        dilations: Any = None,
        name: str | None = None,
    ) -> Any:
        function = conv3d_transpose if _active.get() and _volumes(input) else original
        return function(
            input, filters, output_shape, strides, padding, data_format, dilations, name
        )

    return call


def _volumes(input: Any) -> bool:
    shape = getattr(input, "shape", None)
    return shape is not None and len(shape) == 5
