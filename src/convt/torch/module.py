"""`ConvTranspose3d`: `torch.nn.ConvTranspose3d`, computed by convt.

Constraint of this file: a layer has PyTorch's own attributes and no others, so that an instance of either
class becomes one of the other by its class alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from convt.arguments import parse_padding
from convt.spec import size_range
from convt.torch.functional import conv3d_transpose

__all__ = ["ConvTranspose3d"]

_AXES = ("depth", "height", "width")


class ConvTranspose3d(torch.nn.ConvTranspose3d):
    """A drop-in for `torch.nn.ConvTranspose3d`: the same arguments, parameters and results.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, output_padding, groups, bias, dilation
        As for `torch.nn.ConvTranspose3d`.
    padding : int, three ints, "SAME" or "VALID"
        Voxels that are cropped at both ends of each axis, or TensorFlow's padding: "SAME" gives `stride`
        times the input's size, "VALID" all voxels that a tap reaches. Beyond PyTorch.
    padding_mode, device, dtype
        As for `torch.nn.ConvTranspose3d`; float16, bfloat16, float32 or float64.

    Raises
    ------
    TypeError, ValueError
        As `torch.nn.ConvTranspose3d` does; when called, with the sizes that would work.

    Examples
    --------
    >>> up = ConvTranspose3d(8, 4, kernel_size=3, stride=2, padding="SAME")
    >>> up
    ConvTranspose3d(8, 4, kernel_size=(3, 3, 3), stride=(2, 2, 2), padding=SAME)
    >>> up(torch.ones(1, 8, 4, 4, 4), output_size=(7, 8, 8)).shape
    torch.Size([1, 4, 7, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        output_padding: int | Sequence[int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | Sequence[int] = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        text = isinstance(padding, str)
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            0 if text else padding,
            output_padding,
            groups,
            bias,
            dilation,
            padding_mode,
            device,
            dtype,
        )
        if text:
            self.padding = parse_padding(padding)
            if any(self.output_padding):
                raise ValueError(
                    f"output_padding = {self.output_padding} goes with padding in voxels: with "
                    f'"{padding}" call the layer with the output_size'
                )

    def forward(self, input: Any, output_size: Sequence[int] | None = None) -> Any:
        """Compute the layer.

        Parameters
        ----------
        input : torch.Tensor
            Shape ``[batch, in_channels, depth, height, width]``, or without the batch.
        output_size : sequence of ints, optional
            Three sizes of the result, or as many as the input has axes, of which the last three count.
        """
        if input.dim() not in (4, 5):
            raise ValueError(
                "input must be [batch, channels, depth, height, width] or [channels, depth, height, "
                f"width], got {tuple(input.shape)}"
            )
        x = input if input.dim() == 5 else input.unsqueeze(0)
        padding, size, beyond = self._place(x, output_size)
        y = conv3d_transpose(
            x,
            self._filters(),
            [-1, -1, *size],
            self.stride,
            padding,
            "NCDHW",
            self.dilation,
            bias=None if beyond else self.bias,
            groups=self.groups,
        )
        if beyond:
            y = torch.nn.functional.pad(y, beyond)
            y = y if self.bias is None else y + self.bias.view(-1, 1, 1, 1)
        return y if input.dim() == 5 else y.squeeze(0)

    def _filters(self) -> Any:
        """The weight as `conv3d_transpose` has filters, without a copy for one group."""
        if self.groups == 1:
            return self.weight.permute(2, 3, 4, 1, 0)
        split = self.weight.unflatten(0, (self.groups, self.in_channels // self.groups))
        return split.permute(3, 4, 5, 0, 2, 1).flatten(3, 4)

    def _place(self, x: Any, output_size: Sequence[int] | None) -> tuple[Any, Any, list[int]]:
        """The padding, the sizes that are computed, and what zeros come behind them, as `pad` asks."""
        if output_size is not None:
            asked = self._asked(x, output_size)
            return self._pairs(), asked, []
        if isinstance(self.padding, str) or not any(self.output_padding):
            return self._pairs(), (-1, -1, -1), []
        pads, size = [], []
        beyond: list[int] = []
        axes = zip(
            x.shape[2:], self.kernel_size, self.stride, self.dilation, self.padding,
            self.output_padding, strict=True,
        )  # fmt: skip
        for n, k, s, d, before, more in axes:
            if not 0 <= more < max(s, d):
                raise ValueError(
                    f"output_padding = {more} must be less than the stride, {s}, or the dilation, {d}"
                )
            # A longer dilation than stride lets PyTorch ask for voxels that no tap reaches.
            excess = max(more - s + 1, 0)
            after = max(before - excess, 0)
            zeros = excess - (before - after)
            pads.append((before, after))
            size.append((n - 1) * s + (k - 1) * d + 1 - 2 * before + more - zeros)
            beyond = [0, zeros, *beyond]
        return pads, size, beyond if any(beyond) else []

    def _pairs(self) -> Any:
        if isinstance(self.padding, str):
            return self.padding
        return [(pad, pad) for pad in self.padding]

    def _asked(self, x: Any, output_size: Sequence[int]) -> list[int]:
        """The sizes asked for, if they are ones that the layer can have."""
        asked = list(output_size)
        if len(asked) not in (3, x.dim()) and not (len(asked) == 4 and len(x) == 1):
            raise ValueError(f"output_size must be 3 or {x.dim()} sizes, got {asked}")
        asked = asked[-3:]
        pads = (self.padding,) * 3 if isinstance(self.padding, str) else self._pairs()
        for axis, size in enumerate(asked):
            low, high = size_range(
                size=x.shape[2 + axis],
                kernel=self.kernel_size[axis],
                stride=self.stride[axis],
                dilation=self.dilation[axis],
                padding=pads[axis],
            )
            if not low <= size <= high:
                raise ValueError(
                    f"output_size = {size} ({_AXES[axis]}) can't come from an input of "
                    f"{x.shape[2 + axis]}: the layer gives {low} to {high}"
                )
        return asked
