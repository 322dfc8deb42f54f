"""One block of the outputs of a problem, with the bits that the whole would have.

The whole problem is planned, as if its arrays lay contiguous in memory, and a block follows that plan: the
same kernel, the same order of every sum, coordinates of the whole. Kernels address the caller's arrays by
coordinate, so a block stands in for the whole array at the addresses it covers, and no other is touched.
Nothing here holds more than the filters and one block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from convt import reference, run
from convt.algorithm import parse_algorithm
from convt.api import channel_parts, choose_plan, compiled
from convt.family import Access
from convt.geometry import axes
from convt.layouts import transposed_filters
from convt.memory import Block
from convt.plan import Plan, make_plan, reads, restrict, units
from convt.spec import Spec

__all__ = ["Blocks", "Range", "Region"]

Array: TypeAlias = npt.NDArray[Any]
Range: TypeAlias = tuple[int, int]  # from first to one past the last
Region: TypeAlias = tuple[Range, Range, Range, Range]  # batch, depth, height, width; all channels

_packing = Lock()


class Blocks:
    """A problem and its filters, computed block by block.

    Parameters
    ----------
    spec : Spec
        The whole problem.
    filters : array
        Of shape ``spec.filters_shape`` and the problem's dtype.
    bias : array, optional
        One value per output channel.
    algorithm : {"auto", "direct", "fast"}, optional
        As for `convt.conv3d_transpose`.

    Notes
    -----
    Picklable: plans and packed filters are made anew in every process, once.

    Examples
    --------
    >>> from convt.spec import make_spec
    >>> spec = make_spec(
    ...     input_shape=(1, 8, 8, 8, 1), input_dtype="float32", filters_shape=(3, 3, 3, 1, 1),
    ...     filters_dtype="float32", output_shape=None, strides=2, padding="SAME",
    ...     data_format=None, dilations=None)
    >>> blocks = Blocks(spec, np.ones((3, 3, 3, 1, 1), np.float32))
    >>> region = ((0, 1), (4, 8), (0, 16), (0, 16))
    >>> blocks.reads(region)
    ((0, 1), (1, 4), (0, 8), (0, 8))
    >>> blocks.compute(np.ones((1, 3, 8, 8, 1), np.float32), region).shape
    (1, 4, 16, 16, 1)
    """

    def __init__(
        self,
        spec: Spec,
        filters: Array,
        bias: Array | None = None,
        algorithm: str | None = None,
    ) -> None:
        self.spec = spec
        self.filters = np.ascontiguousarray(filters, spec.dtype)
        self.bias = None if bias is None else np.ascontiguousarray(bias, spec.dtype)
        self.algorithm = parse_algorithm(algorithm)
        self._plans: list[tuple[slice, Plan]] | None = None
        self._packed: list[Block] | None = None

    @property
    def units(self) -> tuple[int, ...]:
        """Outputs of each axis that are computed together: blocks that start at multiples waste nothing."""
        if not compiled() or 0 in self.spec.output_shape:
            return (1, 1, 1)
        found = [units(plan) for _, plan in self._planned()]
        return tuple(max(each) for each in zip(*found, strict=True))

    def reads(self, region: Region) -> Region:
        """The part of the input that `compute` needs for a block of outputs."""
        batch, *ranges = region
        if not compiled() or 0 in self.spec.output_shape:
            found = [a.input_range(*r) for a, r in zip(axes(self.spec), ranges, strict=True)]
        else:
            found = _hull([reads(self._part(plan, region)[0]) for _, plan in self._planned()])
        return (batch, found[0], found[1], found[2])

    def compute(self, block: Array, region: Region, threads: int = 1) -> Array:
        """The outputs of `region`, from `block`, which holds the inputs of ``reads(region)``."""
        read = self.reads(region)
        expected = self._shape(read, self.spec.in_channels)
        if block.shape != expected:
            raise ValueError(f"the block has shape {block.shape}, but {region} reads {expected}")
        block = np.ascontiguousarray(block, self.spec.dtype)
        result = run.empty_output(self._shape(region, self.spec.out_channels), self.spec.dtype)
        if not result.size:
            return result
        if not compiled():
            self._define(block, read, region, result)
            return result
        for (part, plan), packed in zip(self._planned(), self._filters(threads), strict=True):
            self._fill(plan, part, packed, (block, read), (result, region), threads)
        return result

    def workspace(self, region: Region) -> int:
        """Bytes that `compute` takes for a block: input, output, filters and what kernels work in."""
        item = self.spec.dtype.itemsize
        size = prod(self._shape(self.reads(region), self.spec.in_channels)) * item
        size += 2 * prod(self._shape(region, self.spec.out_channels)) * item
        if compiled() and size:
            size += max(sum(plan.workspace) for _, plan in self._planned())
        return size

    @property
    def resident(self) -> int:
        """Bytes of the filters, as given and as packed, that a process holds for all blocks."""
        packed = 0
        if compiled() and 0 not in self.spec.output_shape:
            packed = sum(plan.packed_bytes for _, plan in self._planned())
        return self.filters.nbytes + packed

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_plans": None, "_packed": None}

    # --- plans ------------------------------------------------------------------------------------
    def _planned(self) -> list[tuple[slice, Plan]]:
        """The plans of the whole, for ranges of output channels."""
        if self._plans is None:
            everything = slice(0, self.spec.out_channels)
            x, w = _nowhere(self.spec.input_shape, self.spec.dtype), self.filters
            self._plans = self._planned_part(everything, Access.of(self.spec, x, w))
        return self._plans

    def _planned_part(self, part: slice, access: Access) -> list[tuple[slice, Plan]]:
        """What `convt.api.compute` would plan for a range of output channels."""
        spec = replace(self.spec, out_channels=part.stop - part.start)
        w = self.filters[:, :, :, part]
        plan = choose_plan(spec, access, 1, lambda: bool(np.isfinite(w).all()), self.algorithm)
        parts = channel_parts(plan)
        if len(parts) == 1:
            return [(part, _anywhere(plan, access, self.algorithm))]
        found = []
        for half in parts:
            some = slice(part.start + half.start, part.start + half.stop)
            y = _nowhere(spec.output_shape, spec.dtype)
            place = y[..., half] if spec.data_format == "NDHWC" else y[:, half]
            smaller = replace(spec, out_channels=half.stop - half.start)
            x = _nowhere(spec.input_shape, spec.dtype)
            there = Access.of(smaller, x, self.filters[:, :, :, some], place)
            found += self._planned_part(some, there)
        return found

    def _filters(self, threads: int) -> list[Block]:
        """The filters as each plan's kernel reads them, packed by the first of all threads that asks."""
        with _packing:
            if self._packed is None:
                self._packed = [
                    run.pack_filters(plan, self.filters[:, :, :, part], threads)
                    for part, plan in self._planned()
                ]
        return self._packed

    def _part(self, plan: Plan, region: Region) -> tuple[Plan, Region]:
        """The plan for a block, and what it computes: the region, out to whole units."""
        (n0, n1), *ranges = region
        wider = [
            (start // unit * unit, min(-(-stop // unit) * unit, axis.output))
            for (start, stop), unit, axis in zip(ranges, units(plan), plan.axes, strict=True)
        ]
        return restrict(plan, n1 - n0, wider), ((n0, n1), wider[0], wider[1], wider[2])

    # --- computing --------------------------------------------------------------------------------
    def _fill(
        self,
        plan: Plan,
        part: slice,
        packed: Block,
        source: tuple[Array, Region],
        target: tuple[Array, Region],
        threads: int,
    ) -> None:
        some, computed = self._part(plan, target[1])
        bias = None if self.bias is None else self.bias[part]
        some = replace(some, threads=threads)
        x = self._placed(*source, self.spec.input_size)
        channels = part.stop - part.start
        result, region = target
        whole = channels == self.spec.out_channels
        if computed == region and whole:
            run.execute(some, x, packed, bias, self._placed(result, region, self.spec.output_size))
            return
        room = run.empty_output(self._shape(computed, channels), self.spec.dtype)
        run.execute(some, x, packed, bias, self._placed(room, computed, self.spec.output_size))
        inner = zip(region, computed, strict=True)
        n, *space = [slice(a - c, b - c) for (a, b), (c, _) in inner]
        if self.spec.data_format == "NDHWC":
            result[..., part] = room[(n, *space)]
        else:
            result[:, part] = room[(n, slice(None), *space)]

    def _placed(self, block: Array, region: Region, size: Sequence[int]) -> Array:
        """`block` seen as part of an array of `size`, of which nothing else exists."""
        first = 1 if self.spec.data_format == "NDHWC" else 2
        shape = list(block.shape)
        shape[first : first + 3] = size
        starts = (start for start, _ in region[1:])
        before = sum(s * n for s, n in zip(block.strides[first:], starts, strict=False))
        return _at(block, block.ctypes.data - before, tuple(shape), block.strides)

    def _shape(self, region: Region, channels: int) -> tuple[int, ...]:
        n, *space = (stop - start for start, stop in region)
        return (n, *space, channels) if self.spec.data_format == "NDHWC" else (n, channels, *space)

    def _define(self, block: Array, read: Region, region: Region, result: Array) -> None:
        """The definition, with pads that put the block where it is."""
        spec, w, pads = self.spec, self.filters, []
        for axis, (i, _), (o, _) in zip(axes(spec), read[1:], region[1:], strict=True):
            moved = i - axis.stride * o if axis.forward else o - axis.stride * i
            pads.append((axis.pad_before + moved, 0))
        shared: dict[str, Any] = {"bias": self.bias, "groups": spec.groups}
        size = [stop - start for start, stop in region[1:]]
        rest = (spec.strides, pads, spec.data_format, spec.dilations)
        if not spec.forward:
            shape = self._shape(region, spec.out_channels)
            result[...] = reference.conv3d_transpose(block, w, shape, *rest, **shared)
            return
        w = transposed_filters(w.swapaxes(3, 4), spec.groups)
        result[...] = reference.input_gradient(block, w, size, *rest, **shared)


def _anywhere(plan: Plan, access: Access, algorithm: str) -> Plan:
    """The same kernel, or one that adds up in the same order, for an output anywhere in memory."""
    access = access._replace(output_contiguous=False)
    family = plan.kernel.family
    algorithm = algorithm if plan.filtered else "direct"
    return make_plan(plan.spec, plan.target, access, 1, family=family, algorithm=algorithm)


def _nowhere(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """A contiguous array of which only shape, strides and dtype may be asked."""
    strides, step = [], dtype.itemsize
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return np.lib.stride_tricks.as_strided(np.empty(1, dtype), shape, strides[::-1])


class _Place:
    """Where an array is, as NumPy asks for it; it holds no memory."""

    def __init__(self, interface: dict[str, Any]) -> None:
        self.__array_interface__ = interface


def _at(like: Array, address: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    """An array at an address, of which only the elements that are known to exist may be touched."""
    interface = {
        "version": 3,
        "typestr": f"|V{like.itemsize}",
        "data": (address, False),
        "shape": shape,
        "strides": strides,
    }
    return np.asarray(_Place(interface)).view(like.dtype)


def _hull(found: list[list[Range]]) -> list[Range]:
    return [
        (min(first for first, _ in each), max(end for _, end in each))
        for each in zip(*found, strict=True)
    ]
