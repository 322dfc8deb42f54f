"""Whose arrays a call was given: NumPy's, or those of a framework whose adapter then takes the call.

Adapters are modules of this package that are imported when an array of their framework is met, never
before: an array of a framework is known by the module that its class comes from.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np

__all__ = ["adapter"]

# The framework that a class comes from, by its module's first name, and the adapter for it.
_ADAPTERS = {
    "torch": "convt.torch",
    "jax": "convt.jax",
    "jaxlib": "convt.jax",
    "tensorflow": "convt.tensorflow",
    "keras": "convt.keras",
    "dask": "convt.dask",
}


def adapter(function: str, **arrays: Any) -> Any:
    """The adapter that serves `arrays`, by the names of the arguments; None where NumPy does.

    Raises
    ------
    TypeError
        If the arrays are of different frameworks. A Dask array goes with NumPy's, and a variable of Keras
        with the tensors of its backend.
    """
    for array in arrays.values():
        if array is not None and array.__class__ is not np.ndarray:
            return _adapter_of(function, arrays)
    return None


def _adapter_of(function: str, arrays: dict[str, Any]) -> Any:
    kinds = {name: _adapter(array.__class__) for name, array in arrays.items() if array is not None}
    found = set(kinds.values())
    if found == {None}:
        return None
    if "convt.keras" in found and None not in found and len(found) == 2:
        found = {"convt.keras"}
    if len(found) > 1 and found != {None, "convt.dask"}:
        text = ", ".join(f"{name} is a {_show(arrays[name])}" for name in kinds)
        raise TypeError(f"{function} takes arrays of one kind, but {text}: convert to one of them")
    name = next(name for name in found if name is not None)
    module = sys.modules.get(name)  # in part, while another thread imports it
    return module if hasattr(module, function) else importlib.import_module(name)


# PyTorch's compiler traces these functions: it goes through a dict, but not through a cache of functools,
# nor through an import.
_known: dict[Any, str | None] = {}


def _adapter(kind: Any) -> str | None:
    if kind not in _known:
        _known[kind] = _find(kind)
    return _known[kind]


def _find(kind: Any) -> str | None:
    if issubclass(kind, (np.ndarray, np.generic, list, tuple)):
        return None
    for base in kind.__mro__:  # a framework's class, or a user's made from one
        name = _ADAPTERS.get(base.__module__.partition(".")[0])
        if name is not None:
            return name
    return None


def _show(array: Any) -> str:
    return f"{type(array).__module__.partition('.')[0]}.{type(array).__qualname__}"
