"""The model that the ONNX libraries compute: one ConvTranspose node."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from convt.bench.peers import Array
from convt.bench.problems import Problem

__all__ = ["serialize"]


def serialize(problem: Problem, filters: Array) -> bytes:
    """The model with its filters, from input ``x`` to output ``y``, both NCDHW."""
    spec = problem.spec
    axes = zip(spec.input_size, spec.strides, spec.kernel, strict=True)
    whole = [(i - 1) * s + k for i, s, k in axes]
    after = [n - o - p for n, o, p in zip(whole, spec.output_size, spec.pad_before, strict=True)]
    node = helper.make_node(
        "ConvTranspose",
        ["x", "w"],
        ["y"],
        kernel_shape=spec.kernel,
        strides=spec.strides,
        pads=[*spec.pad_before, *(max(n, 0) for n in after)],
        output_padding=[max(-n, 0) for n in after],
    )
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(problem.dtype))
    sizes = {
        "x": [problem.batch, problem.in_channels, *spec.input_size],
        "y": [problem.batch, problem.out_channels, *spec.output_size],
    }
    x, y = (helper.make_tensor_value_info(name, kind, size) for name, size in sizes.items())
    weights = np.ascontiguousarray(filters.transpose(4, 3, 0, 1, 2))
    graph = helper.make_graph(
        [node], "transposed", [x], [y], [numpy_helper.from_array(weights, "w")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
