"""Whose arrays a call was given, told without importing anybody's framework."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import convt
from convt import arrays
from processes import python


class Theirs:
    """What stands for an array of a framework."""

    __module__ = "jax._src.array"


class Users(Theirs):
    """A user's class made from one."""

    __module__ = "project.arrays"


class Others(Theirs):
    """An array of another framework."""

    __module__ = "torch"


class Variable(Theirs):
    """A variable of Keras."""

    __module__ = "keras.src.backend"


@pytest.fixture(autouse=True)
def served(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """Adapters that are no modules of ours."""
    made = {name: ModuleType(name) for name in ("convt.jax", "convt.torch", "convt.keras")}
    for name, module in made.items():
        setattr(module, "conv3d", None)  # noqa: B010
        monkeypatch.setitem(sys.modules, name, module)
    return made


def test_numpy_serves_its_own_arrays_and_lists() -> None:
    masked = np.ma.ones(3)
    assert arrays.adapter("conv3d", input=np.ones(3), filters=[1.0], bias=None, out=masked) is None
    assert arrays.adapter("conv3d", input=(1,), filters=np.float32(1)) is None


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Theirs, "convt.jax"),
        (Users, "convt.jax"),
        (Others, "convt.torch"),
        (Variable, "convt.keras"),
    ],
)
def test_an_array_s_framework_is_its_class_s(
    served: dict[str, ModuleType], kind: Any, name: str
) -> None:
    assert arrays.adapter("conv3d", input=kind(), filters=kind(), bias=None) is served[name]


def test_a_variable_of_keras_goes_with_tensors_of_one_framework(
    served: dict[str, ModuleType],
) -> None:
    found = arrays.adapter("conv3d", input=Theirs(), filters=Variable())
    assert found is served["convt.keras"]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ((Theirs(), np.ones(1)), "input is a jax.Theirs, filters is a numpy.ndarray"),
        ((np.ones(1), Others()), "input is a numpy.ndarray, filters is a torch.Others"),
        ((Theirs(), Others()), "input is a jax.Theirs, filters is a torch.Others"),
        ((Variable(), np.ones(1)), "input is a keras.Variable, filters is a numpy.ndarray"),
    ],
)
def test_a_mixture_is_an_error_that_tells_which(given: Any, text: str) -> None:
    with pytest.raises(TypeError, match=f"conv3d takes arrays of one kind, but {text}: convert"):
        arrays.adapter("conv3d", input=given[0], filters=given[1], bias=None)


def test_a_mixture_reaches_the_user() -> None:
    with pytest.raises(TypeError, match="conv3d_transpose takes arrays of one kind"):
        convt.conv3d_transpose(Theirs(), np.ones((1, 1, 1, 1, 1)), None, 1)  # type: ignore[arg-type]
    with pytest.raises(
        TypeError, match="conv3d_transpose_filter_gradient takes arrays of one kind"
    ):
        convt.conv3d_transpose_filter_gradient(np.ones(1), Theirs(), (1,) * 5, 1)  # type: ignore[arg-type]


UNTOUCHED = """
    import sys, numpy as np, convt
    convt.conv3d_transpose(np.ones((1, 1, 1, 1, 1)), np.ones((1, 1, 1, 1, 1)), None, 1)
    print(*sorted({"jax", "tensorflow", "torch", "keras", "dask"} & set(sys.modules)))
"""


def test_a_call_on_numpy_arrays_imports_no_framework() -> None:
    assert python(UNTOUCHED) == "\n"
