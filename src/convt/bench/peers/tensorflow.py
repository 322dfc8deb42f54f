"""TensorFlow, eagerly, in the only layout that its CPU build serves: channels last."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from convt.bench.peers import Array, Ready, as_layout, channels_last
from convt.bench.problems import Problem

__all__ = ["prepare", "prepare_gradients", "start"]


def start(threads: int, variant: str) -> None:
    """Let one operation use so many threads; operations run one by one."""
    del variant
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def prepare(problem: Problem, input: Array, filters: Array, bound: bool) -> Ready:
    """Tensors in NDHWC; a gradient would have to be asked for, so none is recorded."""
    del bound
    spec = problem.spec
    x = tf.constant(channels_last(input, problem.data_format))
    w = tf.constant(filters)
    shape = [problem.batch, *spec.output_size, problem.out_channels]
    strides = [1, *problem.strides, 1]

    def array(result: Any) -> Array:
        return as_layout(result.numpy(), "NDHWC", problem.data_format)

    return Ready(lambda: tf.nn.conv3d_transpose(x, w, shape, strides, problem.padding), array)


def prepare_gradients(problem: Problem, input: Array, filters: Array, gradient: Array) -> Ready:
    """Gradients by a tape, eagerly."""
    x, dy = (tf.constant(channels_last(a, problem.data_format)) for a in (input, gradient))
    w = tf.constant(filters)
    shape = [problem.batch, *problem.spec.output_size, problem.out_channels]
    strides = [1, *problem.strides, 1]

    def call() -> Any:
        with tf.GradientTape() as tape:
            tape.watch([x, w])
            y = tf.nn.conv3d_transpose(x, w, shape, strides, problem.padding)
        return (y, *tape.gradient(y, [x, w], output_gradients=dy))

    def array(result: Any) -> Any:
        y, dx, dw = (tensor.numpy() for tensor in result)
        return (*(as_layout(a, "NDHWC", problem.data_format) for a in (y, dx)), dw)

    return Ready(call, array)
