"""`algorithm=`: named on a call, bound with the filters, or set for the process; and what it chooses."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import convt
from oracles import Array

# 64 channels to 64, kernel 3, stride 1: the definition asks for 3.2 times as many products.
INPUT, FILTERS = (1, 12, 12, 12, 64), (3, 3, 3, 64, 64)
NAMES = ("auto", "direct", "fast")


@pytest.fixture(autouse=True)
def kept() -> Iterator[None]:
    """Put back the algorithm that a test sets."""
    before = convt.get_algorithm()
    yield
    convt.set_algorithm(before)


def family(algorithm: str | None = None) -> str:
    return convt.explain(INPUT, FILTERS, None, 1, algorithm=algorithm).plan.kernel.family


def arrays() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in (INPUT, FILTERS))
    return x, w


# --- which --------------------------------------------------------------------------------------
def test_auto_is_the_default() -> None:
    assert convt.get_algorithm() == "auto"
    assert family() == family("auto") == "filtering"


def test_direct_never_filters() -> None:
    assert family("direct") == "channels"


def test_fast_takes_larger_tiles() -> None:
    auto, fast = (
        convt.explain(INPUT, FILTERS, None, 1, algorithm=a).plan for a in ("auto", "fast")
    )
    assert auto.kernel.family == fast.kernel.family == "filtering"
    assert auto.filtered is not None
    assert fast.filtered is not None
    assert fast.filtered.products < auto.filtered.products < auto.products


CHOICES: list[Any] = [
    ((1, 32, 32, 32, 64), (3, 3, 3, 64, 64), 1, "filtering"),
    ((4, 16, 16, 16, 128), (4, 4, 4, 64, 128), 2, "filtering"),
    ((1, 16, 16, 16, 64), (3, 4, 4, 32, 64), (1, 2, 2), "filtering"),
    ((1, 32, 32, 32, 64), (2, 2, 2, 32, 64), 2, "channels"),  # a tap a phase: nothing to save
    ((1, 1, 1, 1, 64), (3, 3, 3, 64, 64), 1, "channels"),  # filters cost more than they save
    ((1, 32, 32, 32, 1), (3, 3, 3, 1, 1), 1, "rows"),  # no vector of channels
]


@pytest.mark.parametrize(("x", "w", "strides", "chosen"), CHOICES, ids=str)
def test_auto_filters_where_it_pays(x: Any, w: Any, strides: Any, chosen: str) -> None:
    assert convt.explain(x, w, None, strides).plan.kernel.family == chosen


def test_auto_holds_no_more_than_some_memory_of_transformed_filters() -> None:
    x, w = (1, 16, 16, 16, 512), (3, 3, 3, 512, 512)
    assert convt.explain(x, w, None, 1).plan.kernel.family == "channels"
    assert convt.explain(x, w, None, 1, algorithm="fast").plan.kernel.family == "filtering"


# --- where it is named --------------------------------------------------------------------------
def results(algorithm: str) -> bytes:
    x, w = arrays()
    return convt.conv3d_transpose(x, w, None, 1, algorithm=algorithm).tobytes()


def test_every_way_to_name_it_gives_the_same_bits() -> None:
    x, w = arrays()
    found = {name: results(name) for name in NAMES}
    assert len(set(found.values())) == 3  # so that bits tell them apart
    late = convt.ConvTranspose3D(w, 1)
    for name, expected in found.items():
        bound = convt.ConvTranspose3D(w, 1, algorithm=name)
        assert bound(x).tobytes() == expected
        convt.set_algorithm(name)
        assert convt.conv3d_transpose(x, w, None, 1).tobytes() == expected
        assert late(x).tobytes() == expected  # the process' choice, at each call
        assert family() == family(name)
    assert convt.ConvTranspose3D(w, 1, algorithm="auto")(x).tobytes() == found["auto"]


def test_it_is_set_for_the_process() -> None:
    convt.set_algorithm("direct")
    found: list[str] = []
    other = threading.Thread(target=lambda: found.append(convt.get_algorithm()))
    other.start()
    other.join()
    assert found == ["direct"]


@pytest.mark.parametrize(
    ("name", "kind", "got"),
    [
        ("winograd", ValueError, "'winograd'"),
        ("AUTO", ValueError, "'AUTO'"),
        ("", ValueError, "''"),
        (2, TypeError, "2"),
        (b"auto", TypeError, "b'auto'"),
        (["auto"], TypeError, r"\['auto'\]"),
        (np.array(["auto", "fast"]), TypeError, r"array\(.*\)"),
    ],
)
def test_other_names_are_refused(name: Any, kind: type[Exception], got: str) -> None:
    x, w = np.ones((1, 1, 1, 1, 1), np.float32), np.ones((1, 1, 1, 1, 1), np.float32)
    message = f'^algorithm must be "auto", "direct" or "fast", got {got}$'
    with pytest.raises(kind, match=message):
        convt.conv3d_transpose(x, w, None, 1, algorithm=name)
    with pytest.raises(kind, match=message):
        convt.ConvTranspose3D(w, 1, algorithm=name)
    with pytest.raises(kind, match=message):
        convt.explain(x, w, None, 1, algorithm=name)
    with pytest.raises(kind, match=message):
        convt.set_algorithm(name)
    assert convt.get_algorithm() == "auto"


def test_none_is_no_choice_for_the_process() -> None:
    """On a call it is the process' choice; the process itself has to name one."""
    with pytest.raises(TypeError, match=r'"auto", "direct" or "fast", got None$'):
        convt.set_algorithm(None)  # type: ignore[arg-type]


# --- what is told of it -------------------------------------------------------------------------
def test_explain_prints_the_choice_what_it_saves_and_the_bound() -> None:
    report = convt.explain((1, 32, 32, 32, 64), (3, 3, 3, 64, 64), None, 1)
    # 16^3 tiles of 4^3 points; the definition: 94 of 32 times 3 products an axis.
    filtered, direct = 16**3 * 4**3 * 64 * 64, 94**3 * 64 * 64
    assert report.multiplications == direct
    text = [" ".join(line.split()) for line in str(report).splitlines()]
    assert f"multiplications {direct:,}" in text
    assert f"minimal filtering takes {filtered:,} 3.17 times fewer" in text
    family = next(line for line in text if line.startswith("family"))
    assert "filtering" in family
    assert "error at most 4 times the direct sum's" in family
    assert any(line.startswith("tile F(2, 3); F(2, 3); F(2, 3)") for line in text)


def test_fast_is_told_without_a_bound_and_direct_without_filtering() -> None:
    fast, direct = (
        str(convt.explain(INPUT, FILTERS, None, 1, algorithm=a)) for a in ("fast", "direct")
    )
    assert "minimal filtering takes" in fast
    assert "at most 4 times" not in fast
    assert "minimal filtering" not in direct
