"""Problems that every framework's adapter is tested with, small ones that differ in every argument."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import convt
from oracles import Array, integers


@dataclass(frozen=True)
class Case:
    """One problem: the sizes of its arrays and the other arguments."""

    size: tuple[int, int, int]
    kernel: tuple[int, int, int]
    strides: Any
    padding: Any = "SAME"
    output: tuple[int, int, int] | None = None  # voxels; None: inferred
    dilations: Any = None
    groups: int = 1
    data_format: str = "NDHWC"
    into: int = 2  # channels of a group
    out: int = 3

    def __str__(self) -> str:
        """A test's name."""
        voxels, taps = ("x".join(map(str, sizes)) for sizes in (self.size, self.kernel))
        padding = self.padding if isinstance(self.padding, str) else "pairs"
        return f"{self.data_format}-{voxels}-k{taps}-{padding}-g{self.groups}"

    @property
    def arguments(self) -> tuple[Any, ...]:
        return (self.strides, self.padding, self.data_format, self.dilations)

    @property
    def output_shape(self) -> tuple[int, ...] | None:
        return None if self.output is None else self._shape(self.output, self.groups * self.out)

    @property
    def filters_shape(self) -> tuple[int, ...]:
        return (*self.kernel, self.groups * self.out, self.into)

    @property
    def bias_shape(self) -> tuple[int]:
        return (self.groups * self.out,)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self._shape(self.size, self.groups * self.into)

    def _shape(self, size: tuple[int, int, int], channels: int) -> tuple[int, ...]:
        return (2, *size, channels) if self.data_format == "NDHWC" else (2, channels, *size)

    def arrays(self, dtype: Any) -> tuple[Array, Array, Array]:
        """Input, filters and bias, whose products and sums are exact in every dtype."""
        rng = np.random.default_rng(0)
        shapes = (self.input_shape, self.filters_shape, self.bias_shape)
        x, w, b = (integers(rng, shape, dtype) for shape in shapes)
        return x, w, b


PLAIN = Case((2, 3, 2), (3, 2, 4), (2, 1, 3))  # what TensorFlow as shipped serves on the CPU
CASES = [
    PLAIN,
    Case((3, 2, 4), (3, 3, 3), 2, output=(5, 4, 7), groups=2),
    Case((2, 2, 3), (2, 3, 1), (1, 2, 3), "VALID", (3, 8, 8), (1, 2, 1), 2, "NCDHW"),
    Case((3, 3, 2), (4, 3, 2), 2, ((1, 0), (0, 2), (1, 1)), into=5, out=1),
]


def three(module: Any, case: Case, x: Any, w: Any, b: Any) -> tuple[Any, Any, Any]:
    """The three operations of `module`: of input and filters, then each of what the first one made."""
    y = module.conv3d_transpose(
        x, w, case.output_shape, *case.arguments, bias=b, groups=case.groups
    )
    kernel = (*case.kernel, case.out, case.groups * case.into)
    turned = module.conv3d(y, reshaped(w, kernel), *case.arguments, groups=case.groups)
    slope = module.conv3d_transpose_filter_gradient(
        x, y, case.filters_shape, *case.arguments, groups=case.groups
    )
    return y, turned, slope


def reshaped(w: Any, shape: Any) -> Any:
    """Filters of any values in another layout: which ones is the same for all frameworks."""
    if hasattr(w, "reshape"):
        return w.reshape(shape)
    import tensorflow as tf

    return tf.reshape(w, shape)


def expected(case: Case, dtype: Any) -> tuple[Array, Array, Array]:
    """What the three operations are on NumPy arrays, which have tests of their own."""
    found: tuple[Array, Array, Array] = three(convt, case, *case.arrays(dtype))
    return found


def run_page(name: str) -> dict[str, Any]:
    """Run the Python of a page of the documentation, and return the names that it makes."""
    page = Path(__file__).parents[2] / "docs" / name
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    for block in blocks:
        exec(block, names)
    return names
