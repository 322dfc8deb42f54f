"""The public names are those that `__all__` lists, each with its documentation."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import typing
from importlib.metadata import version
from types import ModuleType
from typing import Any

import pytest

import convt
from processes import python

NAMES = [name for name in convt.__all__ if name != "__version__"]


def test_all_is_every_public_name() -> None:
    helpers = {"annotations", *dir(typing)}
    assert set(NAMES) <= set(dir(convt))
    for name in NAMES:  # most come when they are asked for; from then on they are names like others
        getattr(convt, name)
    found = {
        name
        for name, value in vars(convt).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name not in helpers
    }
    assert found == set(NAMES)


def test_all_is_sorted_and_complete_for_a_star() -> None:
    assert convt.__all__ == sorted(convt.__all__)
    names: dict[str, Any] = {}
    exec("from convt import *", names)
    assert set(convt.__all__) <= set(names)


def parameters(name: str) -> list[str]:
    return list(inspect.signature(getattr(convt, name)).parameters)


@pytest.mark.parametrize("name", NAMES)
def test_public_names_are_documented(name: str) -> None:
    text = inspect.getdoc(getattr(convt, name))
    assert text
    assert ">>> " in text or not parameters(name)


@pytest.mark.parametrize("name", [name for name in NAMES if name.islower()])
def test_every_parameter_is_documented(name: str) -> None:
    text = inspect.getdoc(getattr(convt, name)) or ""
    section = re.search(r"^Parameters\n-+\n(.*?)\n\n", text, re.DOTALL | re.MULTILINE)
    lines = section.group(1).splitlines() if section else []
    heads = [line.split(" : ")[0] for line in lines if not line.startswith(" ")]
    assert sorted(", ".join(heads).split(", ") if heads else []) == sorted(parameters(name))


def test_names_come_from_convt() -> None:
    for name in NAMES:
        assert getattr(convt, name).__module__.startswith("convt.")


def test_explain_stays_a_function_when_its_module_is_loaded() -> None:
    importlib.import_module("convt.report")
    assert callable(convt.explain)
    assert not isinstance(convt.explain, ModuleType)


def test_modules_that_are_part_of_the_interface_need_no_import_of_their_own() -> None:
    code = "import convt; print(convt.reference.__name__, convt.gradient.__name__)"
    assert python(code) == "convt.reference convt.gradient\n"


def test_other_names_are_errors() -> None:
    with pytest.raises(AttributeError, match="module 'convt' has no attribute 'conv2d'"):
        convt.conv2d  # noqa: B018


def test_the_version_is_the_distribution_s() -> None:
    assert convt.__version__ == version("convt")


def modules() -> list[str]:
    return [
        module.name
        for module in pkgutil.walk_packages(convt.__path__, "convt.")
        if not module.name.startswith("convt.bench.peers")  # each needs its framework
    ]


@pytest.mark.parametrize("name", modules())
def test_a_module_has_what_it_lists(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    for listed in getattr(module, "__all__", ()):
        assert hasattr(module, listed), f"{name}.{listed}"
