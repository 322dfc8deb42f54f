"""The libraries that are measured, one file each, and what a file has to offer.

``start(threads, variant)`` configures the library in a new process, before anything else is called.
``prepare(problem, input, filters, bound)`` hands over the data in the order that the library likes best,
and returns a call that computes the result as a user of the library would get it. With `bound`, the
filters are known beforehand and may be put in order. ``prepare_gradients(problem, input, filters,
gradient)`` does the same for the result and, from a gradient in it, those in input and filters, in this
order. What a library can't do it raises `Unserved` for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "BOUND",
    "GIVEN",
    "GRADIENTS",
    "OURS",
    "PEERS",
    "Peer",
    "Ready",
    "Unserved",
    "channels_first",
    "choose",
]

GIVEN, BOUND = "given", "bound"  # filters that come with each call, or are known beforehand
GRADIENTS = "gradients"  # the result and both gradients

Array = npt.NDArray[Any]


class Unserved(Exception):  # noqa: N818 - no error: what the library does not offer
    """The library does not offer this problem."""


class Ready(NamedTuple):
    """A problem that a library is ready to compute."""

    call: Callable[[], Any]  # computes, and returns the library's own kind of array
    array: Callable[[Any], Any]  # that array (or all three) in NumPy, in the layout of the problem


@dataclass(frozen=True, slots=True)
class Peer:
    """One library in one configuration."""

    name: str  # as the command line has it
    label: str  # as tables have it
    module: str  # with `start` and `prepare`
    needs: tuple[str, ...]  # modules that have to be installed
    settings: tuple[str, ...]  # "given", "bound", "gradients"
    variant: str = ""  # handed to `start`
    once: bool = False  # on the most threads alone, since its calls take seconds
    environment: tuple[tuple[str, str], ...] = ()  # set for its process

    @property
    def installed(self) -> bool:
        return all(find_spec(name) is not None for name in self.needs)


_HERE = "convt.bench.peers"
OURS = Peer("convt", "convt", f"{_HERE}.ours", (), (GIVEN, BOUND, GRADIENTS))
PEERS: tuple[Peer, ...] = (
    Peer("tf", "TensorFlow", f"{_HERE}.tensorflow", ("tensorflow",), (GIVEN, GRADIENTS)),
    Peer(
        "tf-onednn",
        "TensorFlow + oneDNN",
        f"{_HERE}.tensorflow",
        ("tensorflow",),
        (GIVEN, GRADIENTS),
        environment=(("TF_ENABLE_ONEDNN_OPTS", "1"),),
    ),
    Peer(
        "torch",
        "PyTorch",
        f"{_HERE}.torch",
        ("torch",),
        (GIVEN, BOUND, GRADIENTS),
        "contiguous_format",
    ),
    Peer(
        "torch-last",
        "PyTorch, channels last",
        f"{_HERE}.torch",
        ("torch",),
        (GIVEN, BOUND, GRADIENTS),
        "channels_last_3d",
    ),
    Peer(
        "jax",
        "JAX",
        f"{_HERE}.jax",
        ("jax",),
        (GIVEN,),
        once=True,
        environment=(("JAX_ENABLE_X64", "1"),),
    ),
    Peer("ort", "ONNX Runtime", f"{_HERE}.onnxruntime", ("onnx", "onnxruntime"), (BOUND,)),
    Peer("openvino", "OpenVINO", f"{_HERE}.openvino", ("onnx", "openvino"), (BOUND,)),
)


def choose(names: Sequence[str] | None) -> list[Peer]:
    """The peers with these names; by default all that are installed.

    Raises
    ------
    ValueError
        If a name is unknown, or its library is not installed.
    """
    if names is None:
        return [peer for peer in PEERS if peer.installed]
    known = {peer.name: peer for peer in PEERS}
    for name in names:
        if name not in known:
            raise ValueError(f"{name!r} is no library known here: {', '.join(known)}")
        if not known[name].installed:
            raise ValueError(f"{name!r} needs {' and '.join(known[name].needs)} to be installed")
    return [known[name] for name in names]


def channels_first(array: Array, data_format: str) -> Array:
    """`array` of layout `data_format` as a dense NCDHW one."""
    return np.ascontiguousarray(array if data_format == "NCDHW" else np.moveaxis(array, -1, 1))


def channels_last(array: Array, data_format: str) -> Array:
    """`array` of layout `data_format` as a dense NDHWC one."""
    return np.ascontiguousarray(array if data_format == "NDHWC" else np.moveaxis(array, 1, -1))


def as_layout(array: Array, found: str, data_format: str) -> Array:
    """A view of `array`, which has layout `found`, in layout `data_format`."""
    if found == data_format:
        return array
    return np.moveaxis(array, -1, 1) if data_format == "NCDHW" else np.moveaxis(array, 1, -1)
