"""PyTorch: the operations for `torch.Tensor`, a drop-in layer, and what swaps it into a model.

`convt.conv3d_transpose` and its companions come here by themselves when they are given tensors.

>>> import torch
>>> from convt.torch import ConvTranspose3d
>>> up = ConvTranspose3d(8, 4, kernel_size=3, stride=2, padding="SAME")
>>> up(torch.ones(1, 8, 5, 5, 5)).shape
torch.Size([1, 4, 10, 10, 10])
"""

from __future__ import annotations

from convt.torch.accelerate import Acceleration, accelerate
from convt.torch.functional import conv3d, conv3d_transpose, conv3d_transpose_filter_gradient
from convt.torch.module import ConvTranspose3d
from convt.torch.native import native_kernels

__all__ = [
    "Acceleration",
    "ConvTranspose3d",
    "accelerate",
    "conv3d",
    "conv3d_transpose",
    "conv3d_transpose_filter_gradient",
    "native_kernels",
]
