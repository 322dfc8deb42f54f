"""The three operations for what Keras holds: its variables, and the tensors of its backend."""

from __future__ import annotations

import importlib
from typing import Any

import keras

import convt

__all__ = ["conv3d", "conv3d_transpose", "conv3d_transpose_filter_gradient"]

_BACKENDS = {"jax": "convt.jax", "tensorflow": "convt.tensorflow", "torch": "convt.torch"}


def conv3d_transpose(
    input: Any,
    filters: Any,
    output_shape: Any,
    strides: Any,
    *args: Any,
    bias: Any = None,
    **kwargs: Any,
) -> Any:
    """Compute `convt.conv3d_transpose` on Keras' backend.

    Parameters
    ----------
    input, filters, bias
        Variables of Keras or tensors of its backend.
    output_shape, strides, *args, **kwargs
        As for `convt.conv3d_transpose`.

    Examples
    --------
    >>> import keras
    >>> import convt.keras
    >>> x, w = keras.ops.ones((1, 4, 4, 4, 8)), keras.Variable(keras.ops.ones((3, 3, 3, 16, 8)))
    >>> tuple(convt.keras.conv3d_transpose(x, w, None, strides=2).shape)
    (1, 8, 8, 8, 16)
    """
    x, w, b = _tensors(input, filters, bias)
    return _backend().conv3d_transpose(x, w, output_shape, strides, *args, bias=b, **kwargs)


def conv3d(input: Any, filters: Any, *args: Any, bias: Any = None, **kwargs: Any) -> Any:
    """Compute `convt.conv3d` on Keras' backend; see `conv3d_transpose` here."""
    x, w, b = _tensors(input, filters, bias)
    return _backend().conv3d(x, w, *args, bias=b, **kwargs)


def conv3d_transpose_filter_gradient(
    input: Any, output_gradient: Any, *args: Any, **kwargs: Any
) -> Any:
    """Compute `convt.conv3d_transpose_filter_gradient` on Keras' backend; see `conv3d_transpose` here."""
    x, g, _ = _tensors(input, output_gradient, None)
    return _backend().conv3d_transpose_filter_gradient(x, g, *args, **kwargs)


def _backend() -> Any:
    """The module for the backend's tensors; those of another one are NumPy arrays or become so."""
    name = _BACKENDS.get(keras.backend.backend())
    return convt if name is None else importlib.import_module(name)


def _tensors(*values: Any) -> list[Any]:
    """The backend's tensors, cast as the scope of a mixed precision asks for."""
    if any(isinstance(value, keras.KerasTensor) for value in values):
        raise TypeError(
            "a symbolic tensor of Keras has no values: use the layer convt.keras.Conv3DTranspose"
        )
    return [None if value is None else keras.ops.convert_to_tensor(value) for value in values]
