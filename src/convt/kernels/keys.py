"""What kernels there are: frozen keys, each spelling everything that its code depends on.

A planner makes keys, ``jit`` compiles what ``convt.kernels.emit`` makes of them; this file knows no
instruction, so that planning loads no compiler.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Protocol

__all__ = [
    "Channels",
    "Dots",
    "Element",
    "FilterGradient",
    "Filtering",
    "Kernel",
    "PackFilters",
    "Rows",
    "TransformFilters",
    "WidthTap",
]

_BYTES = {"f16": 2, "bf16": 2, "f32": 4, "f64": 8}


@dataclass(frozen=True, slots=True)
class Element:
    """One element type in memory: "f16", "bf16", "f32" or "f64", in native byte order or swapped."""

    code: str
    swapped: bool = False

    @property
    def bytes(self) -> int:
        return _BYTES[self.code]

    @property
    def wide(self) -> Element:
        """The type that sums are kept in."""
        return Element("f64" if self.code == "f64" else "f32")

    @property
    def name(self) -> str:
        return self.code + ("x" if self.swapped else "")


@dataclass(frozen=True, slots=True)
class Channels:
    """Lanes over output channels; see kernels/channels.py."""

    wide: Element  # element type of the sums
    lanes: int  # output channels in a vector
    pixels: int  # pixels in a tile
    vectors: int  # vectors of output channels in a tile
    tail: int  # vectors in the last block of output channels; 0: it is like the others
    tail_pixels: int  # pixels in a tile of that block
    unroll: int  # input channels an iteration of a full tile
    source: Element | None = None  # element type of a packed input; None: read in place
    destination: Element | None = None  # element type of an unpacked output; None: written in place
    stream: bool = False  # store past the caches
    depthwise: bool = False  # lanes are groups of one channel in and one out
    prefetch: bool = False  # bring the next block's filters near: few pixels use each
    by_taps: bool = False  # tap by tap, added to the output, so that each filter is read once

    emitter: ClassVar[str] = "convt.kernels.channels"
    family: ClassVar[str] = "channels"
    rows: ClassVar[bool] = False  # slabs are dense along the width, not along the channels

    @property
    def block_channels(self) -> int:
        return self.lanes * self.vectors

    def heights(self, vectors: int) -> tuple[int, ...]:
        """Heights of tiles of `vectors`, largest first: rests after whole tiles use the others."""
        most = self.pixels if vectors == self.vectors else self.tail_pixels
        return tuple(sorted({most, -(-most // 2), min(most, 2), 1}, reverse=True))

    @property
    def name(self) -> str:
        tile = f"{self.pixels}x{self.block_channels}"
        tail = f"t{self.tail_pixels}x{self.tail * self.lanes}" if self.tail else ""
        read = f"_from_{self.source.name}" if self.source else ""
        write = f"_to_{self.destination.name}" if self.destination else ""
        stream = "_stream" if self.stream else ""
        family = "depthwise" if self.depthwise else "channels"
        stream += ("_ahead" if self.prefetch else "") + ("_by_taps" if self.by_taps else "")
        return f"{self.wide.name}_{family}_{tile}{tail}_l{self.lanes}u{self.unroll}{read}{write}{stream}"


@dataclass(frozen=True, slots=True)
class WidthTap:
    """A kernel column as a tile sees it: which phase it adds to, and from which input column."""

    index: int
    phase: int  # of the outputs stride * j + phase
    shift: int  # it reads the input at j + shift
    part: int = 0  # of the inputs stride * j + part, where a convolution strides over them


@lru_cache(maxsize=256)
def _taps(kernel: int, stride: int, dilation: int, pad: int, forward: bool) -> tuple[WidthTap, ...]:
    found = []
    for index in range(kernel):
        if forward:
            shift, part = divmod(dilation * index - pad, stride)
            found.append(WidthTap(index, 0, shift, part))
            continue
        phase = (dilation * index - pad) % stride
        shift = (phase + pad - dilation * index) // stride
        found.append(WidthTap(index, phase, shift))
    return tuple(sorted(found, key=lambda tap: (tap.part, tap.shift, tap.phase)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Width:
    """The width's geometry, which the code of a family is laid out by."""

    kernel: int  # taps of the width
    stride: int
    dilation: int
    pad: int  # the width's padding before, modulo the stride
    forward: bool = False  # a convolution: one phase of outputs, and parts of the input

    by_taps: ClassVar[bool] = False
    depthwise: ClassVar[bool] = False
    rows: ClassVar[bool] = True

    @property
    def phases(self) -> int:
        """Phases of the outputs, which are interleaved on store."""
        return 1 if self.forward else self.stride

    @property
    def parts(self) -> int:
        """Parts of the input, by the remainder of the column."""
        return self.stride if self.forward else 1

    @property
    def taps(self) -> tuple[WidthTap, ...]:
        """The taps of the width, by part and shift."""
        return _taps(self.kernel, self.stride, self.dilation, self.pad, self.forward)

    @property
    def margin(self) -> int:
        """Columns before those at shift 0 that are read."""
        return -min(tap.shift for tap in self.taps)

    def reads(self, columns: int, step: int) -> int:
        """Columns read, of each part, by tiles of `step` that serve `columns` of each phase."""
        tiles = -(-columns // step)
        return self.margin + tiles * step + max(tap.shift for tap in self.taps)

    @property
    def _width_name(self) -> str:
        forward = "_forward" if self.forward else ""
        return f"k{self.kernel}s{self.stride}d{self.dilation}p{self.pad}{forward}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows(_Width):
    """Lanes over the width; see kernels/rows.py."""

    wide: Element  # element type of the sums
    lanes: int  # columns in a vector
    vectors: int  # vectors of columns of one phase in a tile
    channels: int  # output channels in a tile
    tail: int  # output channels in the last block; 0: it is like the others
    lines: int = 1  # rows in a tile: one of every phase of the height, which read the same inputs
    single: bool = False  # one input channel, in each group
    source: Element  # element type of the caller's input
    result: Element  # element type that tiles store: the caller's in place, `wide` in a slab
    destination: Element | None = None  # element type of an unpacked output; None: written in place
    stream: bool = False  # store past the caches

    emitter: ClassVar[str] = "convt.kernels.rows"
    family: ClassVar[str] = "rows"

    @property
    def block_channels(self) -> int:
        return self.channels

    @property
    def columns(self) -> int:
        """Columns of one phase in a tile."""
        return self.lanes * self.vectors

    @property
    def name(self) -> str:
        tail = f"t{self.tail}" if self.tail else ""
        lines = f"{self.lines}x" if self.lines > 1 else ""
        tile = f"{lines}{self.channels}{tail}x{self.columns}_l{self.lanes}"
        tile += "_single" if self.single else ""
        write = f"_to_{self.destination.name}" if self.destination else ""
        stream = "_stream" if self.stream else ""
        moved = f"from_{self.source.name}_as_{self.result.name}{write}"
        return f"{self.wide.name}_rows_{tile}_{self._width_name}_{moved}{stream}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dots(_Width):
    """Lanes over input channels; see kernels/dots.py."""

    wide: Element  # element type of the sums
    lanes: int  # input channels in a vector
    columns: int  # columns of one phase in a tile
    input: Element  # element type of the caller's input, which is read in place
    result: Element  # element type that tiles store: the caller's in place, `wide` in a slab
    destination: Element | None = None  # element type of an unpacked output; None: written in place

    emitter: ClassVar[str] = "convt.kernels.dots"
    family: ClassVar[str] = "dots"
    source: ClassVar[None] = None
    block_channels: ClassVar[int] = 1
    tail: ClassVar[int] = 0
    stream: ClassVar[bool] = False

    @property
    def meetings(self) -> dict[int, list[tuple[WidthTap, int]]]:
        """Input columns from a tile's first on, with the tap and the place in the tile of each product."""
        found: dict[int, list[tuple[WidthTap, int]]] = {}
        for place in range(self.columns):
            for tap in self.taps:
                column = self.parts * (self.margin + place + tap.shift) + tap.part
                found.setdefault(column, []).append((tap, place))
        return dict(sorted(found.items()))

    @property
    def name(self) -> str:
        write = f"_to_{self.destination.name}" if self.destination else ""
        moved = f"from_{self.input.name}_as_{self.result.name}{write}"
        tile = f"{self.columns}_l{self.lanes}"
        return f"{self.wide.name}_dots_{tile}_{self._width_name}_{moved}"


@dataclass(frozen=True, slots=True)
class PackFilters:
    """Filters in the order that a family reads them; see kernels/filters.py."""

    wide: Element  # element type of the packed filters
    source: Element  # element type of the caller's filters
    block: int  # output channels in a block
    tail: int  # output channels in the last block of a group; 0: it is like the others
    by_rows: bool = False  # the taps of the width lie within an input channel

    emitter: ClassVar[str] = "convt.kernels.filters"

    @property
    def name(self) -> str:
        order = "r" if self.by_rows else ""
        return f"{self.wide.name}_filters_b{self.block}t{self.tail}{order}_from_{self.source.name}"


@dataclass(frozen=True, slots=True)
class Filtering:
    """Minimal filtering; see kernels/filtering.py."""

    products: Channels  # how products of points are summed, and how the arrays are read and written
    depth: tuple[tuple[int, int], ...]  # F(m, r) that phases of the axis use: outputs, taps
    height: tuple[tuple[int, int], ...]
    width: tuple[tuple[int, int], ...]
    accumulate: bool = False  # outputs are sums over parts of the input, instead of phases

    emitter: ClassVar[str] = "convt.kernels.filtering"
    by_taps: ClassVar[bool] = False
    family: ClassVar[str] = "filtering"
    rows: ClassVar[bool] = False
    depthwise: ClassVar[bool] = False

    @property
    def wide(self) -> Element:
        """Element type of the sums."""
        return self.products.wide

    @property
    def source(self) -> Element | None:
        """Element type of a packed input; None: read in place."""
        return self.products.source

    @property
    def destination(self) -> Element | None:
        """Element type of an unpacked output; None: written in place."""
        return self.products.destination

    @property
    def lanes(self) -> int:
        """Channels in a vector."""
        return self.products.lanes

    @property
    def tail(self) -> int:
        """Vectors in the last block of output channels; 0: it is like the others."""
        return self.products.tail

    @property
    def block_channels(self) -> int:
        """Output channels in a block."""
        return self.products.block_channels

    @property
    def name(self) -> str:
        axes = "_".join(
            axis + "".join(f"f{m}{r}" for m, r in kinds)
            for axis, kinds in zip("dhw", (self.depth, self.height, self.width), strict=True)
        )
        family = "filtering_parts" if self.accumulate else "filtering"
        return self.products.name.replace("channels", f"{family}_{axes}")


@dataclass(frozen=True, slots=True)
class TransformFilters:
    """Packed filters taken to the points of minimal filtering; see kernels/filtering.py."""

    kernel: Filtering

    emitter: ClassVar[str] = "convt.kernels.points"

    @property
    def name(self) -> str:
        return f"{self.kernel.name}_filters"


@dataclass(frozen=True, slots=True)
class FilterGradient:
    """The gradient in the filters; see kernels/gradient.py."""

    wide: Element  # element type of the sums
    lanes: int  # elements in a vector
    rows: int  # channels of one side in a tile
    vectors: int  # vectors of the other side's channels in a tile
    tail: int  # such vectors in the last panel; 0: it is like the others
    along: str  # what lanes are: "channels", "groups" (of one channel in and one out), "positions"
    swapped: bool  # lanes are output channels
    folded: bool  # rows are the output channels of every tap of the width
    source: Element  # element type of the caller's input
    gradient: Element  # element type of the caller's gradient in the output
    result: Element  # element type of the gradient in the filters

    emitter: ClassVar[str] = "convt.kernels.gradient"

    @property
    def panel(self) -> int:
        """Channels across a tile."""
        return self.vectors * (1 if self.along == "positions" else self.lanes)

    @property
    def heights(self) -> tuple[int, ...]:
        """Rows of tiles, largest first: what is left after whole tiles uses the others."""
        if self.along == "positions" or self.folded:  # no row to spare beyond the last
            return tuple(range(self.rows, 0, -1))
        most = self.rows
        rests = {most, most - 2, -(-most // 2), min(most, 2), 1}
        return tuple(sorted((rows for rows in rests if rows > 0), reverse=True))

    @property
    def name(self) -> str:
        tail = f"t{self.tail}" if self.tail else ""
        sides = "out" if self.swapped else "folded" if self.folded else "in"
        tile = f"{self.rows}x{self.vectors}{tail}_l{self.lanes}_{self.along}_{sides}"
        moved = f"from_{self.source.name}_{self.gradient.name}_to_{self.result.name}"
        return f"{self.wide.name}_gradient_{tile}_{moved}"


class Kernel(Protocol):
    """What can be compiled."""

    emitter: ClassVar[str]  # the module whose ``emit(kernel, target)`` makes its text

    @property
    def name(self) -> str:
        """The key, spelt out."""
        ...
