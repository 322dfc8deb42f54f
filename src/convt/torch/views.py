"""Tensors as NumPy views, and new tensors for results: no element is copied.

Constraints of this file: tensors are on the CPU and of a dtype in `DTYPES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import torch

from convt.memory import empty_output

__all__ = ["DTYPES", "array", "channels_last", "empty", "tensor"]

Array = npt.NDArray[Any]
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

# PyTorch's dtypes that are served, as NumPy has them.
DTYPES: dict[Any, np.dtype[Any]] = {
    torch.float16: np.dtype(np.float16),
    torch.bfloat16: _BFLOAT16,
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
}


def array(tensor: Any) -> Array:
    """A NumPy view of a tensor's memory, of the same shape and strides.

    Examples
    --------
    >>> tensor = torch.zeros(2, 3, dtype=torch.bfloat16)
    >>> array(tensor)[0] = 1
    >>> tensor.sum().item()
    3.0
    """
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:  # which `numpy` doesn't know
        tensor = tensor.view(torch.int16)
        view: Array = tensor.numpy().view(_BFLOAT16)
    else:
        view = tensor.numpy()
    return view


def channels_last(tensor: Any, data_format: str) -> bool:
    """Whether an NCDHW tensor lies in memory as an NDHWC one; then so should its results."""
    if data_format != "NCDHW" or tensor.is_contiguous():
        return False
    last: bool = tensor.is_contiguous(memory_format=torch.channels_last_3d)
    return last


def empty(shape: Sequence[int], dtype: Any, last: bool = False) -> tuple[Any, Array]:
    """A new tensor and the NumPy view of it; if `last`, its axis 1 is the densest in memory.

    The memory is that of `convt.memory`, so that large results reuse what earlier ones have freed.
    """
    if last:
        n, channels, *size = shape
        view = empty_output((n, *size, channels), DTYPES[dtype]).transpose(0, 4, 1, 2, 3)
    else:
        view = empty_output(tuple(shape), DTYPES[dtype])
    return tensor(view), view


def tensor(view: Array) -> Any:
    """A tensor of an array's memory."""
    if view.dtype == _BFLOAT16:
        return torch.from_numpy(view.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(view)
