"""When minimal filtering serves a problem, and by which F(m, r) on each axis.

Pure. Automatic transforms are those whose rounding error is bounded: in float32 the largest and the root
mean square error over a result are at most four times the direct sum's, measured by
``tests/test_accuracy.py`` case by case on data of even size, on average where sizes range widely. Larger
tiles save more products and lose more accuracy; they are used only where speed is asked for by name.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise, product
from math import lcm, prod
from typing import NamedTuple

from convt.geometry import Axis, Phase, axes
from convt.kernels.keys import Channels, Filtering
from convt.spec import Spec
from convt.target import Target
from convt.transforms import transform

__all__ = ["Filtered", "filtered"]

Kind = tuple[int, int]  # F(m, r): outputs of a tile, taps
_AUTOMATIC: dict[int, tuple[int, ...]] = {1: (1,), 2: (2, 3), 3: (2,)}
_ASKED: dict[int, tuple[int, ...]] = {1: (1,), 2: (2, 3, 4), 3: (2, 3, 4), 4: (2, 3)}
_MOVE = 6  # instructions a vector spends on its way to a point, with its share of additions
_TILE = 20  # instructions a tile spends on a point beside that
_LOAD = 1.5  # instructions that wait for a vector of filters from beyond the second-level cache
_CACHE = 1.0  # of the second-level cache, for a block of tiles at the points


class Filtered(NamedTuple):
    """How a problem is computed by minimal filtering."""

    kernel: Filtering
    kinds: tuple[tuple[Kind, ...], ...]  # for each axis, that of each phase
    bases: tuple[int, ...]  # elements before the transformed filters of each phase
    elements: int  # transformed filters
    points: int  # of the phase that has the most
    tile_block: int  # tiles that are at the points together
    units: tuple[int, ...]  # outputs of each axis that hold whole tiles of every phase
    products: int  # multiplications at the points
    cost: float  # vector instructions, about
    filter_cost: float  # the same for transforming the filters
    afar: bool  # the transformed filters of a phase come from beyond the caches


@lru_cache(maxsize=512)
def filtered(spec: Spec, target: Target, products: Channels, *, asked: bool) -> Filtered | None:
    """Minimal filtering of `spec`, its sums by `products`; None where it can't serve."""
    shape = axes(spec)
    lanes = products.lanes
    if spec.groups > 1 or products.depthwise or min(spec.in_channels, spec.out_channels) < lanes:
        return None
    choices = _ASKED if asked else _AUTOMATIC
    if 0 in spec.output_shape or not all(
        _dense(phase, choices) for axis in shape for phase in axis.correlations
    ):
        return None
    kinds = tuple(_kinds(axis, choices) for axis in shape)
    if not all(kinds):
        return None
    found = [tuple(sorted(set(axis))) for axis in kinds]
    if all(m == 1 for axis in found for m, _ in axis):
        return None
    parts = spec.forward and any(len(axis) > 1 for axis in kinds)
    kernel = Filtering(products, found[0], found[1], found[2], parts)
    packed = _padded(spec.out_channels, lanes)
    channels = _padded(spec.in_channels, lanes)
    points, bases, tiles = [], [0], []
    for phases in product(
        *(zip(a.correlations, k, strict=True) for a, k in zip(shape, kinds, strict=True))
    ):
        points.append(prod(m + r - 1 for _, (m, r) in phases))
        counts = zip(shape, phases, strict=True)
        tiles.append(spec.batch * prod(-(-a.outputs(p) // m) for a, (p, (m, _)) in counts))
        bases.append(bases[-1] + points[-1] * spec.in_channels * packed)
    work = sum(p * t for p, t in zip(points, tiles, strict=True))
    most = max(points)
    afar = most * spec.in_channels * packed * products.wide.bytes > target.l3_bytes // 2
    near = target.l3_bytes // 2 if afar else int(target.l2_bytes * _CACHE)
    room = near // (most * (channels + packed) * products.wide.bytes)
    block = max(room // products.pixels, 1) * products.pixels
    # Filters at the points outgrow the second-level cache: every block of tiles loads them anew.
    loads = sum(p * -(-t // block) for p, t in zip(points, tiles, strict=True))
    each = spec.in_channels * packed / lanes
    return Filtered(
        kernel=kernel,
        kinds=kinds,
        bases=tuple(bases[:-1]),
        elements=bases[-1],
        points=most,
        tile_block=block,
        units=tuple(a.pitch * lcm(*(m for m, _ in k)) for a, k in zip(shape, kinds, strict=True)),
        products=work * spec.in_channels * spec.out_channels,
        cost=(work + _LOAD * loads) * each + work * (_TILE + _MOVE * (channels + packed) / lanes),
        filter_cost=3 * bases[-1] / lanes,
        afar=afar,
    )


def _dense(phase: Phase, choices: dict[int, tuple[int, ...]]) -> bool:
    """Whether the phase's taps read neighbouring inputs, as many as there are transforms for."""
    shifts = [tap.shift for tap in phase.taps]
    steps = {b - a for a, b in pairwise(shifts)}
    return len(shifts) in choices and steps <= {1}


def _kinds(axis: Axis, choices: dict[int, tuple[int, ...]]) -> tuple[Kind, ...]:
    """The transform of each phase; () where there is none.

    Of those that take the fewest products over the axis, the smallest. Parts of an input add to the same
    outputs, so their tiles have one size; a single tap then takes a product for each output of a tile.
    """
    taps = [len(phase.taps) for phase in axis.correlations]
    if not axis.forward:
        return tuple(
            (_best(choices[r], [r], axis.outputs(phase)), r)
            for r, phase in zip(taps, axis.correlations, strict=True)
        )
    dense = [set(choices[r]) for r in taps if r > 1]
    tiles = sorted(set.intersection(*dense)) if dense else [1]
    if not tiles:
        return ()
    # Measured: where parts differ, larger tiles save too little for the code that they take.
    m = _best(tuple(tiles), taps, axis.output) if len(set(taps)) == 1 else tiles[0]
    return tuple((m, r) for r in taps)


def _best(tiles: tuple[int, ...], taps: list[int], outputs: int) -> int:
    def products(m: int) -> int:
        return -(-outputs // m) * sum(transform(m, r).points for r in taps)

    return min(tiles, key=products)


def _padded(channels: int, lanes: int) -> int:
    return -(-channels // lanes) * lanes
