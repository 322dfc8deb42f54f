"""Taps that act as output channels: a problem rewritten into an equal one with more lanes.

Where an axis' kernel is as long as its stride, or its input has one element, every output is one tap of one
input. If that axis is the innermost that varies, the outputs of all its taps lie side by side in memory
like channels. So ``[..., width * taps, channels]`` is computed as ``[..., width, taps * channels]`` with a
kernel of 1: the same products and the same memory, in longer vectors, with each input read once.
"""

from __future__ import annotations

from dataclasses import replace

from convt.spec import Spec

__all__ = ["fold"]


def fold(spec: Spec) -> Spec:
    """The equal problem whose output is `spec`'s, reshaped; `spec` itself where no tap can be folded.

    Both its filters and its output are C-order reshapes of those of `spec`.
    """
    if spec.data_format != "NDHWC" or spec.groups != 1 or spec.forward:
        return spec
    kernel, strides, dilations = list(spec.kernel), list(spec.strides), list(spec.dilations)
    output, channels = list(spec.output_size), spec.out_channels
    for axis in (2, 1, 0):
        if not _one_tap(spec, axis):
            break
        channels *= kernel[axis]
        kernel[axis], strides[axis], dilations[axis] = 1, 1, 1
        output[axis] = spec.input_size[axis]
        if spec.input_size[axis] != 1:
            break  # the next axis' taps are rows apart
    if channels == spec.out_channels:
        return spec
    return replace(
        spec,
        out_channels=channels,
        kernel=(kernel[0], kernel[1], kernel[2]),
        strides=(strides[0], strides[1], strides[2]),
        dilations=(dilations[0], dilations[1], dilations[2]),
        output_size=(output[0], output[1], output[2]),
    )


def _one_tap(spec: Spec, axis: int) -> bool:
    """Whether every output of the axis is one tap of one input, in order and without a gap."""
    kernel, inputs = spec.kernel[axis], spec.input_size[axis]
    return (
        spec.pad_before[axis] == 0
        and spec.output_size[axis] == inputs * kernel
        and (inputs == 1 or spec.strides[axis] == kernel)
        and (spec.dilations[axis] == 1 or kernel == 1)
    )
