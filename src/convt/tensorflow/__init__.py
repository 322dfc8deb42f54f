"""The transposed 3-D convolution for tensors of TensorFlow, eagerly, in a `tf.function` and under tapes.

On the CPU convt computes, on the tensors' own memory; on other devices TensorFlow's kernels, with the same
meaning.
"""

from __future__ import annotations

from convt.tensorflow.devices import native_kernels
from convt.tensorflow.functions import conv3d, conv3d_transpose, conv3d_transpose_filter_gradient
from convt.tensorflow.patch import patched

__all__ = [
    "conv3d",
    "conv3d_transpose",
    "conv3d_transpose_filter_gradient",
    "native_kernels",
    "patched",
]
