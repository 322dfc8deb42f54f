"""Whether a call may go straight to the kernels: checks and dispatcher cost more than a small problem.

It may where nobody watches: plain tensors of one dtype on the CPU, no gradient to record, no transform, no
tracing, no mode. Where this PyTorch doesn't tell, nothing goes straight.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad

from convt.torch import native
from convt.torch.views import DTYPES

__all__ = ["direct", "straight"]

try:
    from torch._C import _get_tracing_state, _len_torch_dispatch_stack, _len_torch_function_stack
    from torch._C._functorch import is_legacy_batchedtensor, peek_interpreter_stack

    _TOLD = True
except ImportError:
    _TOLD = False

_PLAIN = (torch.Tensor, torch.nn.Parameter)
_NUMBERS = 9  # arguments of an operation that follow its tensors


def direct(a: Any, b: Any, *others: Any) -> bool:
    """Whether a call with these tensors, of which others may be None, may skip all that is PyTorch's."""
    if not _TOLD:
        return False
    records = torch.is_grad_enabled()
    dtype = getattr(a, "dtype", None)
    for tensor in (a, b, *[other for other in others if other is not None]):
        if (
            type(tensor) not in _PLAIN
            or tensor.dtype is not dtype
            or not tensor.is_cpu
            or tensor.layout is not torch.strided
            or (records and tensor.requires_grad)
            or tensor.is_neg()
            or is_legacy_batchedtensor(tensor)  # as gradients of `is_grads_batched` are
        ):
            return False
    return not (
        dtype not in DTYPES
        or torch.is_autocast_enabled("cpu")
        or peek_interpreter_stack() is not None
        or _len_torch_dispatch_stack()
        or _len_torch_function_stack()
        or _get_tracing_state() is not None
        or forward_ad._current_level >= 0
        or native.forced()
    )


def straight(kernel: Callable[..., Any], operation: Callable[..., Any]) -> Callable[..., Any]:
    """`operation`, but where a call may go straight to its `kernel`, that."""

    def call(*arguments: Any) -> Any:
        return (kernel if direct(*arguments[:-_NUMBERS]) else operation)(*arguments)

    return call
