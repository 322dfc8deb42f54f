"""The forward pass of a 3-D GAN's generator, in every framework that is installed.

Three transposed convolutions (kernel 4, stride 2) take 256 channels of 8^3 voxels to one of 64^3. The
network is the same on each framework's arrays; PyTorch's and TensorFlow's own operations stand beside.

    python examples/gan_generator.py
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

import convt

CHANNELS = (256, 128, 64, 1)
FIRST = 8  # voxels of the first layer's input on each axis
Network = tuple[Callable[[], Any], Callable[[], Any] | None]


def weights() -> tuple[np.ndarray, list[np.ndarray]]:
    """An input and filters of a size that keeps activations near one."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, FIRST, FIRST, FIRST, CHANNELS[0]), dtype=np.float32)
    filters = [
        rng.standard_normal((4, 4, 4, out, into), dtype=np.float32) / np.float32(np.sqrt(8 * into))
        for into, out in pairwise(CHANNELS)
    ]
    return x, filters


def generate(x: Any, filters: list[Any], upsample: Any, relu: Any, last: Any) -> Any:
    """The generator: up by two three times, `relu` between, `last` in the end."""
    for w in filters[:-1]:
        x = relu(upsample(x, w))
    return last(upsample(x, filters[-1]))


def ours(x: Any, w: Any) -> Any:
    """One layer's convolution by convt, for any framework's arrays."""
    return convt.conv3d_transpose(x, w, None, strides=2, padding="SAME")


def in_numpy() -> Network:
    """NumPy, which has no such operation of its own."""
    x, filters = weights()
    return lambda: generate(x, filters, ours, lambda v: np.maximum(v, 0), np.tanh), None


def in_torch() -> Network:
    """PyTorch; its own operation takes channels first."""
    import torch

    x, filters = weights()
    x, filters = torch.from_numpy(x), [torch.from_numpy(w) for w in filters]
    theirs_x = x.permute(0, 4, 1, 2, 3).contiguous()
    theirs = [w.permute(4, 3, 0, 1, 2).contiguous() for w in filters]  # PyTorch's layout

    def own(x: Any, w: Any) -> Any:
        return torch.nn.functional.conv_transpose3d(x, w, stride=2, padding=1)

    def run(x: Any, filters: Any, upsample: Any) -> Any:
        with torch.inference_mode():
            return generate(x, filters, upsample, torch.relu, torch.tanh)

    return (
        lambda: run(x, filters, ours),
        lambda: run(theirs_x, theirs, own).permute(0, 2, 3, 4, 1),
    )


def in_tensorflow() -> Network:
    """TensorFlow, as a graph."""
    import tensorflow as tf

    x, filters = weights()
    x, filters = tf.constant(x), [tf.constant(w) for w in filters]

    def own(x: Any, w: Any) -> Any:
        shape = (1, *(2 * n for n in x.shape[1:4]), w.shape[3])
        return tf.nn.conv3d_transpose(x, w, shape, strides=2, padding="SAME")

    def network(upsample: Any) -> Any:
        return tf.function(
            lambda: generate(x, filters, upsample, tf.nn.relu, tf.tanh), autograph=False
        )

    return network(ours), network(own)


def in_jax() -> Network:
    """JAX, compiled; XLA's own transposed convolution alone would take longer than all the rest."""
    import jax

    x, filters = weights()
    x, filters = jax.numpy.asarray(x), [jax.numpy.asarray(w) for w in filters]
    compiled = jax.jit(lambda x, f: generate(x, f, ours, jax.nn.relu, jax.numpy.tanh))
    return lambda: compiled(x, filters).block_until_ready(), None


FRAMEWORKS = {"numpy": in_numpy, "torch": in_torch, "tensorflow": in_tensorflow, "jax": in_jax}


def timed(network: Callable[[], Any], most: float = 2.0) -> tuple[np.ndarray, float]:
    """What a network gives, and the shortest time of a few runs, in milliseconds; the first compiles."""
    result = np.asarray(network())
    shortest, until = np.inf, time.perf_counter() + most
    while shortest == np.inf or time.perf_counter() < until:
        start = time.perf_counter()
        network()
        shortest = min(shortest, time.perf_counter() - start)
    return result, 1e3 * shortest


def main() -> None:
    """Print a line for each framework."""
    expected = None
    print(f"{'framework':12} {'convt, ms':>10} {'its own, ms':>12} {'largest difference':>19}")
    for name, build in FRAMEWORKS.items():
        if importlib.util.find_spec(name) is None:
            print(f"{name:12} is not installed")
            continue
        network, own = build()
        volume, here = timed(network)
        expected = volume if expected is None else expected
        compared, there = timed(own) if own is not None else (expected, np.nan)
        difference = max(np.abs(volume - other).max() for other in (expected, compared))
        print(f"{name:12} {here:10.1f} {there:12.1f} {difference:19.1e}")
        if not difference < 1e-4:
            raise SystemExit(f"{name} gives another volume")
    print(f"a volume of {expected.shape[1:4]} voxels")


if __name__ == "__main__":
    main()
