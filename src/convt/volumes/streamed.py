"""The transposed convolution of a stored volume, streamed to a file: what `apply` does for large ones.

A block is computed as `convt.blocks` does, so a streamed result has the bits of one computed in memory.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convt.blocks import Blocks
from convt.volumes.affine import index_map
from convt.volumes.regions import Region, sizes_of
from convt.volumes.stores import Sink, Source, create_sink, round_to
from convt.volumes.stream import Progress, stream

__all__ = ["TransposeBlocks", "stream_transposed"]


@dataclass(frozen=True, eq=False)
class TransposeBlocks:
    """Blocks of a transposed convolution, from a source's voxels to a sink's."""

    blocks: Blocks
    stored: np.dtype[Any]  # of the source
    result: np.dtype[Any]  # of the sink: whole numbers are rounded and clipped

    @property
    def signature(self) -> str:
        """The problem, with a digest of filters and bias."""
        digest = hashlib.sha256(self.blocks.filters.tobytes())
        if self.blocks.bias is not None:
            digest.update(self.blocks.bias.tobytes())
        return f"{self.blocks.spec} {self.blocks.algorithm} {self.result} {digest.hexdigest()}"

    @property
    def resident(self) -> int:
        return self.blocks.resident

    def input_region(self, region: Region) -> Region:
        return (*self.blocks.reads(region[:4]), (0, self.blocks.spec.in_channels))

    def bytes(self, region: Region) -> int:
        inputs, outputs = prod(sizes_of(self.input_region(region))), prod(sizes_of(region))
        item = self.blocks.spec.dtype.itemsize
        size = self.blocks.workspace(region[:4]) + inputs * (2 * self.stored.itemsize + item)
        size += 2 * outputs * self.result.itemsize
        return size + (outputs * (item + 4) if self.result != self.blocks.spec.dtype else 0)

    def __call__(self, block: NDArray[Any], region: Region) -> NDArray[Any]:
        first = self.blocks.spec.data_format == "NCDHW"
        x = np.moveaxis(block, 4, 1) if first else block
        y = self.blocks.compute(x, region[:4])
        return round_to(np.moveaxis(y, 1, 4) if first else y, self.result)


def stream_transposed(
    source: Source,
    output: str | os.PathLike[str],
    blocks: Blocks,
    *,
    keep_dtype: bool,
    memory: int | str | None,
    threads: int | None,
    scheduler: str | None,
    resume: bool,
    force: bool,
    progress: Progress | None,
) -> Sink:
    """Compute a volume from `source` and write it to `output`, which is there when it is complete."""
    spec = blocks.spec
    to_input = index_map(
        kernel=spec.kernel,
        strides=spec.strides,
        dilations=spec.dilations,
        pad_before=spec.pad_before,
    )
    sink = create_sink(
        output,
        shape=(spec.batch, *spec.output_size, spec.out_channels),
        dtype=source.dtype if keep_dtype else spec.dtype,
        like=source,
        axes=_axes(source.axes, spec.out_channels, spec.data_format),
        to_input=to_input,
        force=force,
        resume=resume,
    )
    compute = TransposeBlocks(blocks, source.dtype, sink.dtype)
    stream(
        source,
        sink,
        compute,
        memory=memory,
        threads=threads,
        scheduler=scheduler,
        resume=resume,
        progress=progress,
    )
    return sink


def _axes(axes: str, channels: int, layout: str) -> str:
    """The axes of the result: those of the source, and one for channels where it gets some."""
    if "c" in axes or channels == 1:
        return axes
    return axes.replace("d", "cd") if layout == "NCDHW" else f"{axes}c"
