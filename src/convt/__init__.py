"""convt: the transposed 3-D convolution, with the exact meaning of ``tf.nn.conv3d_transpose``.

>>> import numpy as np
>>> import convt
>>> x = np.ones((1, 2, 2, 2, 1), np.float32)
>>> w = np.ones((2, 2, 2, 3, 1), np.float32)
>>> convt.conv3d_transpose(x, w, output_shape=[1, 4, 4, 4, 3], strides=2).shape
(1, 4, 4, 4, 3)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from convt.algorithm import get_algorithm, set_algorithm
from convt.threads import get_num_threads, set_num_threads

if TYPE_CHECKING:
    from convt.api import conv3d_transpose
    from convt.bound import ConvTranspose3D
    from convt.gradient import conv3d, conv3d_transpose_filter_gradient, conv3d_transpose_vjp
    from convt.report import explain

__version__ = "0.1.0"
__all__ = [
    "ConvTranspose3D",
    "__version__",
    "conv3d",
    "conv3d_transpose",
    "conv3d_transpose_filter_gradient",
    "conv3d_transpose_vjp",
    "explain",
    "get_algorithm",
    "get_num_threads",
    "set_algorithm",
    "set_num_threads",
]

# Names that are loaded when they are first asked for: with them come the planner and all that it needs.
_HOMES = {
    "ConvTranspose3D": "bound",
    "conv3d": "gradient",
    "conv3d_transpose": "api",
    "conv3d_transpose_filter_gradient": "gradient",
    "conv3d_transpose_vjp": "gradient",
    "explain": "report",
}
_MODULES = ("gradient", "reference")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"convt.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'convt' has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(f"convt.{_HOMES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
