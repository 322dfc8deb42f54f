"""Which tensors convt's kernels compute, and which TensorFlow's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import tensorflow as tf

__all__ = ["native_kernels", "served"]

_forced: ContextVar[bool] = ContextVar("convt.tensorflow native kernels", default=False)


@contextmanager
def native_kernels() -> Iterator[None]:
    """Use TensorFlow's own kernels inside the block, on the CPU too.

    They are what other devices run in any case. On the CPU, TensorFlow as shipped serves NDHWC without
    dilation, and beyond that some problems in float32.

    Examples
    --------
    >>> import tensorflow as tf
    >>> import convt.tensorflow
    >>> x, w = tf.ones((1, 2, 2, 2, 3)), tf.ones((2, 2, 2, 5, 3))
    >>> with convt.tensorflow.native_kernels():
    ...     y = convt.tensorflow.conv3d_transpose(x, w, None, strides=2)
    >>> float(tf.reduce_min(y)), float(tf.reduce_max(y))
    (3.0, 3.0)
    """
    token = _forced.set(True)
    try:
        yield
    finally:
        _forced.reset(token)


def served(*tensors: Any) -> bool:
    """Whether convt's kernels compute: where all tensors are on the CPU, unless others are asked for.

    A graph places its operations later. There, tensors without a device count as on the CPU where there is
    no other one.
    """
    if _forced.get():
        return False
    devices = [tensor.device for tensor in tensors if tensor.device]
    if devices:
        return all("CPU" in device for device in devices)
    return all(device.device_type == "CPU" for device in tf.config.list_logical_devices())
