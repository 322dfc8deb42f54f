"""OpenVINO: the same model of one node, compiled for low latency, its sums in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino

from convt.bench.peers import Array, Ready, Unserved, as_layout, channels_first
from convt.bench.peers.onnx_model import serialize
from convt.bench.problems import Problem

__all__ = ["prepare", "start"]

_options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}


def start(threads: int, variant: str) -> None:
    """Let an inference use so many threads."""
    del variant
    _options["INFERENCE_NUM_THREADS"] = threads


def prepare(problem: Problem, input: Array, filters: Array, bound: bool) -> Ready:
    """An input in NCDHW that the request borrows; the result stays in the request's own memory."""
    del bound
    if problem.dtype not in ("float16", "float32"):
        raise Unserved("computes in float16 and float32 alone")
    x = openvino.Tensor(channels_first(input, problem.data_format))
    core = openvino.Core()
    model = core.read_model(model=serialize(problem, filters), weights=b"")
    request = core.compile_model(model, "CPU", _options).create_infer_request()
    request.set_input_tensor(x)

    def call() -> Any:
        request.infer()
        return request.get_output_tensor()

    def array(result: Any) -> Array:
        return as_layout(np.asarray(result.data), "NCDHW", problem.data_format)

    return Ready(call, array)
