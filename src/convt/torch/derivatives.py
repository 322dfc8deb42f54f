"""How the operations are differentiated, backward and forward, any number of times, and vectorised.

Each is linear in its two factors, and the derivatives of each are the other two. The rules are written once
and registered twice: with the operators, for what traces them, and as functions of autograd, which serve
`torch.func` and forward mode as well.

Constraint of this file: no tensor is kept for a derivative that isn't asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import torch

from convt.torch import batching
from convt.torch.direct import straight
from convt.torch.geometry import Geometry
from convt.torch.operators import DEFINITIONS, KERNELS, OPERATORS, Three

__all__ = ["FUNCTIONS", "OPERATORS"]


# --- backward -------------------------------------------------------------------------------------
def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Keep each of two factors if the other's derivative is asked for, and both shapes."""
    a, b, *rest = inputs
    needs_a, needs_b = ctx.needs_input_grad[:2]
    ctx.save_for_backward(a if needs_b else None, b if needs_a else None)
    ctx.shapes = list(a.shape), list(b.shape)
    ctx.rest = rest[-8:]


def _bias_gradient(output_gradient: Any, rest: tuple[Any, ...]) -> Any:
    channel = Geometry(*rest[:-2]).channel
    return output_gradient.sum([axis for axis in range(5) if axis != channel])


def _transpose_backward(by: Three, ctx: Any, gradient: Any) -> tuple[Any, ...]:
    (x, w), (x_shape, w_shape), rest = ctx.saved_tensors, ctx.shapes, ctx.rest
    needs_x, needs_w, needs_bias = ctx.needs_input_grad[:3]
    return (
        by.convolve(gradient, w, None, x_shape, *rest) if needs_x else None,
        by.filter_gradient(x, gradient, w_shape, *rest) if needs_w else None,
        _bias_gradient(gradient, rest) if needs_bias else None,
        *(None,) * (1 + len(rest)),
    )


def _convolve_backward(by: Three, ctx: Any, gradient: Any) -> tuple[Any, ...]:
    (y, w), (y_shape, w_shape), rest = ctx.saved_tensors, ctx.shapes, ctx.rest
    needs_y, needs_w, needs_bias = ctx.needs_input_grad[:3]
    return (
        by.transpose(gradient, w, None, y_shape, *rest) if needs_y else None,
        by.filter_gradient(gradient, y, w_shape, *rest) if needs_w else None,
        _bias_gradient(gradient, rest) if needs_bias else None,
        *(None,) * (1 + len(rest)),
    )


def _filter_gradient_backward(by: Three, ctx: Any, gradient: Any) -> tuple[Any, ...]:
    (x, y), (x_shape, y_shape), rest = ctx.saved_tensors, ctx.shapes, ctx.rest
    needs_x, needs_y = ctx.needs_input_grad[:2]
    return (
        by.convolve(y, gradient, None, x_shape, *rest) if needs_x else None,
        by.transpose(x, gradient, None, y_shape, *rest) if needs_y else None,
        *(None,) * (1 + len(rest)),
    )


_RULES = Three(
    (_transpose_backward, batching.transpose),
    (_convolve_backward, batching.convolve),
    (_filter_gradient_backward, batching.filter_gradient),
)
for _definition, _operator, (_backward, _batched) in zip(
    DEFINITIONS, OPERATORS, _RULES, strict=True
):
    _definition.register_autograd(partial(_backward, OPERATORS), setup_context=_keep)
    _definition.register_vmap(partial(_batched, _operator))


# --- forward, and as functions of autograd --------------------------------------------------------
_FORWARD = Three(*map(straight, KERNELS, OPERATORS))


class _Function(torch.autograd.Function):
    """An operation as a function; subclasses say which."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _keep(ctx, inputs, output)
        ctx.save_for_forward(*inputs[:2])
        ctx.shape = inputs[-9]


class _Transpose(_Function):
    @staticmethod
    def forward(*arguments: Any) -> Any:
        return _FORWARD.transpose(*arguments)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, ...]:
        return _transpose_backward(FUNCTIONS, ctx, gradient)

    @staticmethod
    def jvp(ctx: Any, dx: Any, dw: Any, dbias: Any, *_: Any) -> Any:
        return _tangent(ctx, FUNCTIONS.transpose, dx, dw, dbias)

    @staticmethod
    def vmap(*arguments: Any) -> tuple[Any, int]:
        return batching.transpose(FUNCTIONS.transpose, *arguments)


class _Convolve(_Function):
    @staticmethod
    def forward(*arguments: Any) -> Any:
        return _FORWARD.convolve(*arguments)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, ...]:
        return _convolve_backward(FUNCTIONS, ctx, gradient)

    @staticmethod
    def jvp(ctx: Any, dy: Any, dw: Any, dbias: Any, *_: Any) -> Any:
        return _tangent(ctx, FUNCTIONS.convolve, dy, dw, dbias)

    @staticmethod
    def vmap(*arguments: Any) -> tuple[Any, int]:
        return batching.convolve(FUNCTIONS.convolve, *arguments)


class _FilterGradient(_Function):
    @staticmethod
    def forward(*arguments: Any) -> Any:
        return _FORWARD.filter_gradient(*arguments)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, ...]:
        return _filter_gradient_backward(FUNCTIONS, ctx, gradient)

    @staticmethod
    def jvp(ctx: Any, dx: Any, dy: Any, *_: Any) -> Any:
        (x, y), rest = ctx.saved_tensors, (ctx.shape, *ctx.rest)
        return _sum(
            None if dx is None else FUNCTIONS.filter_gradient(dx, y, *rest),
            None if dy is None else FUNCTIONS.filter_gradient(x, dy, *rest),
        )

    @staticmethod
    def vmap(*arguments: Any) -> tuple[Any, int]:
        return batching.filter_gradient(FUNCTIONS.filter_gradient, *arguments)


_FUNCTIONS = (_Transpose, _Convolve, _FilterGradient)
for (
    _function
) in _FUNCTIONS:  # PyTorch inspects the signature at every call, unless it is noted here
    _function.forward.__signature__ = signature(_function.forward)  # type: ignore[attr-defined]
FUNCTIONS = Three(*map(straight, KERNELS, [function.apply for function in _FUNCTIONS]))


def _tangent(ctx: Any, call: Callable[..., Any], da: Any, db: Any, dbias: Any) -> Any:
    """The product rule; a bias' tangent is a bias."""
    (a, b), rest = ctx.saved_tensors, (ctx.shape, *ctx.rest)
    if da is None and db is None:
        da = torch.zeros_like(a)
    return _sum(
        None if da is None else call(da, b, dbias, *rest),
        None if db is None else call(a, db, dbias if da is None else None, *rest),
    )


def _sum(a: Any, b: Any) -> Any:
    return a if b is None else b if a is None else a + b
