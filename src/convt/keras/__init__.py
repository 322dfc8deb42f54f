"""The transposed 3-D convolution for Keras 3: its layer, on the backends of TensorFlow, JAX and PyTorch."""

from __future__ import annotations

from convt.keras.functions import conv3d, conv3d_transpose, conv3d_transpose_filter_gradient
from convt.keras.layer import Conv3DTranspose

__all__ = ["Conv3DTranspose", "conv3d", "conv3d_transpose", "conv3d_transpose_filter_gradient"]
