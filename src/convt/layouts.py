"""Filters of several groups, from the layout of one direction to that of the other; any framework's arrays.

The transposed convolution has ``[..., out_channels, in_channels / groups]``, the convolution that is its
adjoint ``[..., in_channels / groups, out_channels]``. With one group they are the same array.
"""

from __future__ import annotations

from typing import Any

__all__ = ["convolution_filters", "transposed_filters"]


def convolution_filters(filters: Any, groups: int) -> Any:
    """Filters as `convt.conv3d` has them; any framework's array.

    Examples
    --------
    >>> import numpy as np
    >>> convolution_filters(np.ones((3, 3, 3, 6, 4)), groups=2).shape
    (3, 3, 3, 3, 8)
    """
    if groups == 1:
        return filters
    *kernel, out, into = filters.shape
    split = filters.reshape(*kernel, groups, out // groups, into).swapaxes(3, 4)
    return split.reshape(*kernel, out // groups, groups * into)


def transposed_filters(filters: Any, groups: int) -> Any:
    """Filters of `convt.conv3d` as `convt.conv3d_transpose` has them; any framework's array.

    Examples
    --------
    >>> import numpy as np
    >>> transposed_filters(np.ones((3, 3, 3, 3, 8)), groups=2).shape
    (3, 3, 3, 6, 4)
    """
    if groups == 1:
        return filters
    *kernel, out, into = filters.shape
    split = filters.reshape(*kernel, out, groups, into // groups).swapaxes(3, 4)
    return split.reshape(*kernel, groups * out, into // groups)
