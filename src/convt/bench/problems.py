"""The problems that are measured, and the data they are measured on.

A problem's data depend on its name alone, so that every process makes the same. Variants of a problem in
another layout or element type hold the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any
from zlib import crc32

import ml_dtypes  # registers "bfloat16" as the name of a dtype
import numpy as np
import numpy.typing as npt

from convt.geometry import axes
from convt.spec import Spec, make_spec

__all__ = ["PROBLEMS", "QUICK", "Problem", "make_data", "make_gradient", "select"]

Array = npt.NDArray[Any]
Triple = tuple[int, int, int]

del ml_dtypes


@dataclass(frozen=True, slots=True)
class Problem:
    """One transposed convolution to measure."""

    name: str
    in_channels: int
    out_channels: int
    size: Triple  # of the input: depth, height, width
    kernel: Triple
    strides: Triple
    padding: str = "SAME"
    batch: int = 1
    output: Triple | None = None  # None: the size that `padding` gives
    data_format: str = "NDHWC"
    dtype: str = "float32"

    @property
    def spec(self) -> Spec:
        """The problem with everything worked out."""
        sizes = (*self.size, self.in_channels)
        outputs = (*(self.output or (-1, -1, -1)), self.out_channels)
        if self.data_format == "NCDHW":
            sizes, outputs = sizes[-1:] + sizes[:-1], outputs[-1:] + outputs[:-1]
        return make_spec(
            input_shape=(self.batch, *sizes),
            input_dtype=np.dtype(self.dtype),
            filters_shape=(*self.kernel, self.out_channels, self.in_channels),
            filters_dtype=np.dtype(self.dtype),
            output_shape=(self.batch, *outputs),
            strides=self.strides,
            padding=self.padding,
            data_format=self.data_format,
            dilations=None,
        )

    @property
    def base(self) -> str:
        """The name that variants in other layouts and element types share."""
        return self.name.split("@")[0]

    @property
    def title(self) -> str:
        """What is computed: ``k4 s2, 4 x 16^3, 128 -> 64``."""
        batch = f"{self.batch} x " if self.batch > 1 else ""
        kernel, strides = _short(self.kernel, ","), _short(self.strides, ",")
        size, channels = _short(self.size, " x "), f"{self.in_channels} -> {self.out_channels}"
        return f"k{kernel} s{strides}, {batch}{size}, {channels}"

    @property
    def flops(self) -> int:
        """Multiplications and additions of the definition."""
        spec = self.spec
        return (
            2 * self.batch * prod(a.hits for a in axes(spec)) * self.in_channels * self.out_channels
        )

    @property
    def bytes(self) -> int:
        """Input, filters and output, each counted once."""
        spec = self.spec
        shapes = (spec.input_shape, spec.filters_shape, spec.output_shape)
        return sum(map(prod, shapes)) * spec.dtype.itemsize

    @property
    def rich(self) -> bool:
        """Whether there are many channels on both sides."""
        return min(self.in_channels, self.out_channels) >= 32


def _short(sizes: Triple, between: str) -> str:
    if len(set(sizes)) > 1:
        return between.join(map(str, sizes))
    return f"{sizes[0]}^3" if between == " x " else str(sizes[0])


def _cube(size: int) -> Triple:
    return (size, size, size)


def _problem(
    name: str, channels: tuple[int, int], size: Any, kernel: Any, strides: Any, **more: Any
) -> Problem:
    size, kernel, strides = (_cube(v) if isinstance(v, int) else v for v in (size, kernel, strides))
    return Problem(name, *channels, size, kernel, strides, **more)


# Layers as networks have them: encoders and decoders, generators, video, upsampling.
_TWELVE = (
    _problem("unet_bottom", (320, 256), 8, 2, 2, padding="VALID"),
    _problem("unet_mid", (128, 64), 16, 2, 2, padding="VALID"),
    _problem("unet_top", (64, 32), 48, 2, 2, padding="VALID"),
    _problem("gan_4", (512, 256), 4, 4, 2, batch=4),
    _problem("gan_16", (128, 64), 16, 4, 2, batch=4),
    _problem("gan_out", (64, 1), 32, 4, 2, batch=4),
    _problem("keras", (64, 32), 32, 3, 2),
    _problem("k3s1", (32, 32), 32, 3, 1),
    _problem("video", (64, 32), (16, 32, 32), (3, 4, 4), (1, 2, 2)),
    _problem("voxel", (16, 3), 24, 5, 3),
    _problem("upsample", (1, 1), 96, 4, 2),
    _problem("odd_out", (48, 24), 32, 3, 2, output=_cube(63)),
)
# With more channels, minimal filtering saves more.
_WIDER = (_problem("k3s1_64", (64, 64), 32, 3, 1),)
# The decoder of nnU-Net, and problems that users have reported as slow, by the number of the report.
_REPORTED = (
    _problem("nnunet_320", (320, 320), (8, 10, 12), 2, 2, padding="VALID"),
    _problem("nnunet_256", (256, 128), (16, 20, 24), 2, 2, padding="VALID"),
    _problem("nnunet_128", (128, 64), (32, 40, 48), 2, 2, padding="VALID"),
    _problem("nnunet_64", (64, 32), (64, 80, 96), 2, 2, padding="VALID"),
    _problem("tf10535", (32, 1), (97, 128, 256), 3, 2, output=(193, 256, 512)),
    _problem("tf19611", (50, 1), 1, (28, 28, 1), 1, padding="VALID", batch=200),
    _problem("jax31662", (64, 1), (64, 64, 32), 3, 2),
    _problem("onednn262", (256, 128), 20, 2, 2, padding="VALID"),
)
_VARIANTS: dict[str, dict[str, Any]] = {
    "ncdhw": {"data_format": "NCDHW"},
    "bf16": {"dtype": "bfloat16"},
    "f16": {"dtype": "float16"},
    "f64": {"dtype": "float64"},
}
_VARIED = ("unet_mid", "keras", "voxel", "upsample")

QUICK: tuple[str, ...] = tuple(problem.name for problem in _TWELVE)
PROBLEMS: dict[str, Problem] = {
    problem.name: problem
    for problem in (
        *_TWELVE,
        *_WIDER,
        *_REPORTED,
        *(
            replace(problem, name=f"{problem.name}@{variant}", **change)
            for variant, change in _VARIANTS.items()
            for problem in _TWELVE
            if problem.name in _VARIED
        ),
    )
}


def select(names: Sequence[str]) -> list[Problem]:
    """The problems with these names, in this order.

    Raises
    ------
    ValueError
        If a name is unknown.
    """
    for name in names:
        if name not in PROBLEMS:
            raise ValueError(f"{name!r} is no shape known here: {', '.join(PROBLEMS)}")
    return [PROBLEMS[name] for name in names]


def make_data(problem: Problem) -> tuple[Array, Array]:
    """Input and filters, in the layout and element type of the problem."""
    rng = np.random.default_rng(crc32(problem.base.encode()))
    channels = (problem.in_channels,)
    x = rng.standard_normal((problem.batch, *problem.size, *channels), np.float32)
    w = rng.standard_normal((*problem.kernel, problem.out_channels, *channels), np.float32)
    if problem.data_format == "NCDHW":
        x = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    dtype = np.dtype(problem.dtype)
    return x.astype(dtype, copy=False), w.astype(dtype, copy=False)


def make_gradient(problem: Problem) -> Array:
    """A gradient in the output, in the layout and element type of the problem."""
    rng = np.random.default_rng(crc32(f"{problem.base} gradient".encode()))
    shape = (problem.batch, *problem.spec.output_size, problem.out_channels)
    g = rng.standard_normal(shape, np.float32)
    if problem.data_format == "NCDHW":
        g = np.ascontiguousarray(np.moveaxis(g, -1, 1))
    return g.astype(np.dtype(problem.dtype), copy=False)
