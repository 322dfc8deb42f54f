"""`accelerate`: a model's transposed convolutions computed by convt, in place and back.

A layer keeps its identity, parameters and hooks: its class alone changes, to one with the same attributes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from convt.torch.module import ConvTranspose3d
from convt.torch.views import DTYPES

__all__ = ["Acceleration", "accelerate"]


@dataclass(frozen=True)
class Acceleration:
    """What `accelerate` did; prints as a list."""

    swapped: tuple[str, ...]  # names of the layers that convt computes now
    kept: dict[str, str]  # names of the others, and why each was kept
    _layers: tuple[Any, ...] = field(repr=False)

    def undo(self) -> None:
        """Give the swapped layers back their class; their parameters are what they have become."""
        for layer in self._layers:
            if type(layer) is ConvTranspose3d:
                layer.__class__ = torch.nn.ConvTranspose3d

    def __str__(self) -> str:
        lines = [f"{name or 'the model itself'}: convt" for name in self.swapped]
        lines += [f"{name or 'the model itself'}: kept, {why}" for name, why in self.kept.items()]
        return "\n".join(lines) or "no transposed 3-D convolution"


def accelerate(model: Any) -> Acceleration:
    """Let convt compute the transposed 3-D convolutions of a model, in place.

    Parameters
    ----------
    model : torch.nn.Module
        Every `torch.nn.ConvTranspose3d` in it becomes a `ConvTranspose3d`. Its parameters, hooks and
        `state_dict` stay what they are, and results equal to rounding. A layer is kept as it is where
        convt would not be faster: on a device other than the CPU, and with a kernel and stride of 1,
        which is one product of matrices. So is one of a dtype that convt doesn't serve, or whose
        class or `forward` is not PyTorch's own.

    Returns
    -------
    Acceleration
        Which layers were swapped, which kept and why; `undo` swaps them back.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Conv3d(1, 8, 3), torch.nn.ConvTranspose3d(8, 1, 2, 2))
    >>> done = accelerate(model)
    >>> print(done)
    1: convt
    >>> type(model[1]).__module__
    'convt.torch.module'
    >>> done.undo()
    """
    swapped, kept = {}, {}
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.ConvTranspose3d):
            why = _why_not(layer)
            if why is None:
                swapped[name] = layer
            else:
                kept[name] = why
    for layer in swapped.values():
        layer.__class__ = ConvTranspose3d
    return Acceleration(tuple(swapped), kept, tuple(swapped.values()))


def _why_not(layer: Any) -> str | None:
    """Why a layer should stay as it is."""
    if isinstance(layer, ConvTranspose3d):
        return "it is convt's already"
    if type(layer) is not torch.nn.ConvTranspose3d:
        return f"its class {type(layer).__name__} may compute otherwise"
    if "forward" in vars(layer):
        return "its forward was replaced"
    if layer.weight.device.type != "cpu":
        return f"it is on the device {layer.weight.device}"
    if layer.weight.dtype not in DTYPES:
        return f"its dtype is {layer.weight.dtype}"
    if set(layer.kernel_size) == set(layer.stride) == {1}:
        return "it has one tap and no stride: PyTorch is as fast"
    return None
