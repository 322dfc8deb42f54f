"""A stored volume brought up and streamed to a file: what `upsample` does with an output."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convt.memory import empty_output
from convt.volumes.affine import index_map
from convt.volumes.interpolate import Interpolation
from convt.volumes.regions import Five, Region, sizes_of
from convt.volumes.stores import Sink, Source, create_sink
from convt.volumes.stream import Progress, stream

__all__ = ["UpsampleBlocks", "stream_upsampled", "to_input"]


@dataclass(frozen=True, eq=False)
class UpsampleBlocks:
    """Blocks of an upsampled volume, from a source's voxels to a sink's."""

    interpolation: Interpolation
    size: Five  # of the source
    stored: np.dtype[Any]  # of the source
    result: np.dtype[Any]  # of the sink: whole numbers are rounded and clipped

    @property
    def signature(self) -> str:
        return f"{self.interpolation} {self.stored} {self.result}"

    @property
    def resident(self) -> int:
        return 0

    def input_region(self, region: Region) -> Region:
        n, *space, c = region
        d, h, w = self.interpolation.reads(space, self.size[1:4])
        return n, d, h, w, c

    def bytes(self, region: Region) -> int:
        inputs, outputs = prod(sizes_of(self.input_region(region))), prod(sizes_of(region))
        wide = self.interpolation.computed_in(self.stored).itemsize
        # Passes hold a block before and after an axis; sinks may copy what they write.
        return inputs * (2 * self.stored.itemsize + 2 * wide) + outputs * (
            2 * wide + 3 * self.result.itemsize
        )

    def __call__(self, block: NDArray[Any], region: Region) -> NDArray[Any]:
        found = empty_output(sizes_of(region), self.result)
        for entry, place in zip(block, found, strict=True):
            self.interpolation.fill(place, entry, region[1:4], self.size[1:4], threads=1)
        return found


def to_input(interpolation: Interpolation) -> NDArray[np.float64]:
    """Matrix from voxel indices of the result to those of the volume."""
    factors = interpolation.factors
    none, one = (0, 0, 0), (1, 1, 1)
    return index_map(kernel=factors, strides=factors, dilations=one, pad_before=none)


def stream_upsampled(
    source: Source,
    output: str | os.PathLike[str],
    interpolation: Interpolation,
    dtype: np.dtype[Any],
    *,
    memory: int | str | None,
    threads: int | None,
    scheduler: str | None,
    resume: bool,
    force: bool,
    progress: Progress | None,
) -> Sink:
    """Bring the volume of `source` up, and write it as `dtype` to `output`, there when it is complete."""
    n, *size, c = source.shape
    sizes = [s * f for s, f in zip(size, interpolation.factors, strict=True)]
    sink = create_sink(
        output,
        shape=(n, *sizes, c),
        dtype=dtype,
        like=source,
        to_input=to_input(interpolation),
        force=force,
        resume=resume,
    )
    stream(
        source,
        sink,
        UpsampleBlocks(interpolation, source.shape, source.dtype, sink.dtype),
        memory=memory,
        threads=threads,
        scheduler=scheduler,
        resume=resume,
        progress=progress,
    )
    return sink
