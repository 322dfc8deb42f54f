"""Which kernel serves a problem: family and tile, by a count of the vector instructions each would take.

Pure. The families: lanes over output channels (kernels/channels.py), with one input channel or element
broadcast, lanes over the width (kernels/rows.py), with filters broadcast, and lanes over input channels
(kernels/dots.py), which are added at the end. The counts leave caches and ports aside; what they compare is
how well lanes are filled, how often inputs and filters are loaded, and what moving data into and out of
slabs costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

from convt.fast import Filtered, filtered
from convt.fold import fold
from convt.geometry import Axis, axes
from convt.kernels.keys import Channels, Dots, Element, Filtering, Rows
from convt.memory import ALIGNED_FROM
from convt.spec import Spec
from convt.target import Target

__all__ = [
    "CODES",
    "POINT_BYTES",
    "WORTH",
    "Access",
    "Choice",
    "choose",
    "joined_taps",
    "products",
]

CODES = {"float16": "f16", "bfloat16": "bf16", "float32": "f32", "float64": "f64"}
_FAST_COST = 1.15  # of an instruction of minimal filtering, which waits for caches more often
WORTH = 1 << 26  # products from which "auto" may compile a kernel that takes longer to compile
# Bytes of filters at the points that "auto" may hold: for a call, and bound.
POINT_BYTES = {False: 32 << 20, True: 128 << 20}
_LINE = 64  # bytes in a cache line
_ROW_TAPS, _ROW_STRIDE = 64, 64  # the widest rows that code is emitted for
_JOINED = 128  # products of neighbouring taps that become one run, about
_AFAR = 3  # instructions that wait for a vector of filters from beyond the second-level cache
_NEAR = 1 << 18  # bytes of filters that stay near: of no one processor, as bits follow
_RUN_COST = 10  # instructions that a tile spends on a run beside its sums
_MOVE, _BACK = 10, 5  # instructions that move one vector into a slab, transposed, and out of one
_PICK, _SIDE_BY_SIDE = 1, 4  # instructions that move one element of so few dense channels
_ALONE = 3  # instructions that move one element alone
_HALO = 1.5  # times that an input element is packed, on average
_LOAD = 1.25  # sums that take as long as a load where loads are what there is most of
_ROW_SUM = 1.06  # of a sum over channels, in time: a row meets more filters
_LISTED = 14  # instructions that list the address of an output
_PART = 12  # instructions that store a vector in part
_INTERLEAVED = 4  # instructions that bring a vector of one phase among the others, and store it
_ADD = 4  # instructions that add the lanes of one sum, of several at once, and store it
_FEWEST = 4  # input channels that are worth a vector
_DOT_TAPS = 16  # the widest rows of dots that code is emitted for
_LANES = {"rows": "the width", "dots": "input channels"}
_UNSERVED = {
    "rows": "a width whose taps reach this far",
    "dots": "input channels that are not dense or fill no vectors, or a width of many taps or phases",
}


class Access(NamedTuple):
    """How the caller's arrays lie in memory, as far as a plan depends on it."""

    input_swapped: bool = False  # in foreign byte order
    filters_swapped: bool = False
    input_channels_dense: bool = True  # elements that differ by one channel follow each other
    output_channels_dense: bool = True
    output_width_dense: bool = False  # elements that differ by one column follow each other
    output_contiguous: bool = False  # in C order, from a cache line on

    @classmethod
    def of(cls, spec: Spec, input: Any, filters: Any, out: Any = None) -> Access:
        """The access to arrays, of which dtypes and strides are read; None is a new, contiguous output."""
        channel, width = (4, 3) if spec.data_format == "NDHWC" else (1, 4)
        if out is None:
            channels_dense, contiguous = spec.data_format == "NDHWC", True
            width_dense = not channels_dense or spec.out_channels == 1
        else:
            channels_dense = out.strides[channel] == out.itemsize
            width_dense = spec.output_size[2] <= 1 or out.strides[width] == out.itemsize
            contiguous = out.flags.c_contiguous and out.ctypes.data % _LINE == 0
        return cls(
            input_swapped=not input.dtype.isnative,
            filters_swapped=not filters.dtype.isnative,
            input_channels_dense=spec.in_channels <= 1
            or input.strides[channel] == input.dtype.itemsize,
            output_channels_dense=spec.out_channels <= 1 or channels_dense,
            output_width_dense=width_dense,
            output_contiguous=contiguous,
        )


class Choice(NamedTuple):
    """A kernel, the problem it computes (the one posed, or an equal one), and why it was chosen."""

    kernel: Channels | Dots | Filtering | Rows
    computed: Spec
    reason: str
    filtered: Filtered | None = None  # where the kernel is one of minimal filtering


def choose(
    spec: Spec,
    target: Target,
    access: Access,
    family: str | None = None,
    *,
    finite: bool = True,
    algorithm: str = "direct",
    bound: bool = False,
) -> Choice:
    """The kernel that counting instructions favours, or that of the family asked for."""
    direct = _direct(spec, target, access, family if family != "filtering" else None, finite=finite)
    if algorithm == "direct" or family not in (None, "filtering"):
        return direct.choice
    tile = replace(_channels(spec, target, access, depthwise=False), stream=False, prefetch=True)
    found = filtered(spec, target, tile, asked=algorithm == "fast")
    if found is None:
        if family == "filtering":
            raise ValueError("minimal filtering can't serve these channels, taps or groups")
        return direct.choice
    cost = found.cost * _FAST_COST + (0 if bound else found.filter_cost)
    unfit = algorithm == "auto" and (
        found.elements * tile.wide.bytes > POINT_BYTES[bound] or products(spec) < WORTH
    )
    if family != "filtering" and (not finite or unfit or cost > direct.cost):
        return direct.choice
    limit = (
        "; largest and mean error at most 4 times the direct sum's on even data"
        if algorithm == "auto"
        else ""
    )
    reason = (
        f"minimal filtering: {found.products:.3g} of {products(spec):.3g} multiplications, about "
        f"{cost:.3g} vector instructions, where the direct sum takes {direct.cost:.3g}{limit}"
    )
    return Choice(found.kernel, spec, reason, found)


class _Direct(NamedTuple):
    choice: Choice
    cost: float


def _direct(
    spec: Spec, target: Target, access: Access, family: str | None, *, finite: bool
) -> _Direct:
    """The direct sum, by the family that counting instructions favours."""
    computed = _rewritten(spec, access)
    channels = _channels(computed, target, access, depthwise=computed.groups < spec.groups)
    channels, one = _by_taps(computed, channels, _channels_cost(computed, channels))
    if family == "channels":
        return _Direct(Choice(channels, computed, "asked for"), one)
    if not finite:
        reason = "filters that are not finite must meet no padded lane"
        return _Direct(Choice(channels, computed, reason), one)
    others: dict[str, tuple[Dots | Rows, float]] = {}
    if (rows := _rows(spec, target, access)) is not None:
        others["rows"] = (rows, _rows_cost(spec, rows))
    if (dots := _dots(spec, target, access)) is not None:
        others["dots"] = (dots, _dots_cost(spec, dots))
    if family:
        if family not in others:
            raise ValueError(f"the family of {family} can't serve {_UNSERVED[family]}")
        kernel, cost = others[family]
        return _Direct(Choice(kernel, spec, "asked for"), cost)
    counts = {"output channels": one, **{_LANES[name]: cost for name, (_, cost) in others.items()}}
    counted = ", ".join(f"{cost:.3g} over {lanes}" for lanes, cost in counts.items())
    reason = f"vector instructions with lanes over each, about: {counted}"
    best, cost = min(others.values(), key=lambda found: found[1], default=(None, one))
    if best is None or one <= cost:
        reason += "; tap by tap, so that each filter is read once" if channels.by_taps else ""
        return _Direct(Choice(channels, computed, reason), one)
    return _Direct(Choice(best, spec, reason), cost)


def products(spec: Spec) -> int:
    """Multiplications that the definition asks for."""
    pairs = spec.batch * prod(axis.hits for axis in axes(spec))
    return pairs * spec.in_channels * (spec.out_channels // spec.groups)


def _rewritten(spec: Spec, access: Access) -> Spec:
    """An equal problem that fills more lanes over channels."""
    if spec.groups == spec.in_channels == spec.out_channels > 1:
        return replace(spec, groups=1, in_channels=1)
    return fold(spec) if access.output_contiguous else spec


# --- lanes over output channels -----------------------------------------------------------------
def _channels(spec: Spec, target: Target, access: Access, *, depthwise: bool) -> Channels:
    code = CODES[spec.dtype.name]
    wide = Element(code).wide
    channels = spec.out_channels // spec.groups
    lanes = target.lanes(wide.bytes)
    while lanes > 4 and channels <= lanes // 2:
        lanes //= 2
    vectors, tail = _block(-(-channels // lanes))
    narrow = code != wide.code
    # A single channel of a group is as good as dense; lanes that are groups are not.
    one_in, one_out = (
        (spec.in_channels == spec.groups, channels == 1) if not depthwise else (False, False)
    )
    packs = narrow or access.input_swapped or not (access.input_channels_dense or one_in)
    unpacks = narrow or not (access.output_channels_dense or one_out)
    return Channels(
        wide=wide,
        lanes=lanes,
        pixels=_tile_pixels(target, vectors, depthwise=depthwise),
        vectors=vectors,
        tail=tail,
        tail_pixels=_tile_pixels(target, tail, depthwise=depthwise) if tail else 0,
        unroll=1 if target.isa == "NEON" else 4,
        source=Element(code, access.input_swapped) if packs else None,
        destination=Element(code) if unpacks else None,
        stream=not unpacks
        and _streams(spec, target, access)
        and spec.out_channels * wide.bytes % _LINE == 0,
        depthwise=depthwise,
    )


def _block(vectors: int) -> tuple[int, int]:
    """Vectors of output channels in a block, and in the last one where it differs."""
    if vectors <= 3:
        return max(vectors, 1), 0
    return 2, 3 if vectors % 2 else 0


def _tile_pixels(target: Target, vectors: int, *, depthwise: bool) -> int:
    """Pixels in a tile: as many sums as fit beside a row of filters and what they meet."""
    if target.registers <= 16:
        beside = 3 * vectors if depthwise else vectors + 1
        return min((target.registers - beside) // vectors, 12)
    # LLVM gathers the elements to broadcast ahead of the sums where they take a load each.
    beside = (5 if target.isa == "NEON" else 2) * vectors + 2
    return min((target.registers - beside) // vectors, 14)


def _streams(spec: Spec, target: Target, access: Access) -> bool:
    """Whether to store past the caches: where they could not hold the result anyway."""
    size = prod(spec.output_shape) * spec.dtype.itemsize
    return access.output_contiguous and size > max(target.l3_bytes, ALIGNED_FROM)


def _channels_cost(spec: Spec, kernel: Channels) -> float:
    """Vector instructions, about: sums, what every run costs beside them, and moving slabs."""
    in_channels = spec.in_channels // spec.groups
    channels = spec.out_channels // spec.groups
    vectors = -(-channels // kernel.lanes)
    pixels = spec.batch * prod(axis.hits for axis in axes(spec)) * spec.groups
    sums: float = pixels * vectors * in_channels * (2 if kernel.depthwise else 1)
    sums *= max(1.0, _LOAD * (1 / kernel.vectors + 1 / kernel.pixels))
    joined = joined_taps(kernel, axes(spec)[2], in_channels, _JOINED)
    overhead = pixels * -(-vectors // kernel.vectors) * _RUN_COST / (kernel.pixels * joined)
    each = _LISTED + (_PART if channels % kernel.lanes else 0)
    listed = prod(spec.output_shape) / max(channels, 1) * each
    return sums + overhead + listed + _slabs(spec, kernel)


def _by_taps(spec: Spec, kernel: Channels, cost: float) -> tuple[Channels, float]:
    """The kernel and its cost, tap by tap if that costs less: where filters come from afar.

    Box by box, filters are read once a box, and once a tile where those of a block outgrow the cache.
    """
    shape, item = axes(spec), kernel.wide.bytes
    in_channels = spec.in_channels // spec.groups
    taps = prod(spec.kernel)
    if kernel.depthwise or taps == 1 or spec.groups > 1:
        return kernel, cost
    vectors = -(-spec.out_channels // kernel.lanes)
    row = in_channels * vectors  # vectors of filters, a tap
    if taps * row * kernel.lanes * item <= _NEAR:
        return kernel, cost
    hits = spec.batch * prod(axis.hits for axis in shape)
    most = prod(max((len(p.taps) for p in axis.phases), default=0) for axis in shape)
    boxes = prod(
        sum(s.tap_end - s.tap_first for s in axis.segments(0, axis.output)) for axis in shape
    )
    if most * in_channels * kernel.block_channels * item > _NEAR // 2:
        boxes = max(boxes, hits // kernel.pixels)
    blocks = -(-vectors // kernel.vectors)
    added = hits * blocks * (_RUN_COST / kernel.pixels + 2 * kernel.vectors)
    by_taps = cost + added + _AFAR * taps * row
    if by_taps >= cost + _AFAR * boxes * row:
        return kernel, cost
    return replace(kernel, by_taps=True, stream=False), by_taps


def joined_taps(
    kernel: Channels | Dots | Filtering | Rows, width: Axis, channels: int, most: int
) -> int:
    """Taps of the width, of up to `most` products, that are summed as one run of input channels.

    Those of a convolution whose inputs follow each other, as their filters do.
    """
    if kernel.rows or kernel.depthwise or not width.forward or width.dilation > 1:
        return 1
    return max(min(width.kernel, most // max(channels, 1)), 1)


# --- lanes over the width -----------------------------------------------------------------------
def _rows(spec: Spec, target: Target, access: Access) -> Rows | None:
    code = CODES[spec.dtype.name]
    wide = Element(code).wide
    kernel, stride, dilation = spec.kernel[2], spec.strides[2], spec.dilations[2]
    columns = -(-spec.output_size[2] // (1 if spec.forward else stride))
    reach = (kernel - 1) * dilation // stride + 1
    if kernel > _ROW_TAPS or stride > _ROW_STRIDE or reach > max(columns, _ROW_TAPS):
        return None
    lanes = target.lanes(wide.bytes)
    while lanes > 4 and columns <= lanes // 2:
        lanes //= 2
    channels = spec.out_channels // spec.groups
    unpacks = not access.output_width_dense
    shape = Rows(
        wide=wide,
        lanes=lanes,
        vectors=1,
        channels=1,
        tail=0,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        pad=spec.pad_before[2] % stride,
        forward=spec.forward,
        single=spec.in_channels == spec.groups,
        source=Element(code, access.input_swapped),
        result=wide if unpacks else Element(code),
        destination=Element(code) if unpacks else None,
        stream=not unpacks
        and _streams(spec, target, access)
        and spec.output_size[2] * spec.dtype.itemsize % _LINE == 0,
    )
    several, vectors = range(1, min(max(channels, 1), 4) + 1), -(-columns // lanes)
    if (lines := _lines(spec)) > 1:
        # LLVM gathers the filters to broadcast ahead of the sums where they take a load each.
        spare = 2 * lines if target.isa == "NEON" else 0
        found, width = _row_tile(shape, target.registers - spare, [lines], vectors)
        if found == lines:
            return replace(shape, vectors=width, lines=lines)
    block, width = _row_tile(shape, target.registers, several, vectors)
    return replace(shape, vectors=width, channels=block, tail=channels % block)


def _lines(spec: Spec) -> int:
    """Output rows that read the same inputs: one a phase, where the height's kernel is whole strides."""
    kernel, stride = spec.kernel[1], spec.strides[1]
    alike = kernel % stride == 0 and spec.dilations[1] == 1 and not spec.forward
    return stride if alike and stride <= spec.output_size[1] and spec.out_channels == 1 else 1


def _row_tile(shape: Rows, registers: int, several: Sequence[int], vectors: int) -> tuple[int, int]:
    """Output channels or rows, and vectors of a phase, in a tile: the fewest loads and padded vectors."""
    shared = _loads(shape) / shape.kernel  # inputs loaded, a tap

    def waste(tile: tuple[int, int]) -> tuple[float, int]:
        block, width = tile
        padded = -(-vectors // width) * width / max(vectors, 1)
        return padded * (1 + shared / block + 1 / width), -block * width

    # One for a filter.
    room = registers - 1
    tiles = [
        (block, width)
        for block in several
        for width in range(1, min(vectors, 8) + 1)
        if shape.phases * block * width + width <= room
    ]
    return min(tiles, key=waste, default=(1, 1))


def _loads(kernel: Rows) -> int:
    """Vectors of one input channel that a tile of rows loads, for each vector of a phase."""
    return len({(tap.part, tap.shift) for tap in kernel.taps})


def _rows_cost(spec: Spec, kernel: Rows) -> float:
    depth, height, _ = axes(spec)
    in_channels = spec.in_channels // spec.groups
    channels = spec.out_channels // spec.groups
    columns = -(-spec.output_size[2] // kernel.phases)
    tiles = -(-columns // kernel.columns)
    vectors = tiles * kernel.vectors
    lines = spec.batch * depth.hits * height.hits * spec.groups
    sums = lines * in_channels * channels * spec.kernel[2] * vectors
    shared = _loads(kernel) / kernel.lines
    # A vector of input is loaded once a shift, a filter once a tile.
    blocks = -(-channels // kernel.channels)
    loads = lines * in_channels * (blocks * shared * vectors + channels * spec.kernel[2] * tiles)
    stored = spec.batch * spec.out_channels * prod(spec.output_size[:2])
    stored *= tiles * kernel.vectors * kernel.phases * _INTERLEAVED
    runs = lines * blocks * tiles * _RUN_COST / kernel.lines
    return max(_ROW_SUM * sums, _LOAD * loads) + runs + stored + _slabs(spec, kernel)


# --- lanes over input channels ------------------------------------------------------------------
def _dots(spec: Spec, target: Target, access: Access) -> Dots | None:
    code = CODES[spec.dtype.name]
    wide = Element(code).wide
    kernel, stride, dilation = spec.kernel[2], spec.strides[2], spec.dilations[2]
    channels, lanes = spec.in_channels // spec.groups, target.lanes(wide.bytes)
    while lanes > _FEWEST and channels % lanes:
        lanes //= 2
    sums = target.registers // 2
    phases = 1 if spec.forward else stride
    dense = access.input_channels_dense and channels >= lanes and channels % lanes == 0
    if not dense or kernel > _DOT_TAPS or phases > sums:
        return None
    unpacks = not access.output_width_dense
    return Dots(
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        pad=spec.pad_before[2] % stride,
        forward=spec.forward,
        wide=wide,
        lanes=lanes,
        columns=max(round(sums / phases), 1),
        input=Element(code, access.input_swapped),
        result=wide if unpacks else Element(code),
        destination=Element(code) if unpacks else None,
    )


def _dots_cost(spec: Spec, kernel: Dots) -> float:
    """Vector instructions, about: sums or loads, what runs cost beside them, and the lanes' addition."""
    depth, height, _ = axes(spec)
    tiles = -(-spec.output_size[2] // (kernel.columns * kernel.phases))
    vectors = spec.in_channels // spec.groups // kernel.lanes
    lines = spec.batch * depth.hits * height.hits * spec.out_channels
    sums = kernel.kernel * kernel.columns
    loads = len(kernel.meetings) + kernel.kernel
    rows = spec.batch * spec.output_size[0] * spec.output_size[1] * spec.out_channels
    added = rows * tiles * kernel.columns * kernel.phases * _ADD
    runs = lines * tiles * _RUN_COST
    return lines * tiles * vectors * max(sums, _LOAD * loads) + runs + added + _slabs(spec, kernel)


def _slabs(spec: Spec, kernel: Channels | Dots | Rows) -> float:
    """Instructions that pack inputs (some of them again, as halo) and unpack results."""
    cost = 0.0
    sides = (
        (kernel.source, spec.input_size, spec.in_channels, _MOVE, _HALO),
        (kernel.destination, spec.output_size, spec.out_channels, _BACK, 1.0),
    )
    for moved, size, channels, move, times in sides:
        # Channels of one group, where they are the dense axis, may be too few for a vector.
        few = spec.data_format == "NDHWC" and kernel.rows and channels // spec.groups < kernel.lanes
        each = move / kernel.lanes
        if few and channels > 1:
            each = _PICK if channels <= _SIDE_BY_SIDE else _ALONE
        cost += each * times * spec.batch * prod(size) * channels if moved else 0
    return cost
