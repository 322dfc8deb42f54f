"""`Conv3DTranspose`: Keras' layer with its configuration, weights and files, computed by convt.

Constraints of this file: what Keras' layer checks and stores is Keras'; only the computation differs. Sizes
of outputs are those that Keras computes, and on every backend they are cropped as TensorFlow crops.
"""

from __future__ import annotations

from typing import Any

import keras

from convt.keras.functions import conv3d_transpose

__all__ = ["Conv3DTranspose"]


@keras.saving.register_keras_serializable(package="convt")
class Conv3DTranspose(keras.layers.Conv3DTranspose):
    """A drop-in for `keras.layers.Conv3DTranspose`, the same on every backend.

    Parameters
    ----------
    *args, **kwargs
        As for `keras.layers.Conv3DTranspose`.

    Notes
    -----
    Weights and their order, `get_config` and ``.keras`` files are those of Keras' layer, but for the class
    that a file names. To load one elsewhere, `convt.keras` must have been imported. With the TensorFlow
    backend, `compile` leaves XLA out by itself (``jit_compile="auto"``), which can't call into Python. The
    bias is added before the result is rounded, which shows in float16 and bfloat16 only.

    Examples
    --------
    >>> import keras
    >>> import convt.keras
    >>> layer = convt.keras.Conv3DTranspose(16, 3, strides=2, padding="same", activation="relu")
    >>> tuple(layer(keras.ops.ones((1, 4, 4, 4, 8))).shape)
    (1, 8, 8, 8, 16)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.supports_jit = keras.backend.backend() != "tensorflow"

    def call(self, inputs: Any) -> Any:
        """Compute the layer's output."""
        outputs = conv3d_transpose(
            inputs,
            self.kernel,
            self.compute_output_shape(keras.ops.shape(inputs)),
            self.strides,
            self._crop(),
            "NDHWC" if self.data_format == "channels_last" else "NCDHW",
            self.dilation_rate,
            bias=self.bias,
        )
        return outputs if self.activation is None else self.activation(outputs)

    def _crop(self) -> Any:
        """The padding that leaves Keras' sizes.

        Keras' "same" with an `output_padding` may ask for a voxel less than TensorFlow's allows. What is
        cut from each side is then spelled out.
        """
        if self.padding == "valid":
            return "VALID"
        reach = [
            (kernel - 1) * dilation + 1
            for kernel, dilation in zip(self.kernel_size, self.dilation_rate, strict=True)
        ]
        # Voxels of the output behind the last input voxel's first tap.
        rest = self.strides
        if self.output_padding is not None:
            rest = [n % 2 + more for n, more in zip(reach, self.output_padding, strict=True)]
        if all(0 < n <= stride for n, stride in zip(rest, self.strides, strict=True)):
            return "SAME"
        cut = [max(n - kept, 0) for n, kept in zip(reach, rest, strict=True)]
        return [(n // 2, n - n // 2) for n in cut]
