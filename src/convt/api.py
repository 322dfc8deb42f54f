"""`conv3d_transpose`: signature, documentation and wiring; the stages do the work.

Arrays are borrowed as NumPy views, checked by `spec`, planned by `plan`, computed by `run`. Where code
can't be generated, the definition itself answers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from convt import jit, reference, run, target
from convt.algorithm import get_algorithm, parse_algorithm
from convt.arrays import adapter
from convt.family import Access
from convt.layouts import transposed_filters
from convt.plan import Plan, make_plan
from convt.recall import Layout, recall
from convt.spec import Spec, make_spec
from convt.threads import get_num_threads, parse_threads

__all__ = [
    "Ready",
    "channel_parts",
    "check_out",
    "choose_plan",
    "compiled",
    "compute",
    "conv3d_transpose",
    "prepare",
    "transposed",
]

Array = npt.NDArray[Any]
_PACKED_AT_ONCE = 40 << 20  # bytes of packed filters that one pass may hold
_LANES = 16  # output channels that a half is rounded to
_OVERLAP_WORK: Any = 10_000  # steps that the search for a shared element may take


def conv3d_transpose(
    input: npt.ArrayLike,
    filters: npt.ArrayLike,
    output_shape: Any,
    strides: Any,
    padding: Any = "SAME",
    data_format: str | None = "NDHWC",
    dilations: Any = None,
    name: str | None = None,
    *,
    bias: npt.ArrayLike | None = None,
    groups: int = 1,
    out: Array | None = None,
    threads: int | None = None,
    algorithm: str | None = None,
) -> Array:
    """Compute the transpose (gradient) of a 3-D convolution, as ``tf.nn.conv3d_transpose`` does.

    Also called transposed, fractionally strided or up-convolution, and "deconvolution" after [1]_, though
    it is no deconvolution. On each axis, input voxel ``i`` times kernel tap ``t`` adds to output voxel
    ``stride * i + dilation * t - pad_before``.

    Parameters
    ----------
    input : array_like
        Shape ``[batch, depth, height, width, in_channels]``, or ``[batch, in_channels, depth, height,
        width]`` for NCDHW; float16, bfloat16 (``ml_dtypes``), float32 or float64. Any strides and byte
        order; it may be read-only or memory-mapped.
    filters : array_like
        Shape ``[depth, height, width, out_channels, in_channels / groups]``; the input's dtype.
    output_shape : sequence of int, or None
        The five sizes of the result, in the order of `data_format`. The forward convolution must map
        them to the input's sizes; `explain` and the error messages tell which do. Beyond TensorFlow,
        None, or -1 for any entry, infers: ``in * stride`` for SAME, ``(in - 1) * stride + effective
        kernel`` for VALID.
    strides : int or sequence of 1, 3 or 5 ints
        Output voxels from one input voxel to the next. Of five, in the order of `data_format`, those for
        batch and channels must be 1.
    padding : {"SAME", "VALID"} or three pairs
        The padding of the forward convolution. Beyond TensorFlow, explicit pairs ``[(before, after)] * 3``.
    data_format : {"NDHWC", "NCDHW"} or None
        Where the channels are; None is NDHWC.
    dilations : int or sequence of 1, 3 or 5 ints, or None
        Output voxels from one tap to the next; None is 1. Any stride goes with any dilation.
    name : str, optional
        Accepted as TensorFlow does; it has no effect outside graphs.
    bias : array_like, optional
        One value per output channel, of the input's dtype, added before the result is rounded.
    groups : int, default 1
        Groups of channels that are convolved by themselves.
    out : numpy.ndarray, optional
        Where to write the result: the result's shape and dtype, any strides, no memory shared with the
        other arrays.
    threads : int, optional
        Threads that this call may use; default `convt.get_num_threads()`. The result is the same, bit
        for bit.
    algorithm : {"auto", "direct", "fast"}, optional
        Whether minimal filtering may save multiplications; default `convt.get_algorithm()`, at first
        "auto": where it is faster and its rounding error, the largest and the mean over the result, at
        most four times that of the direct sum (on average over cases, where values range widely).

    Returns
    -------
    numpy.ndarray
        A new C-contiguous array of the input's dtype in native byte order, or `out`. float16 and bfloat16
        are summed in float32 and rounded once. Outputs that no tap reaches are 0 (plus `bias`).

    Raises
    ------
    TypeError
        If an argument is of a wrong kind: an integer array, a bool for a size.
    ValueError
        If sizes do not fit each other; the message gives those that would.

    References
    ----------
    .. [1] M. Zeiler, D. Krishnan, G. Taylor, R. Fergus, "Deconvolutional Networks", CVPR 2010.

    Examples
    --------
    >>> import numpy as np
    >>> import convt
    >>> x = np.ones((1, 4, 4, 4, 8), np.float32)
    >>> w = np.ones((3, 3, 3, 16, 8), np.float32)
    >>> convt.conv3d_transpose(x, w, [1, 8, 8, 8, 16], strides=2).shape
    (1, 8, 8, 8, 16)
    >>> convt.conv3d_transpose(x, w, [1, 9, 8, 8, 16], strides=2)
    Traceback (most recent call last):
        ...
    ValueError: ...
    """
    served = adapter("conv3d_transpose", input=input, filters=filters, bias=bias, out=out)
    if served is not None:
        theirs: Array = served.conv3d_transpose(
            input, filters, output_shape, strides, padding, data_format, dilations, name,
            bias=bias, groups=groups, out=out, threads=threads, algorithm=algorithm,
        )  # fmt: skip
        return theirs
    x, w = np.asarray(input), np.asarray(filters)
    b = None if bias is None else np.asarray(bias)
    ready = recall(
        transposed,
        (x, w, b),
        *(output_shape, strides, padding, data_format, dilations, groups),
        get_num_threads() if threads is None else threads,
        get_algorithm() if algorithm is None else algorithm,
    )
    if out is not None:
        check_out(out, ready.spec, {"input": x, "filters": w, "bias": b})
        ready = ready.into(Access.of(ready.spec, x, w, out))
    y = run.empty_output(ready.shape, ready.spec.dtype) if out is None else out
    compute(ready, x, w, b, y)
    return y


class Ready(NamedTuple):
    """A problem and how it is computed: all that calls with the same arguments share."""

    spec: Spec
    shape: tuple[int, ...]  # of the output
    access: Access
    threads: int
    algorithm: str
    plan: Plan | None  # for finite filters; None: nothing to compute, or no code to run

    def into(self, access: Access) -> Ready:
        """The same with another access, as to an output that is given."""
        return prepare(self.spec, access, self.threads, self.algorithm)


def prepare(spec: Spec, access: Access, threads: int, algorithm: str) -> Ready:
    """Plan a problem."""
    threads, algorithm = parse_threads(threads), parse_algorithm(algorithm)
    shape, plan = spec.output_shape, None
    if prod(shape) and jit.can_execute():
        plan = make_plan(spec, target.host(), access, threads, algorithm=algorithm, bound=False)
    return Ready(spec, shape, access, threads, algorithm, plan)


def transposed(
    x: Layout,
    w: Layout,
    b: Layout | None,
    output_shape: Any,
    strides: Any,
    padding: Any,
    data_format: Any,
    dilations: Any,
    groups: Any,
    threads: Any,
    algorithm: Any,
) -> Ready:
    """Check the arguments of `conv3d_transpose` and plan the problem that they pose."""
    spec = make_spec(
        input_shape=x.shape,
        input_dtype=x.dtype,
        filters_shape=w.shape,
        filters_dtype=w.dtype,
        output_shape=output_shape,
        strides=strides,
        padding=padding,
        data_format=data_format,
        dilations=dilations,
        bias_shape=None if b is None else b.shape,
        bias_dtype=None if b is None else b.dtype,
        groups=groups,
    )
    return prepare(spec, Access.of(spec, x, w), threads, algorithm)


def compute(ready: Ready, x: Array, w: Array, b: Array | None, y: Array) -> None:
    """Compute the whole of `y`; filters are ``[..., out_channels, in_channels / groups]``, or swapped so.

    Some output channels at a time where all packed filters would be large.
    """
    spec, _, access, threads, algorithm, plan = ready
    if plan is None:
        _define(spec, x, w, b, y)
        return
    plan = _fit(plan, access, threads, lambda: bool(np.isfinite(w).all()))
    parts = channel_parts(plan)
    if len(parts) == 1:
        run.execute(plan, x, run.pack_filters(plan, w, threads, once=True), b, y)
        return
    for part in parts:
        some = replace(spec, out_channels=part.stop - part.start)
        place = y[..., part] if spec.data_format == "NDHWC" else y[:, part]
        filters, bias = w[:, :, :, part], None if b is None else b[part]
        access = Access.of(some, x, filters, place)
        compute(prepare(some, access, threads, algorithm), x, filters, bias, place)


def _define(spec: Spec, x: Array, w: Array, b: Array | None, y: Array) -> None:
    """Fill `y` by the definition, where there is no plan."""
    if not y.size:
        return
    compiled()  # which warns that nothing is
    geometry = (spec.strides, spec.padding, spec.data_format, spec.dilations)
    if spec.forward:
        w = transposed_filters(w.swapaxes(3, 4), spec.groups)
        y[...] = reference.input_gradient(
            x, w, spec.output_size, *geometry, bias=b, groups=spec.groups
        )
    else:
        y[...] = reference.conv3d_transpose(
            x, w, spec.output_shape, *geometry, bias=b, groups=spec.groups
        )


def channel_parts(plan: Plan) -> tuple[slice, ...]:
    """The output channels that passes of `plan` take at a time: all, or each half of them."""
    channels = plan.spec.out_channels
    if plan.packed_bytes <= _PACKED_AT_ONCE or plan.spec.groups > 1 or channels == 1:
        return (slice(0, channels),)
    half = min(-(-channels // 2 // _LANES) * _LANES, channels - 1)
    return slice(0, half), slice(half, channels)


def choose_plan(
    spec: Spec,
    access: Access,
    threads: int,
    finite: Callable[[], bool],
    algorithm: str,
    *,
    bound: bool = False,
) -> Plan:
    """The plan for this processor; `finite` is asked only where the plan depends on the filters."""
    plan = make_plan(spec, target.host(), access, threads, algorithm=algorithm, bound=bound)
    return _fit(plan, access, threads, finite)


def _fit(plan: Plan, access: Access, threads: int, finite: Callable[[], bool]) -> Plan:
    # Rows and dots read zeros beyond the input; minimal filtering would compute every tile twice.
    if (plan.kernel.rows or plan.filtered) and not finite():
        return make_plan(plan.spec, plan.target, access, threads, finite=False)
    return plan


def check_out(
    out: Any, spec: Spec, others: dict[str, Array | None], *, filters: bool = False
) -> None:
    """Refuse an `out` that can't hold the result, or whose writing would change what is read.

    The result is the output, or with `filters` what is like the filters.
    """
    shape, whose = spec.output_shape, "the output's"
    if filters:
        shape, whose = spec.filters_shape, "filters_shape"
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a numpy.ndarray, got {type(out).__name__}")
    if out.shape != shape:
        raise ValueError(f"out.shape = {out.shape} must be {whose}: {shape}")
    if out.dtype != spec.dtype:
        raise TypeError(
            f"out.dtype = {out.dtype} must be the input's in native order: {spec.dtype}"
        )
    if not out.flags.writeable:
        raise ValueError("out must be writeable")
    if _overlaps_itself(out):
        raise ValueError(f"out.strides = {out.strides} let elements of out share memory")
    for label, other in others.items():
        if other is not None and np.may_share_memory(out, other) and _overlap(out, other):
            raise ValueError(f"out shares memory with {label}: pass a copy of one")


def _overlap(a: Array, b: Array) -> bool:
    try:
        return np.shares_memory(a, b, max_work=_OVERLAP_WORK)
    except RuntimeError:  # NumPy's TooHardError is one: too hard to tell counts as shared
        return True


def _overlaps_itself(array: Array) -> bool:
    """Whether two elements may lie in the same place, judged axis by axis."""
    reach = array.itemsize
    axes = sorted((abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1)
    for stride, length in axes if array.size else ():
        if stride < reach:
            return True
        reach = stride * (length - 1) + reach
    return False


_warned = False


def compiled() -> bool:
    """Whether kernels can run here; says so once where they can't."""
    global _warned
    if jit.can_execute():
        return True
    if not _warned:
        _warned = True
        warnings.warn(
            "this process may not make memory executable, so convt computes with NumPy: "
            "the same results, slowly",
            RuntimeWarning,
            stacklevel=5,  # who called the operation
        )
    return False
