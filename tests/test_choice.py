"""The planner's choice of a family against every family that could serve.

``python -m benchmarks --choice`` measures many more shapes; these few stand for each family.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import pytest

from benchmarks.__main__ import check_choices
from convt.bench import choice
from convt.bench.choice import Found, cut_down
from convt.bench.peers import BOUND, GIVEN
from convt.bench.problems import PROBLEMS, Problem

SHAPES = ("keras", "k3s1", "unet_mid", "gan_out", "upsample", "voxel@ncdhw")


def found(chosen: str, loss: float, **seconds: float) -> Found:
    return Found(PROBLEMS["keras"], BOUND, chosen, seconds, loss)


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_a_shape_is_cut_down_to_few_voxels_and_keeps_all_else(problem: Problem) -> None:
    small = cut_down(problem)
    assert replace(small, size=problem.size, batch=problem.batch, output=problem.output) == problem
    spec, whole = small.spec, problem.spec
    assert [
        o - s * n for o, s, n in zip(spec.output_size, small.strides, small.size, strict=True)
    ] == [o - s * n for o, s, n in zip(whole.output_size, small.strides, problem.size, strict=True)]
    products = small.batch * prod(small.size) * prod(small.kernel) * prod(spec.filters_shape[3:])
    assert products <= choice._MOST or max(small.size) <= 4


def test_names_are_told_apart() -> None:
    names = [problem.name for problem in choice.problems()]
    assert len(names) == len({*names})


def test_a_loss_counts_where_neighbouring_turns_and_the_fastest_agree() -> None:
    assert choice._loss([2, 2, 2], [1, 1, 1]) == 2
    assert choice._loss([2, 2, 2], [1, 1, 2]) == 2
    assert choice._loss([1, 2, 2], [1, 1, 1]) == 1  # once as fast: the others were disturbed
    assert choice._loss([3, 2, 6], [3, 4, 6]) == 2 / 3


def test_the_table_begins_with_the_worst() -> None:
    table = choice.table(
        [
            found("rows", 0.5, rows=1e-3, channels=2e-3),
            found("channels", 1.5, rows=2e-3, channels=3e-3),
        ]
    )
    assert table.headings[3:] == [
        "chosen",
        "channels ms",
        "rows ms",
        "dots ms",
        "filtering ms",
        "loss",
    ]
    assert [row[3:] for row in table.rows] == [
        ["channels", "3", "2", "-", "-", "1.50"],
        ["rows", "2", "1", "-", "-", "0.50"],
    ]


@pytest.mark.parametrize("second", [1.3, 0.9])
def test_a_loss_is_measured_again(monkeypatch: pytest.MonkeyPatch, second: float) -> None:
    losses = iter([1.4, second, 1.0])
    monkeypatch.setattr(choice, "compare", lambda *_: found("rows", next(losses), rows=1e-3))
    said: list[str] = []
    reported = list(choice.report([PROBLEMS["keras"]], said.append))
    assert [one.loss for one in reported] == [second, 1.0]
    lost = ["keras (k3 s2, 32^3, 64 -> 32), given: chose rows; rows 1 ms"]
    assert said == (lost if second > 1.1 else [])


def test_an_unknown_shape_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_choices(["cube"]) == 2
    assert capsys.readouterr().err.startswith("'cube' is no shape known here: unet_bottom,")


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_no_other_family_is_faster_by_a_tenth(name: str) -> None:
    problem = cut_down(PROBLEMS[name])
    lost: list[str] = []
    for one in choice.report([problem], lost.append):
        assert one.chosen in one.seconds
    assert not lost


def test_every_family_that_can_serve_is_measured() -> None:
    few = replace(PROBLEMS["k3s1"], size=(3, 4, 5))
    assert {*choice.compare(few, GIVEN).seconds} == {"channels", "rows", "dots"}  # too small
