"""Three JAX primitives, the derivatives of one trilinear form, and the rules by which JAX transforms them.

Constraints of this file: each rule is written once for all three. An operation computes one kind of array
from the other two (and a bias, which is only added), so its derivative in one of them is itself, and its
transpose in one of them is the operation which computes that kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import jax
from jax import numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from convt.jax import handler, xla
from convt.trilinear import KINDS, Kind, Problem

__all__ = ["compute", "native_kernels"]

_forced: ContextVar[bool] = ContextVar("convt.jax native kernels", default=False)


@contextmanager
def native_kernels() -> Iterator[None]:
    """Use XLA's own convolution inside the block, on the CPU too.

    It is what other devices run in any case. A function that `jax.jit` traced before keeps what it was
    traced with.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import convt.jax
    >>> x, w = jnp.ones((1, 2, 2, 2, 3)), jnp.ones((2, 2, 2, 5, 3))
    >>> with convt.jax.native_kernels():
    ...     y = convt.jax.conv3d_transpose(x, w, None, strides=2)
    >>> float(y.min()), float(y.max())
    (3.0, 3.0)
    """
    token = _forced.set(True)
    try:
        yield
    finally:
        _forced.reset(token)


def compute(kind: Kind, problem: Problem, a: Any, b: Any, bias: Any = None) -> Any:
    """Compute what `Problem.compute` does, for JAX arrays and tracers."""
    operands = (a, b) if bias is None else (a, b, bias)
    return _bind(kind, *operands, problem=problem, native=_forced.get())


def _bind(kind: Kind, *operands: Any, **params: Any) -> Any:
    return _PRIMITIVES[kind].bind(*operands, **params)


def _others(kind: Kind) -> list[Kind]:
    """The kinds that `kind` is computed from, in the order of the operands."""
    return [other for other in KINDS if other != kind]


def _shape(kind: Kind, *_: Any, problem: Problem, native: bool) -> Any:
    return jax.core.ShapedArray(problem.shape(kind), problem.spec.dtype)


def _foreign(kind: Kind, *operands: Any, problem: Problem, native: bool) -> Any:
    if native:
        return xla.compute(kind, problem, *operands)
    result = jax.ShapeDtypeStruct(problem.shape(kind), problem.spec.dtype)
    return jax.ffi.ffi_call(handler.TARGET, result)(*operands, problem=problem.encode(kind))


def _native(kind: Kind, *operands: Any, problem: Problem, native: bool) -> Any:
    return xla.compute(kind, problem, *operands)


def _derive(kind: Kind, primals: Any, tangents: Any, **params: Any) -> tuple[Any, Any]:
    """The result and its tangent."""
    result = _bind(kind, *primals, **params)
    a, b = primals[:2]
    da, db, dbias = (*tangents, None)[:3]
    terms = []
    if not isinstance(da, ad.Zero):
        terms.append(_bind(kind, da, b, **params))
    if not isinstance(db, ad.Zero):
        terms.append(_bind(kind, a, db, **params))
    if dbias is not None and not isinstance(dbias, ad.Zero):
        spec = params["problem"].spec
        rest = (slice(None), None, None, None) if spec.data_format == "NCDHW" else ()
        terms.append(jnp.broadcast_to(dbias[rest], result.shape))
    if not terms:
        return result, ad.Zero.from_primal_value(result)
    return result, sum(terms[1:], terms[0])


def _transpose(kind: Kind, cotangent: Any, a: Any, b: Any, **params: Any) -> list[Any]:
    """The cotangent of that of `a` and `b` in which the operation is linear here."""
    operands: dict[Kind, Any] = dict(zip(_others(kind), (a, b), strict=True))
    wanted = next(other for other, value in operands.items() if ad.is_undefined_primal(value))
    if isinstance(cotangent, ad.Zero):
        found = ad.Zero(operands[wanted].aval)
    else:
        given = {**operands, kind: cotangent}
        found = _bind(wanted, *(given[other] for other in _others(wanted)), **params)
    return [found if other == wanted else None for other in operands]


def _batch(
    kind: Kind, operands: Any, axes: Any, *, problem: Problem, native: bool
) -> tuple[Any, int]:
    """Fold the mapped axis into the batch where filters are shared, or map one by one."""
    moved = [
        x if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(operands, axes, strict=True)
    ]
    mapped = [axis is not None for axis in axes]
    roles = [*_others(kind), "bias"]
    batch_alone = all(
        yes == (role in ("input", "output")) for yes, role in zip(mapped, roles, strict=False)
    )
    if kind != "filters" and batch_alone:
        count = next(x.shape[0] for x, yes in zip(moved, mapped, strict=True) if yes)
        folded = [
            x.reshape(-1, *x.shape[2:]) if yes else x for x, yes in zip(moved, mapped, strict=True)
        ]
        found = _bind(kind, *folded, problem=problem.batched(count), native=native)
        return found.reshape(count, *problem.shape(kind)), 0

    def one(some: Any) -> Any:
        rest = iter(some)
        every = [next(rest) if yes else x for x, yes in zip(moved, mapped, strict=True)]
        return _bind(kind, *every, problem=problem, native=native)

    return jax.lax.map(one, [x for x, yes in zip(moved, mapped, strict=True) if yes]), 0


def _primitive(kind: Kind) -> Primitive:
    """The primitive that computes `kind`, with its rules."""
    made = Primitive(f"convt_{kind}")
    made.def_abstract_eval(partial(_shape, kind))
    made.def_impl(jax.jit(made.bind, static_argnames=("problem", "native")))
    ad.primitive_jvps[made] = partial(_derive, kind)
    ad.primitive_transposes[made] = partial(_transpose, kind)
    batching.primitive_batchers[made] = partial(_batch, kind)
    mlir.register_lowering(made, mlir.lower_fun(partial(_native, kind), multiple_results=False))
    foreign = mlir.lower_fun(partial(_foreign, kind), multiple_results=False)
    mlir.register_lowering(made, foreign, platform="cpu")
    return made


handler.register()
_PRIMITIVES: dict[Kind, Primitive] = {kind: _primitive(kind) for kind in KINDS}
