"""The transposed 3-D convolution for JAX arrays, under `jit`, `grad`, `vmap`, `checkpoint` and so on.

On the CPU the kernels run on XLA's own buffers; other devices run XLA's convolution, with the same meaning.
"""

from __future__ import annotations

from convt.jax.functions import conv3d, conv3d_transpose, conv3d_transpose_filter_gradient
from convt.jax.primitives import native_kernels

__all__ = ["conv3d", "conv3d_transpose", "conv3d_transpose_filter_gradient", "native_kernels"]
