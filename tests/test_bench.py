"""The benchmark's own logic: what it checks, compares, writes and draws. Workers import this file, too,
as the library that is measured."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import ROOT, with_defaults
from convt import jit, reference, target
from convt.bench import goals, pictures, tables
from convt.bench.check import draw_places, expected, pick
from convt.bench.check_gradients import expected_gradients, pick_gradients
from convt.bench.client import Failed, Worker
from convt.bench.journal import Journal
from convt.bench.limits import Copy, Limits, MultiplyAdd
from convt.bench.measure import Pace, measure
from convt.bench.page import PAGE, write_page
from convt.bench.peers import BOUND, GIVEN, GRADIENTS, OURS, PEERS, Peer, Ready, Unserved, choose
from convt.bench.problems import PROBLEMS, QUICK, Problem, make_data, make_gradient, select
from convt.bench.results import COMPARED, DIFFERS, Goal, Own, Pair, Results, Row, load, save
from convt.bench.run import choose_run, run
from convt.cli import run as run_command

SMALL = Problem("small", 5, 3, (3, 4, 2), (3, 2, 4), (2, 1, 3), batch=2)
PACE = Pace(rounds=3, turn=0.002, patience=1, longest=30)
HERE = (("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests"), str(ROOT)])),)
PNG = b"\x89PNG\r\n\x1a\n"


# --- a library to measure, as `Peer.module` asks for -----------------------------------------------
_variant = ""


def start(threads: int, variant: str) -> None:
    global _variant
    _variant = variant


def prepare(problem: Problem, input: Any, filters: Any, bound: bool) -> Ready:
    if _variant == "unserved":
        raise Unserved("not on Sundays")
    spec = problem.spec

    def call() -> Any:
        if _variant == "ends":
            os.write(2, b"out of luck\n")
            os._exit(3)
        if _variant == "sleeps":
            time.sleep(60)
        options = (spec.output_shape, spec.strides, spec.padding, spec.data_format)
        return reference.conv3d_transpose(input, filters, *options) + (_variant == "wrong")

    return Ready(call, lambda result: result)


def prepare_gradients(problem: Problem, input: Any, filters: Any, gradient: Any) -> Ready:
    spec = problem.spec
    options = (spec.strides, spec.padding, spec.data_format)

    def call() -> Any:
        y = reference.conv3d_transpose(input, filters, spec.output_shape, *options)
        dx = reference.input_gradient(gradient, filters, spec.input_size, *options)
        return y, dx, reference.filter_gradient(input, gradient, spec.filters_shape, *options)

    return Ready(call, lambda result: result)


def fake(variant: str) -> Peer:
    settings = (GIVEN, BOUND, GRADIENTS) if variant == "right" else (GIVEN,)
    return Peer(variant, variant.title(), "test_bench", (), settings, variant, environment=HERE)


# --- problems and checks ---------------------------------------------------------------------------
def test_the_list_holds_the_shapes_as_users_reported_them() -> None:
    assert len(QUICK) == 12
    spec = PROBLEMS["tf10535"].spec
    assert (spec.input_shape, spec.filters_shape, spec.output_shape) == (
        (1, 97, 128, 256, 32),
        (3, 3, 3, 1, 32),
        (1, 193, 256, 512, 1),
    )
    assert PROBLEMS["tf19611"].spec.output_shape == (200, 28, 28, 1, 1)
    assert PROBLEMS["voxel"].spec.output_size == (72, 72, 72)
    assert PROBLEMS["keras@ncdhw"].spec.input_shape == (1, 64, 32, 32, 32)
    assert {PROBLEMS[f"keras@{k}"].dtype for k in ("bf16", "f16", "f64")} == {
        "bfloat16",
        "float16",
        "float64",
    }


def test_work_and_bytes_are_those_of_the_definition() -> None:
    reached = PROBLEMS["unet_mid"]  # every tap of every voxel hits one output
    assert reached.flops == 2 * 16**3 * 2**3 * 128 * 64
    assert reached.bytes == 4 * (16**3 * 128 + 8 * 128 * 64 + 32**3 * 64)
    ones = replace(SMALL, in_channels=1, out_channels=1)
    x, w = (np.ones_like(a) for a in make_data(ones))
    total = reference.conv3d_transpose(x, w, ones.spec.output_shape, ones.strides).sum()
    assert ones.flops == 2 * total


def test_titles_say_what_is_computed() -> None:
    assert PROBLEMS["gan_4"].title == "k4 s2, 4 x 4^3, 512 -> 256"
    assert PROBLEMS["video"].title == "k3,4,4 s1,2,2, 16 x 32 x 32, 64 -> 32"


def test_data_depend_on_the_name_alone_and_variants_share_them() -> None:
    x, w = make_data(SMALL)
    again, _ = make_data(SMALL)
    np.testing.assert_array_equal(x, again)
    assert not np.array_equal(x, make_data(replace(SMALL, name="other"))[0])
    variant = replace(SMALL, name="small@ncdhw", data_format="NCDHW", dtype="float64")
    first, filters = make_data(variant)
    assert first.flags.c_contiguous
    np.testing.assert_array_equal(np.moveaxis(first, 1, -1), x)
    np.testing.assert_array_equal(filters, w)


@pytest.mark.parametrize("data_format", ["NDHWC", "NCDHW"])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_expected_values_are_the_reference_s(data_format: str, padding: str) -> None:
    problem = replace(SMALL, data_format=data_format, padding=padding, dtype="float64")
    x, w = make_data(problem)
    options = (problem.spec.output_shape, problem.strides, padding, data_format)
    y = reference.conv3d_transpose(x, w, *options)
    wanted = expected(problem, x, w)
    np.testing.assert_allclose(pick(problem, y), wanted.exact, rtol=0, atol=1e-12)
    assert wanted.error(pick(problem, y)) < 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_a_shifted_result_or_one_that_is_no_number_is_caught(dtype: str) -> None:
    problem = replace(SMALL, dtype=dtype)
    x, w = make_data(problem)
    y = reference.conv3d_transpose(x, w, problem.spec.output_shape, problem.strides)
    wanted = expected(problem, x, w)
    assert wanted.error(pick(problem, y)) < 1
    assert wanted.error(pick(problem, np.roll(y, 1, axis=2))) > 1
    y[0] = np.nan
    assert wanted.error(pick(problem, y)) == np.inf


@pytest.mark.parametrize("data_format", ["NDHWC", "NCDHW"])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_expected_gradients_are_the_reference_s(data_format: str, padding: str) -> None:
    problem = replace(SMALL, data_format=data_format, padding=padding, dtype="float64")
    data = (*make_data(problem), make_gradient(problem))
    wanted = expected_gradients(problem, *data)
    y, dx, dw = prepare_gradients(problem, *data).call()
    found = pick_gradients(problem, y, dx, dw)
    np.testing.assert_allclose(found, wanted.exact, rtol=0, atol=1e-11)
    assert wanted.error(found) < 1
    for wrong in ((y + 1, dx, dw), (y, -dx, dw), (y, dx, dw[::-1])):
        assert wanted.error(pick_gradients(problem, *wrong)) > 1
    with pytest.raises(ValueError, match="the gradient in the filters has shape"):
        pick_gradients(problem, y, dx, dw[1:])


def test_a_result_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 6, 4, 6, 4\), not \(2, 6, 4, 6, 3\)"):
        pick(SMALL, np.zeros((2, 6, 4, 6, 4)))


def test_places_reach_all_borders() -> None:
    places = draw_places(1, 32, 32, 32)
    assert (places.min(axis=0) == 0).all()
    assert (places.max(axis=0) == [0, 31, 31, 31]).all()


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'unet' is no shape known here: unet_bottom, "):
        select(["unet"])
    with pytest.raises(ValueError, match=r"'numpy' is no library known here: tf, tf-onednn, "):
        choose(["numpy"])


def test_a_library_that_is_missing_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convt.bench.peers.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="'ort' needs onnx and onnxruntime to be installed"):
        choose(["ort"])
    assert choose(None) == []


def test_options_become_a_choice() -> None:
    choice = choose_run(quick=True, shapes=None, peers=[], threads=[1, 4, 1], rounds=2)
    assert [problem.name for problem in choice.problems] == list(QUICK)
    assert (choice.threads, choice.pace.rounds, choice.complete) == ((4, 1), 2, False)
    whole = choose_run(quick=False, shapes=None, peers=None, threads=None, rounds=None)
    assert whole.complete
    assert whole.threads[-1] == 1
    with pytest.raises(ValueError, match="rounds must be at least 1, got 0"):
        choose_run(quick=True, shapes=None, peers=[], threads=None, rounds=0)
    with pytest.raises(ValueError, match="threads must be at least 1, got 2, 0"):
        choose_run(quick=True, shapes=None, peers=[], threads=[2, 0], rounds=None)


# --- what is made of the figures -------------------------------------------------------------------
def pair(peer: str, ratio: float, setting: str = GIVEN) -> Pair:
    return Pair(peer, setting, COMPARED, ratios=(ratio,), ratio=ratio, seconds=0.004 * ratio)


def row(
    name: str,
    *pairs: Pair,
    threads: int = 2,
    share: float = 0.95,
    settings: tuple[str, ...] = (GIVEN, BOUND),
) -> Row:
    problem = PROBLEMS[name]
    own = tuple(Own(s, COMPARED, "", 0.2, 0.004, share, share) for s in settings)
    work = (problem.flops, problem.bytes, 80e9, 20e9)
    return Row(name, problem.title, threads, *work, own, pairs)


def results(*rows: Row, gradients: tuple[Row, ...] = ()) -> Results:
    labels = {"convt": "convt", **{peer.name: peer.label for peer in PEERS}}
    made = (*goals.from_rows(rows), *goals.from_gradients(gradients))
    place = ({"processor": "one"}, {"NumPy": "2"})
    return Results("2030-01-01 00:00 UTC", 90, *place, labels, 5, rows, gradients, made)


EXAMPLE = results(
    row("keras", pair("tf", 2), pair("torch", 1.25), pair("ort", 0.8, BOUND)),
    row("upsample", pair("torch", 30), pair("torch-last", 20), share=0.5),
    row("keras", pair("tf", 5), threads=1),
    row("voxel@f16", Pair("tf", GIVEN, DIFFERS, "by far"), Pair("jax", GIVEN, "slow", "asleep")),
    gradients=(
        row(
            "k3s1", pair("tf", 1.6, GRADIENTS), pair("torch", 2.5, GRADIENTS), settings=(GRADIENTS,)
        ),
        row("voxel", pair("torch", 0.9, GRADIENTS), settings=(GRADIENTS,)),
    ),
)


def test_the_best_is_the_fastest_that_was_compared() -> None:
    keras, upsample, _, voxel = EXAMPLE.rows
    assert [r and r.peer for r in (keras.best(), keras.best(GIVEN))] == ["ort", "torch"]
    assert upsample.best(BOUND) is None
    assert voxel.best() is None
    assert keras.arithmetic
    assert not upsample.arithmetic


def test_goals_are_held_against_the_most_threads() -> None:
    found = {goal.what: goal for goal in EXAMPLE.goals}
    mean = found["against the best library, geometric mean"]
    assert (mean.goal, mean.found, mean.met) == ("at least 1.40", "4.00", True)
    worst = found["against the best library, worst shape"]
    assert (worst.goal, worst.found, worst.met) == ("at least 0.95", "0.80 (keras)", False)
    few = found["1 to 3 channels, share of the roofline"]
    assert (few.goal, few.found, few.met) == ("at least 60%", "50% (upsample; median 50%)", False)
    rich = found["many channels, share of the multiply-add peak"]
    assert (rich.found, rich.met) == ("95% (keras; median 95%)", True)
    assert found["`upsample` against PyTorch"].found == "20.0"
    bound = found["filters bound, `keras` against the best library"]
    assert (bound.goal, bound.found, bound.met) == ("at least 1.25", "0.80", False)
    both = "with both gradients, against the best library"
    assert found[f"{both}, geometric mean"].found == "1.20"
    assert found[f"{both}, worst shape"].found == "0.90 (voxel)"


def test_tables_show_ratios_or_why_there_is_none() -> None:
    given = tables.ratio_table(EXAMPLE, 2, GIVEN)
    assert given.title == "Filters with each call, 2 threads"
    assert given.headings[:3] == ["shape", "convt ms", "TF"]
    cells = dict(zip(given.headings, given.rows[0], strict=True))
    assert (cells["convt ms"], cells["TF"], cells["torch"], cells["effective"]) == (
        *("4", "2.00", "1.25"),
        "95%",
    )
    last = dict(zip(given.headings, given.rows[-1], strict=True))
    assert (last["TF"], last["JAX"], last["torch"]) == ("differs", "slow", "")
    assert tables.ratio_table(EXAMPLE, 1, BOUND).rows[0][:2] == ["keras", "4"]
    gradients = tables.gradient_table(EXAMPLE)
    assert gradients.title == "The result and both gradients, 2 threads"
    assert gradients.headings == [
        *("shape", "convt ms", "TF", "TF+oneDNN", "torch", "torch last", "effective", "roofline")
    ]
    assert gradients.rows[1] == ["voxel", "4", "", "", "0.90", "", "95%", "95%"]


def test_where_others_are_ahead_and_what_was_left_out_is_said() -> None:
    assert list(tables.ahead(EXAMPLE)) == [
        "`keras`, 2 threads, filters bound: ONNX Runtime takes 0.80 of convt's time",
        "`voxel`, 2 threads, with both gradients: PyTorch takes 0.90 of convt's time",
    ]
    assert list(tables.left_out(EXAMPLE)) == [
        "TensorFlow, filters given: its result differs (voxel@f16)",
        "JAX, filters given: asleep (voxel@f16)",
    ]


def test_figures_survive_their_file(tmp_path: Path) -> None:
    save(EXAMPLE, tmp_path / "new" / "figures.json")
    assert load(tmp_path / "new" / "figures.json") == EXAMPLE


@pytest.mark.parametrize("text", ["", "[]", '{"format": 0}', '{"format": 2, "rows": [{}]}'])
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"other\.json: no results of this benchmark"):
        load(path)


@pytest.mark.slow
def test_the_page_holds_every_table_and_names_its_pictures(tmp_path: Path) -> None:
    path = write_page(EXAMPLE, tmp_path)
    assert path == tmp_path / PAGE
    text = path.read_text()
    shown = [tables.ratio_table(EXAMPLE, *which) for which in tables.settings(EXAMPLE)]
    for table in (*shown, tables.gradient_table(EXAMPLE)):
        assert f"### {table.title}\n" in text
        assert all(f"| {' | '.join(cells)} |" in text for cells in table.rows)
    for name in ("speedup.png", "roofline.png"):
        assert f"(images/{name})" in text
        assert (tmp_path / "images" / name).read_bytes().startswith(PNG)
    assert "one" in text
    assert "ONNX Runtime takes 0.80 of convt's time" in text


def test_pictures_of_nothing_compared_are_still_pictures(tmp_path: Path) -> None:
    bare = replace(EXAMPLE, rows=(row("voxel@f16"),), gradients=(), goals=())
    for path in pictures.draw(bare, tmp_path):
        assert path.read_bytes().startswith(PNG)


def test_names_of_points_cover_neither_points_nor_each_other() -> None:
    rows = [row(name) for name in PROBLEMS if "@" not in name]
    figure = pictures.roofline(results(*rows), rows)
    figure.canvas.draw()
    (axes,) = figure.axes
    boxes = [t.get_window_extent() for t in axes.texts if t.get_text() in PROBLEMS]
    assert len(boxes) == len(rows)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(axes.get_window_extent().containsx(x) for b in boxes for x in (b.x0, b.x1))


def test_files_go_where_the_kind_of_run_belongs() -> None:
    complete, partial = with_defaults([]), with_defaults(["--quick", "--json=a.json"])
    assert complete[complete.index("--output") + 1] == str(ROOT / "docs")
    assert "--json" in complete
    assert partial[partial.index("--output") + 1] == str(ROOT / "benchmarks" / "results")
    assert "--json" not in partial
    assert "--journal" in partial
    assert with_defaults(["-o", "x", "--draw", "y"]) == ["-o", "x", "--draw", "y", "--force"]


# --- the command -----------------------------------------------------------------------------------
def test_an_unknown_shape_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["bench", "--shapes", "cube"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("convt: 'cube' is no shape known here: unet_bottom,")
    assert error.count("\n") == 1


@pytest.mark.slow
def test_figures_are_drawn_again_without_measuring(tmp_path: Path) -> None:
    from convt.commands import app

    save(EXAMPLE, tmp_path / "figures.json")
    options = ["--draw", str(tmp_path / "figures.json"), "-o", str(tmp_path / "page")]
    done = CliRunner().invoke(app, ["bench", *options])
    assert done.exit_code == 0, done.output
    assert "Filters bound beforehand, 1 thread" in done.output
    assert "ONNX Runtime takes 0.80 of convt's time" in done.output
    assert (tmp_path / "page" / PAGE).exists()
    assert run_command(["bench", *options]) == 2  # the page exists already


# --- the machine's limits --------------------------------------------------------------------------
@pytest.mark.parametrize("level", ["x86-64-v3", "x86-64-v4"])
def test_limits_are_full_vectors_without_spills(level: str) -> None:
    isa = next(isa for isa in target.ISAS if isa.level == level)
    cpu = target.named(level, "x86_64-unknown-linux-gnu", isa)
    lanes, chains = cpu.lanes(4), 12 if cpu.registers <= 16 else 24
    register = "ymm" if lanes == 8 else "zmm"
    lines = jit.assembly(MultiplyAdd("f32", lanes, chains), cpu).split("\n")
    sums = [line for line in lines if "vfmadd" in line]
    assert len(sums) == 8 * chains
    assert all(f"%{register}" in line for line in sums)
    assert not any("rsp" in line for line in lines if "vmov" in line)
    stores = jit.assembly(Copy(lanes, stream=True), cpu)
    assert "vmovntps" in stores
    assert "vmovntps" not in jit.assembly(Copy(lanes, stream=False), cpu)


@pytest.mark.slow
def test_limits_are_measured() -> None:
    rates = Limits(1).measure("f32")
    assert rates.flops > 1e9
    assert rates.bytes == max(rates.copy, rates.stream) > 1e8


# --- whole runs ------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="workers inherit descriptors")
def test_libraries_are_checked_before_they_are_compared() -> None:
    peers = [fake(name) for name in ("right", "wrong", "unserved", "ends")]
    (found,) = measure([SMALL], peers, 1, PACE)
    pairs = {(p.peer, p.setting): p for p in found.pairs}
    assert {key: p.status for key, p in pairs.items()} == {
        ("right", GIVEN): COMPARED,
        ("right", BOUND): COMPARED,
        ("wrong", GIVEN): DIFFERS,
        ("unserved", GIVEN): "unserved",
        ("ends", GIVEN): "failed",
    }
    for setting in (GIVEN, BOUND):
        pair = pairs["right", setting]
        assert len(pair.ratios) == PACE.rounds
        assert min(pair.ratios) <= pair.ratio <= max(pair.ratios)
        own = found.ours(setting)
        assert own is not None
        assert 0 < own.of_peak <= own.of_roofline
    assert pairs["unserved", GIVEN].reason == "not on Sundays"
    assert pairs["ends", GIVEN].reason == "the process ended with code 3: out of luck"
    assert not pairs["wrong", GIVEN].ratios


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="workers inherit descriptors")
def test_gradients_are_three_sums() -> None:
    (found,) = measure([SMALL], [fake("right")], 1, PACE, (GRADIENTS,))
    (own,), (pair,) = found.own, found.pairs
    assert (own.status, own.reason) == (pair.status, pair.reason) == (COMPARED, "")
    assert own.setting == pair.setting == GRADIENTS
    assert (found.flops, found.bytes) == (3 * SMALL.flops, 3 * SMALL.bytes)


def test_a_run_goes_on_where_it_broke_off(tmp_path: Path) -> None:
    path = tmp_path / "new" / "journal.jsonl"
    problems = [PROBLEMS[name] for name in ("keras", "voxel")]
    asked: list[list[str]] = []

    def measured(rest: list[Problem]) -> Iterator[Row]:
        asked.append([problem.name for problem in rest])
        for problem in rest:
            yield row(problem.name)

    def rows(pace: Pace = PACE) -> Iterator[Row]:
        return Journal(path, [], pace).through("results", 2, problems, measured)

    broken = rows()
    assert next(broken).problem == "keras"
    broken.close()  # type: ignore[attr-defined]
    with path.open("a") as file:
        file.write('["results", {"prob')
    assert list(rows()) == [row("keras"), row("voxel")]
    assert list(rows(PACE._replace(rounds=9))) == [row("keras"), row("voxel")]
    assert list(rows(PACE._replace(rounds=9))) == [row("keras"), row("voxel")]
    assert asked == [["keras", "voxel"], ["voxel"], ["keras", "voxel"], []]
    Journal(path, [], PACE).drop()
    assert not path.exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="workers inherit descriptors")
def test_a_library_that_never_answers_is_given_up() -> None:
    with Worker(fake("sleeps"), 1) as worker:
        with pytest.raises(Failed, match="took more than 1 s") as found:
            worker.ask("build", "key", SMALL, GIVEN, timeout=1)
        assert found.value.status == "slow"
        with pytest.raises(Failed, match="another problem ended the process"):
            worker.ask("turn", "key", 0.1, timeout=30)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="workers inherit descriptors")
@pytest.mark.parametrize("name", ["tf", "torch", "jax", "ort", "openvino"])
def test_every_library_computes_the_same(name: str) -> None:
    (peer,) = (peer for peer in PEERS if peer.name == name)
    if not peer.installed:
        pytest.skip(f"{peer.label} is not installed")
    problems = [
        replace(SMALL, strides=(2, 2, 2), kernel=(3, 3, 3)),
        replace(SMALL, name="odd", strides=(2, 2, 2), kernel=(4, 3, 4), output=(5, 7, 4)),
        replace(SMALL, name="valid@ncdhw", padding="VALID", data_format="NCDHW"),
    ]
    settings = (GIVEN, BOUND, GRADIENTS)
    for found in measure(problems, [peer], 1, PACE._replace(rounds=1), settings):
        assert [pair.setting for pair in found.pairs] == [
            *filter(peer.settings.__contains__, settings)
        ]
        for pair in found.pairs:
            assert (pair.status, pair.reason) == (COMPARED, "")
            assert pair.ratio > 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="workers inherit descriptors")
def test_a_whole_run_measures_goals_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goals, "_PROCESSES", 1)
    heard: list[Row | str] = []
    choice = choose_run(quick=True, shapes=["tf19611"], peers=[], threads=[1], rounds=1)
    found = run(choice, heard.append)
    assert found.sound
    assert [r.problem for r in found.rows] == ["tf19611"]
    assert heard[0] == "1 shapes, 1 thread"
    what = " ".join(goal.what for goal in found.goals)
    for part in ("small problem", "memory beyond", "import of convt", "from the disk cache"):
        assert part in what
    assert found.goals[-1] == Goal(
        "kernels compiled for another size alone", "at most 0", found.goals[-1].found, met=True
    )
    save(found, tmp_path / "run.json")
    assert load(tmp_path / "run.json") == found
    assert OURS.name in found.peers
