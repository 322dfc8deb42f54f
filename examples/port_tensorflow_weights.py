"""Port a transposed convolution from TensorFlow to PyTorch, exactly.

    python examples/port_tensorflow_weights.py

TensorFlow's SAME padding crops kernel - stride voxels of each axis, and the odd one at its end. PyTorch's
layer crops as many at both ends. So the usual port, `padding=(kernel - 1) // 2` and an `output_padding`
that gives the right shape, can give the wrong voxels: the first plane of each axis is lost and the rest
shifted. With `convt.torch.ConvTranspose3d(padding="SAME")` nothing is ported but the weights, and no voxel
differs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import torch

from convt.torch import ConvTranspose3d

CHANNELS, FILTERS, SIZE = 4, 8, 5
SHAPES = [(2, 2), (3, 2), (4, 2), (5, 2), (3, 3), (5, 3)]  # kernel, stride


def ported(layer: Any, weights: Any, bias: Any) -> Any:
    """Give a PyTorch layer TensorFlow's weights, [depth, height, width, out, in]."""
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights).permute(4, 3, 0, 1, 2))
        layer.bias.copy_(torch.from_numpy(bias))
    return layer


def difference(found: Any, expected: Any) -> str:
    """How many voxels differ by more than rounding, and by how many voxels all are shifted."""
    assert found.shape == expected.shape
    wrong = np.abs(found - expected).max(axis=-1) > 1e-4
    text = f"{wrong.sum()} of {wrong.size} voxels differ"
    for shift in (1, 2):
        inner, moved = slice(None, -shift), slice(shift, None)
        if wrong.any() and np.allclose(
            found[:, inner, inner, inner], expected[:, moved, moved, moved], atol=1e-4
        ):
            text += f": shifted by {shift}, the first {shift} of each axis lost"
    return text


def compare(kernel: int, stride: int) -> None:
    """Print how both ports differ from TensorFlow."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, SIZE, SIZE, SIZE, CHANNELS), dtype=np.float32)
    weights = rng.standard_normal((*(kernel,) * 3, FILTERS, CHANNELS), dtype=np.float32)
    bias = rng.standard_normal(FILTERS, dtype=np.float32)
    shape = (1, *(SIZE * stride,) * 3, FILTERS)
    expected = (tf.nn.conv3d_transpose(x, weights, shape, stride, "SAME") + bias).numpy()

    crop = (kernel - 1) // 2
    more = stride - kernel + 2 * crop  # voxels that are missing then
    naive = torch.nn.ConvTranspose3d(CHANNELS, FILTERS, kernel, stride, crop, more)
    exact = ConvTranspose3d(CHANNELS, FILTERS, kernel, stride, padding="SAME")

    given = torch.from_numpy(x).permute(0, 4, 1, 2, 3)
    print(f"kernel {kernel}, stride {stride}")
    for name, layer in (("naive port", naive), ("convt", exact)):
        with torch.no_grad():
            y = ported(layer, weights, bias)(given)
        text = difference(y.permute(0, 2, 3, 4, 1).numpy(), expected)
        print(f"  {name:10}  {text}")
    assert text.startswith("0 of"), "convt's port is exact"


if __name__ == "__main__":
    for kernel, stride in SHAPES:
        compare(kernel, stride)
