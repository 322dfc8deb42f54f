"""ONNX Runtime: a model of one ConvTranspose node, whose filters are an initializer."""

from __future__ import annotations

from typing import Any

import onnxruntime

from convt.bench.peers import Array, Ready, Unserved, as_layout, channels_first
from convt.bench.peers.onnx_model import serialize
from convt.bench.problems import Problem

__all__ = ["prepare", "start"]

_options = onnxruntime.SessionOptions()


def start(threads: int, variant: str) -> None:
    """Let one operation use so many threads."""
    del variant
    _options.intra_op_num_threads = threads
    _options.inter_op_num_threads = 1


def prepare(problem: Problem, input: Array, filters: Array, bound: bool) -> Ready:
    """An input in NCDHW."""
    del bound
    if problem.dtype != "float32":
        raise Unserved("ConvTranspose on the processor is for float32 alone")
    x = channels_first(input, problem.data_format)
    session = onnxruntime.InferenceSession(
        serialize(problem, filters), _options, providers=["CPUExecutionProvider"]
    )

    def array(results: Any) -> Array:
        return as_layout(results[0], "NCDHW", problem.data_format)

    return Ready(lambda: session.run(None, {"x": x}), array)
