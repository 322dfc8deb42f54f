"""Three differentiable operations on tensors, the derivatives of one trilinear form.

Constraints of this file: each operation's gradient calls the other two, so tapes may be nested. Eager
tensors are borrowed as NumPy views and results are written into TensorFlow's memory; in a graph the same
computation is a call into Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from convt.tensorflow import native
from convt.tensorflow.devices import served
from convt.tensorflow.geometry import Geometry, Known
from convt.trilinear import KINDS, Kind

__all__ = ["compute"]

Array = npt.NDArray[Any]


def compute(
    kind: Kind, geometry: Geometry, a: Any, b: Any, sizes: Any = None, bias: Any = None
) -> Any:
    """Compute one kind of tensor from the other two.

    Parameters
    ----------
    kind : {"input", "filters", "output"}
        What is computed.
    geometry : Geometry
        The arguments that are no tensors.
    a, b : tf.Tensor
        The other two, in the order of `KINDS`.
    sizes : sequence of int or tf.Tensor, optional
        The result's five sizes, -1 where they are inferred; not asked for an input.
    bias : tf.Tensor, optional
        One value per channel of the result, which is no filters then.
    """
    ours = served(a, b)
    if ours and tf.executing_eagerly():
        return _differentiable(kind, geometry, a, b, sizes, bias)
    known, added = (_known(a), _known(b)), None if bias is None else _known(bias)
    static = _static_sizes(sizes)
    shape = geometry.result_shape(kind, *known, static, added)
    if static is None or None not in static:
        sizes = _best_sizes(shape, a, static)
    function = _differentiable if ours else native.compute
    found = function(kind, geometry, a, b, sizes, bias)
    found.set_shape(shape)
    return found


def _best_sizes(shape: tuple[int | None, ...], a: Any, static: Any) -> Any:
    """The result's sizes: known, with a batch as the graph will find it, or those asked for."""
    if None not in shape:
        return shape
    if None not in shape[1:]:
        return tf.stack([tf.shape(a)[0], *shape[1:]])
    return static


def _differentiable(kind: Kind, geometry: Geometry, a: Any, b: Any, sizes: Any, bias: Any) -> Any:
    """Compute, and tell tapes how to go on."""
    first, second = (other for other in KINDS if other != kind)

    def operation(a: Any, b: Any, *bias: Any) -> tuple[Any, Any]:
        def gradient(upstream: Any) -> list[Any]:
            given = {first: a, second: b, kind: upstream}
            found = [_gradient(wanted, geometry, given) for wanted in (first, second)]
            if bias:
                found.append(tf.reduce_sum(upstream, _all_but_channels(geometry)))
            return found

        run = _run if tf.executing_eagerly() else _call
        return run(kind, geometry, a, b, sizes, *bias), gradient

    return tf.custom_gradient(operation)(a, b, *([] if bias is None else [bias]))


def _gradient(wanted: Kind, geometry: Geometry, given: dict[Kind, Any]) -> Any:
    a, b = (given[other] for other in KINDS if other != wanted)
    like = given[wanted]
    sizes = tuple(like.shape) if like.shape.is_fully_defined() else tf.shape(like)
    return compute(wanted, geometry, a, b, sizes)


def _run(kind: Kind, geometry: Geometry, a: Any, b: Any, sizes: Any, bias: Any = None) -> Any:
    """Compute from eager tensors into a new one."""
    x, w, added = _view(a), _view(b), None if bias is None else _view(bias)
    wanted = sizes.numpy().tolist() if isinstance(sizes, tf.Tensor) else sizes
    problem = geometry.problem(kind, x, w, wanted, added)
    shape = np.array(problem.shape(kind), np.int32)  # which takes half the time that a tuple does
    result = tf.raw_ops.Empty(shape=shape, dtype=a.dtype, init=False)
    out = _view(result)
    if out.flags.owndata or not out.flags.writeable:  # no view of the tensor's memory
        return tf.convert_to_tensor(problem.compute(kind, x, w, added))
    problem.compute(kind, x, w, added, out)
    return result


def _view(tensor: Any) -> Array:
    """The memory of an eager tensor on the CPU."""
    array: Array = tensor.__array__()
    return array


def _call(kind: Kind, geometry: Geometry, a: Any, b: Any, sizes: Any, *bias: Any) -> Any:
    """Compute when the graph runs."""
    inferred = sizes is None
    wanted = tf.zeros(0, tf.int64) if inferred else tf.cast(sizes, tf.int64)

    def run(a: Array, b: Array, sizes: Array, *bias: Array) -> Array:
        asked = None if inferred else sizes.tolist()
        problem = geometry.problem(kind, a, b, asked, *bias)
        return problem.compute(kind, a, b, *bias)

    return tf.numpy_function(run, [a, b, wanted, *bias], a.dtype, stateful=False)


def _known(tensor: Any) -> Known:
    shape = tensor.shape
    sizes = () if shape.rank is None else tuple(shape.as_list())
    return Known(sizes, np.dtype(tensor.dtype.as_numpy_dtype))


def _static_sizes(sizes: Any) -> Any:
    """The sizes as far as they are known when a graph is traced; None where nothing is."""
    if sizes is None or not tf.is_tensor(sizes):
        return sizes  # a sequence of ints
    found = tf.get_static_value(sizes, partial=True)
    if found is None:
        return (None,) * 5
    return tuple(None if size is None else int(size) for size in found)


def _all_but_channels(geometry: Geometry) -> tuple[int, ...]:
    return (0, 1, 2, 3) if geometry.data_format == "NDHWC" else (0, 2, 3, 4)
