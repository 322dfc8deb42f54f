"""How the operators are differentiated, backward and forward, any number of times.

Each is linear in its two factors, and the derivatives of each are the other two operators. Constraint of
this file: no tensor is kept for a derivative that isn't asked for.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import forward_ad

from convt.torch.geometry import Geometry
from convt.torch.operators import LIBRARY, convolve, filter_gradient, transpose

__all__ = ["call", "register", "tangents"]

_GEOMETRY = len(Geometry._fields)


def _keep(ctx: Any, a: Any, b: Any) -> None:
    """Keep each of two factors if the other's derivative is asked for, and both shapes."""
    needs_a, needs_b = ctx.needs_input_grad[:2]
    ctx.save_for_backward(a if needs_b else None, b if needs_a else None)
    ctx.shapes = list(a.shape), list(b.shape)


def _bias_gradient(output_gradient: Any, rest: tuple[Any, ...]) -> Any:
    channel = Geometry(*rest[:_GEOMETRY]).channel
    return output_gradient.sum([axis for axis in range(5) if axis != channel])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, w, _, _, *ctx.rest = inputs
    _keep(ctx, x, w)


def _transpose_backward(ctx: Any, gradient: Any) -> tuple[Any, ...]:
    (x, w), (x_shape, w_shape), rest = ctx.saved_tensors, ctx.shapes, ctx.rest
    needs_x, needs_w, needs_bias = ctx.needs_input_grad[:3]
    return (
        convolve(gradient, w, None, x_shape, *rest) if needs_x else None,
        filter_gradient(x, gradient, w_shape, *rest) if needs_w else None,
        _bias_gradient(gradient, rest) if needs_bias else None,
        *(None,) * (1 + len(rest)),
    )


def _convolve_backward(ctx: Any, gradient: Any) -> tuple[Any, ...]:
    (y, w), (y_shape, w_shape), rest = ctx.saved_tensors, ctx.shapes, ctx.rest
    needs_y, needs_w, needs_bias = ctx.needs_input_grad[:3]
    return (
        transpose(gradient, w, None, y_shape, *rest) if needs_y else None,
        filter_gradient(gradient, y, w_shape, *rest) if needs_w else None,
        _bias_gradient(gradient, rest) if needs_bias else None,
        *(None,) * (1 + len(rest)),
    )


def _setup_filter_gradient(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, y, _, *ctx.rest = inputs
    _keep(ctx, x, y)


def _filter_gradient_backward(ctx: Any, gradient: Any) -> tuple[Any, ...]:
    (x, y), (x_shape, y_shape), rest = ctx.saved_tensors, ctx.shapes, ctx.rest
    needs_x, needs_y = ctx.needs_input_grad[:2]
    return (
        convolve(y, gradient, None, x_shape, *rest) if needs_x else None,
        transpose(x, gradient, None, y_shape, *rest) if needs_y else None,
        *(None,) * (1 + len(rest)),
    )


def register() -> None:
    """Give the operators their derivatives."""
    for operator, backward, setup in (
        (transpose, _transpose_backward, _setup),
        (convolve, _convolve_backward, _setup),
        (filter_gradient, _filter_gradient_backward, _setup_filter_gradient),
    ):
        torch.library.register_autograd(operator, backward, setup_context=setup, lib=LIBRARY)


def tangents() -> bool:
    """Whether forward-mode differentiation may be under way."""
    level: int = forward_ad._current_level
    return level >= 0


def call(operator: Any, a: Any, b: Any, *rest: Any) -> Any:
    """Call an operator, and carry the tangents of its tensors forward, which the dispatcher drops."""
    if not tangents():
        return operator(a, b, *rest)
    bias, others = ((), rest) if operator is filter_gradient else (rest[:1], rest[1:])
    (a, da), (b, db) = forward_ad.unpack_dual(a), forward_ad.unpack_dual(b)
    parts = []
    nothing = (None,) * len(bias)
    if da is not None:
        parts.append(operator(da, b, *nothing, *others))
    if db is not None:
        parts.append(operator(a, db, *nothing, *others))
    if bias and bias[0] is not None:
        values, more = forward_ad.unpack_dual(bias[0])
        bias = (values,)
        if more is not None:
            channel = Geometry(*others[1 : 1 + _GEOMETRY]).channel
            parts.append(more.view(-1, 1, 1, 1) if channel == 1 else more)
    y = operator(a, b, *bias, *others)
    return forward_ad.make_dual(y, sum(parts).expand_as(y)) if parts else y
