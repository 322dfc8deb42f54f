"""Dask arrays: the operations on arrays that are cut into chunks and computed by any scheduler.

A call returns at once, with a lazy array whose chunks follow the input's. A block of outputs needs the
inputs that its taps reach: each neighbouring chunk is cut where it lies, so that only halos travel, and the
pieces are put together once. Blocks follow the whole problem's plan (`convt.blocks`), so any chunking gives
the bits that the call on C-contiguous NumPy arrays gives, on workers of one kind of processor. Filters are
one node of the graph, which a scheduler sends to each worker once. A block is computed by one thread:
schedulers run as many blocks at a time as a worker has threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise, product
from typing import Any

import dask.array as typed_array
import numpy as np
import numpy.typing as npt
from dask.array import Array as LazyArray
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from convt.blocks import Blocks, Range, Region
from convt.geometry import axes
from convt.gradient import conv3d_transpose_filter_gradient as gradient_of_arrays
from convt.spec import Spec, make_convolution_spec, make_gradient_spec, make_spec
from convt.threads import parse_threads

__all__ = ["conv3d", "conv3d_transpose", "conv3d_transpose_filter_gradient"]

da: Any = typed_array  # its types stop at half of its functions
Array = npt.NDArray[Any]


def conv3d_transpose(
    input: Any,
    filters: Any,
    output_shape: Any,
    strides: Any,
    padding: Any = "SAME",
    data_format: str | None = "NDHWC",
    dilations: Any = None,
    name: str | None = None,
    *,
    bias: Any = None,
    groups: int = 1,
    out: Any = None,
    threads: int | None = None,
    algorithm: str | None = None,
) -> LazyArray:
    """`convt.conv3d_transpose` of a Dask array.

    Parameters
    ----------
    input : dask.array.Array
        Chunked in batch and space as you like; chunks of channels are joined.
    filters, bias : array_like
        In memory; Dask arrays are computed by the call.
    threads : int, optional
        Threads that compute one block; default 1.
    out : None
        Not for lazy results: store them with `dask.array.store` or `dask.array.Array.to_zarr`.
    output_shape, strides, padding, data_format, dilations, name, groups, algorithm
        As for `convt.conv3d_transpose`.

    Returns
    -------
    dask.array.Array
        Lazy, with an edge between chunks at about ``stride`` times every edge of the input.

    Raises
    ------
    TypeError, ValueError
        As `convt.conv3d_transpose`, at once.

    Examples
    --------
    >>> import convt
    >>> x = da.ones((1, 8, 8, 8, 4), chunks=(1, 4, 4, 8, 4), dtype=np.float32)
    >>> y = convt.conv3d_transpose(x, np.ones((3, 3, 3, 2, 4), np.float32), None, strides=2)
    >>> y.chunks
    ((1,), (8, 8), (8, 8), (16,), (2,))
    """
    x, w, b = _arrays(input, filters, bias, out)
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
    return _lazy("conv3d-transpose", x, Blocks(spec, w, b, algorithm), threads)


def conv3d(
    input: Any,
    filters: Any,
    strides: Any,
    padding: Any,
    data_format: str | None = "NDHWC",
    dilations: Any = None,
    name: str | None = None,
    *,
    bias: Any = None,
    groups: int = 1,
    out: Any = None,
    threads: int | None = None,
    algorithm: str | None = None,
) -> LazyArray:
    """`convt.conv3d` of a Dask array; parameters as here for `conv3d_transpose`.

    Examples
    --------
    >>> import convt
    >>> x = da.ones((1, 8, 8, 8, 4), chunks=4, dtype=np.float32)
    >>> convt.conv3d(x, np.ones((3, 3, 3, 4, 2), np.float32), 2, "SAME").chunks
    ((1,), (2, 2), (2, 2), (2, 2), (2,))
    """
    x, w, b = _arrays(input, filters, bias, out)
    spec = make_convolution_spec(
        input_shape=x.shape,
        input_dtype=x.dtype,
        filters_shape=w.shape,
        filters_dtype=w.dtype,
        strides=strides,
        padding=padding,
        data_format=data_format,
        dilations=dilations,
        bias_shape=None if b is None else b.shape,
        bias_dtype=None if b is None else b.dtype,
        groups=groups,
    )
    return _lazy("conv3d", x, Blocks(spec, w.swapaxes(3, 4), b, algorithm), threads)


def conv3d_transpose_filter_gradient(
    input: Any,
    output_gradient: Any,
    filters_shape: Any,
    strides: Any,
    padding: Any = "SAME",
    data_format: str | None = "NDHWC",
    dilations: Any = None,
    *,
    groups: int = 1,
    out: Any = None,
    threads: int | None = None,
) -> LazyArray:
    """`convt.conv3d_transpose_filter_gradient` of Dask arrays: a lazy sum over the chunks of `input`.

    Sums are in float64 for float64 and in float32 for the rest, and rounded once; their order, and with it
    the last bits, follow the chunks.

    Examples
    --------
    >>> x, g = da.ones((1, 4, 4, 4, 2), chunks=2), da.ones((1, 8, 8, 8, 3), chunks=8)
    >>> conv3d_transpose_filter_gradient(x, g, (3, 3, 3, 3, 2), 2).shape
    (3, 3, 3, 3, 2)
    """
    _refuse_out(out)
    x, g = _dask("input", input), _dask("output_gradient", output_gradient)
    spec = make_gradient_spec(
        input_shape=x.shape,
        input_dtype=x.dtype,
        gradient_shape=g.shape,
        gradient_dtype=g.dtype,
        filters_shape=filters_shape,
        strides=strides,
        padding=padding,
        data_format=data_format,
        dilations=dilations,
        groups=groups,
    )
    wide = np.dtype(np.float64 if spec.dtype == np.float64 else np.float32)
    count = 1 if threads is None else parse_threads(threads)
    part = _GradientPart(replace(spec, dtype=wide), count)
    token = tokenize(x.name, g.name, spec, count)
    x, g = (array.rechunk({_channel(spec): -1}) for array in (x, g))
    edges = [_edges(x.chunks[axis]) for axis in (0, *_spatial(spec))]
    graph: dict[Any, Any] = {}
    keys = []
    for index, region in _regions(edges):
        needed = part.touched(region)
        key = (f"filter-gradient-part-{token}", *index)
        cut_x = _cut(graph, f"cut-x-{token}", x, spec, region)
        cut_g = _cut(graph, f"cut-g-{token}", g, spec, needed)
        graph[key] = (part.compute, cut_x, cut_g, region, needed)
        keys.append(key)
    name = f"filter-gradient-{token}"
    graph[(name, 0, 0, 0, 0, 0)] = (_total, keys, spec.filters_shape, wide.str, spec.dtype)
    layers = HighLevelGraph.from_collections(name, graph, dependencies=[x, g])
    chunks = tuple((size,) for size in spec.filters_shape)
    made: LazyArray = da.Array(layers, name, chunks=chunks, dtype=spec.dtype)
    return made


# --- arguments ------------------------------------------------------------------------------------
def _arrays(input: Any, filters: Any, bias: Any, out: Any) -> tuple[Any, Array, Array | None]:
    _refuse_out(out)
    b = None if bias is None else np.asarray(bias)
    return _dask("input", input), np.asarray(filters), b


def _dask(name: str, array: Any) -> Any:
    """`array` as a Dask array of known chunks."""
    if not isinstance(array, LazyArray):
        return da.from_array(np.asarray(array), chunks=-1)
    if any(np.isnan(size) for sizes in array.chunks for size in sizes):
        raise ValueError(
            f"{name} has chunks of unknown sizes: call its compute_chunk_sizes() first"
        )
    return array


def _refuse_out(out: Any) -> None:
    if out is not None:
        raise TypeError("out must be None for Dask arrays: store the lazy result where you want it")


# --- graphs ---------------------------------------------------------------------------------------
def _lazy(what: str, x: Any, blocks: Blocks, threads: int | None) -> LazyArray:
    """The lazy result of a problem."""
    spec = blocks.spec
    count = 1 if threads is None else parse_threads(threads)
    x = x.rechunk({_channel(spec): -1})
    token = tokenize(x.name, spec, blocks.filters, blocks.bias, blocks.algorithm, count)
    name, filters = f"{what}-{token}", f"{what}-filters-{token}"
    edges = [_edges(x.chunks[0])]
    for number, axis in enumerate(_spatial(spec)):
        edges.append(_output_edges(spec, number, _edges(x.chunks[axis]), blocks.units[number]))
    graph: dict[Any, Any] = {filters: blocks}
    for index, region in _regions(edges):
        pieces = _cut(graph, f"{what}-cut-{token}", x, spec, blocks.reads(region))
        place = [*index]
        place.insert(_channel(spec), 0)
        graph[(name, *place)] = (_compute, filters, pieces, region, count)
    layers = HighLevelGraph.from_collections(name, graph, dependencies=[x])
    sizes = [tuple(b - a for a, b in pairwise(each)) for each in edges]
    sizes.insert(_channel(spec), (spec.out_channels,))
    made: LazyArray = da.Array(layers, name, chunks=tuple(sizes), dtype=spec.dtype)
    return made


def _spatial(spec: Spec) -> tuple[int, int, int]:
    return (1, 2, 3) if spec.data_format == "NDHWC" else (2, 3, 4)


def _channel(spec: Spec) -> int:
    return 4 if spec.data_format == "NDHWC" else 1


def _edges(sizes: Sequence[int]) -> list[int]:
    """Where chunks begin and end."""
    return [0, *accumulate(int(size) for size in sizes)]


def _output_edges(spec: Spec, axis: int, edges: Sequence[int], unit: int) -> list[int]:
    """Where the outputs are cut: at whole units, about where the input's chunks end."""
    stride, size = spec.strides[axis], spec.output_size[axis]
    places = (edge / stride if spec.forward else edge * stride for edge in edges[1:-1])
    inner = {round(place / unit) * unit for place in places}
    return [0, *sorted(edge for edge in inner if 0 < edge < size), size]


def _regions(edges: Sequence[Sequence[int]]) -> Iterator[tuple[tuple[int, ...], Region]]:
    """All blocks between the edges of batch, depth, height and width, by their numbers."""
    ranges = [list(enumerate(pairwise(each))) for each in edges]
    for n, d, h, w in product(*ranges):
        yield (n[0], d[0], h[0], w[0]), (n[1], d[1], h[1], w[1])


def _cut(graph: dict[Any, Any], name: str, x: Any, spec: Spec, region: Region) -> Any:
    """What evaluates to the part of `x` in `region`: nested lists of pieces, each cut in `graph` once."""
    chunked = (0, *_spatial(spec))
    cuts = [list(_overlaps(_edges(x.chunks[a]), r)) for a, r in zip(chunked, region, strict=True)]
    position = _channel(spec)
    if not all(cuts):
        shape = [stop - start for start, stop in region]
        shape.insert(position, x.shape[position])
        return (np.zeros, shape, spec.dtype)

    def piece(*chosen: tuple[int, Range]) -> Any:
        index = [number for number, _ in chosen]
        ranges: list[Range | None] = [r for _, r in chosen]
        index.insert(position, 0)
        ranges.insert(position, None)
        key = (x.name, *index)
        sizes = [x.chunks[a][i] for a, i in enumerate(index)]
        if all(r is None or r == (0, s) for r, s in zip(ranges, sizes, strict=True)):
            return key
        made = (name, *index, *(f"{r[0]}:{r[1]}" for r in ranges if r is not None))
        graph[made] = (_slice, key, [list(r) if r else None for r in ranges])
        return made

    return [
        [[[piece(n, d, h, w) for w in cuts[3]] for h in cuts[2]] for d in cuts[1]] for n in cuts[0]
    ]


def _overlaps(edges: Sequence[int], wanted: Range) -> Iterator[tuple[int, Range]]:
    """The chunks that a range meets, each with the part of it that is wanted."""
    for number, (start, stop) in enumerate(pairwise(edges)):
        a, b = max(start, wanted[0]), min(stop, wanted[1])
        if a < b:
            yield number, (a - start, b - start)


# --- what workers run -----------------------------------------------------------------------------
def _slice(chunk: Array, ranges: Sequence[Sequence[int] | None]) -> Array:
    return chunk[tuple(slice(None) if r is None else slice(*r) for r in ranges)]


def _compute(blocks: Blocks, pieces: Any, region: Region, threads: int) -> Array:
    return blocks.compute(_joined(pieces, _spatial(blocks.spec)), region, threads)


def _joined(pieces: Any, spatial: Sequence[int]) -> Array:
    """The pieces of a part, put together; nested in the order batch, depth, height, width."""
    if isinstance(pieces, np.ndarray):
        return pieces

    def join(nested: Any, axes: tuple[int, ...]) -> Array:
        if not axes:
            return np.asarray(nested)
        parts = [join(part, axes[1:]) for part in nested]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axes[0])

    return join(pieces, (0, *spatial))


class _GradientPart:
    """What one block of inputs adds to the gradient in the filters."""

    def __init__(self, spec: Spec, threads: int) -> None:
        self.spec, self.threads = spec, threads

    def touched(self, region: Region) -> Region:
        """The outputs that a block of inputs adds to."""
        batch, *space = region
        found = []
        for axis, (start, stop) in zip(axes(self.spec), space, strict=True):
            first = axis.stride * start - axis.pad_before
            end = axis.stride * (stop - 1) + axis.reach + 1 - axis.pad_before
            first, end = (min(max(place, 0), axis.output) for place in (first, end))
            found.append((first, max(first, end)))
        return (batch, found[0], found[1], found[2])

    def compute(self, x: Any, g: Any, region: Region, touched: Region) -> Array | None:
        spec = self.spec
        x, g = (_joined(pieces, _spatial(spec)) for pieces in (x, g))
        if not x.size or not g.size:
            return None
        pads = []
        for axis, (i, end), (o, stop) in zip(axes(spec), region[1:], touched[1:], strict=True):
            before = axis.pad_before + o - axis.stride * i
            full = axis.stride * (end - i - 1) + axis.reach + 1
            pads.append((before, full - (stop - o) - before))
        return gradient_of_arrays(
            x.astype(spec.dtype), g.astype(spec.dtype), spec.filters_shape, spec.strides, pads,
            spec.data_format, spec.dilations, groups=spec.groups, threads=self.threads,
        )  # fmt: skip


def _total(parts: list[Any], shape: tuple[int, ...], wide: str, dtype: Any) -> Array:
    total = np.zeros(shape, wide)
    for part in parts:
        if part is not None:
            total += part
    return total.astype(dtype)
