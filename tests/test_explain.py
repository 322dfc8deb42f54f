"""The report on a problem: its numbers, its text, its HTML and its picture."""

from __future__ import annotations

import dataclasses
import html.parser
import itertools
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import convt
from convt import jit, run
from convt.geometry import Axis
from convt.plan import make_plan
from convt.report import Report, explain
from convt.report_axes import AxisReport, evenness
from oracles import BFLOAT16, DTYPES, forward_size

EXAMPLE: dict[str, Any] = {
    "input": (1, 4, 4, 4, 8),
    "filters": (3, 3, 3, 16, 8),
    "output_shape": None,
    "strides": 2,
}


def example(**changes: Any) -> Report:
    """Explain a 4x4x4 volume, 8 -> 16 channels, kernel 3, stride 2, with changes."""
    return explain(**(EXAMPLE | changes))


def one_axis(size: int, kernel: int, stride: int, dilation: int = 1, **changes: Any) -> Report:
    """Explain a row of voxels along the width."""
    arguments: dict[str, Any] = {
        "input": (1, 1, 1, size, 1),
        "filters": (1, 1, kernel, 1, 1),
        "output_shape": None,
        "strides": (1, 1, stride),
        "dilations": (1, 1, dilation),
    }
    return explain(**(arguments | changes))


def lines(report: Report) -> list[list[str]]:
    """The report's lines, each cut where two spaces or more part its cells."""
    return [
        [cell.strip() for cell in line.split("  ") if cell.strip()]
        for line in str(report).splitlines()
    ]


# --- the worked example ---------------------------------------------------------------------------
def test_the_example_names_problem_and_arrays() -> None:
    text = lines(example())
    assert text[0] == ["conv3d_transpose: float32, NDHWC, padding SAME"]
    assert ["input", "(1, 4, 4, 4, 8)", "2.0 KiB"] in text
    assert ["filters", "(3, 3, 3, 16, 8)", "13.5 KiB"] in text
    assert ["output", "(1, 8, 8, 8, 16)", "32.0 KiB"] in text


@pytest.mark.parametrize("name", ["depth", "height", "width"])
def test_the_example_prints_every_axis(name: str) -> None:
    text = lines(example())
    heads = "axis input kernel stride dilation output allowed_outputs pad_before pad_after"
    assert [head.replace("_", " ") for head in heads.split()] in text
    assert [name, "4", "3", "2", "1", "8", "7 to 8", "0", "1"] in text


def test_the_example_prints_phases_and_taps() -> None:
    text = lines(example())
    assert ["depth, height, width", "0", "0, 2, 4, 6", "0, 2", "m, m-1"] in text
    assert ["1", "1, 3, 5, 7", "1", "m"] in text


def test_the_example_counts_the_work() -> None:
    report, text = example(), lines(example())
    # Per axis 4 inputs times 3 taps are 12 pairs, of which one lands on output 8, beyond the end.
    assert report.multiplications == 11**3 * 8 * 16
    assert report.zero_insertion_multiplications == 8**3 * 3**3 * 8 * 16
    assert report.column_buffer_bytes == 4**3 * 3**3 * 16 * 4
    assert ["multiplications", "170,368"] in text
    assert [
        "zeros inserted into the input would take", "1,769,472", "10.4 times as many",
    ] in text  # fmt: skip
    assert [
        "a column buffer of one batch entry would hold",
        "108.0 KiB",
        "3.38 times that entry's output",
    ] in text


def test_the_example_names_the_kernel() -> None:
    report = example(threads=2)
    plan, text = report.plan, dict(line for line in lines(example(threads=2)) if len(line) == 2)
    assert text["name"] == plan.kernel.name
    assert text["family"] == f"{plan.kernel.family}: {plan.reason}"
    assert text["tile"].split(",")[0].replace(" ", "") in plan.kernel.name.split("_")
    assert text["lanes"] == f"{plan.kernel.lanes} of f32"
    assert text["instructions"].startswith(plan.target.isa)
    assert text["chunks"] == "1 x 1 x 1 of up to 8 x 8 x 8 outputs"
    assert text["tasks"] == "1 on 1 thread"
    assert report.workspace_bytes == plan.workspace_bytes


def test_another_allowed_output_changes_the_padding() -> None:
    text = lines(example(output_shape=(1, 7, 8, 8, 16)))
    assert ["depth", "4", "3", "2", "1", "7", "7 to 8", "1", "1"] in text
    assert ["height, width", "0", "0, 2, 4, 6", "0, 2", "m, m-1"] in text
    assert ["depth", "0", "1, 3, 5", "0, 2", "m, m-1"] in text


def test_a_prompt_shows_the_table() -> None:
    assert repr(example()) == str(example())


def test_text_is_ascii() -> None:
    assert str(example(dilations=3, bias=(16,))).isascii()


# --- the numbers of an axis -----------------------------------------------------------------------
@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 2), (0, 3), (2, 0))])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 2, 1), (2, 3, 1), (3, 4, 3)])
def test_allowed_outputs_are_those_that_the_forward_convolution_maps_back(
    padding: Any, kernel: int, stride: int, dilation: int
) -> None:
    report = explain(
        (1, 5, 5, 5, 1), (kernel,) * 3 + (1, 1), None, stride, padding, dilations=dilation
    )
    for index, facts in enumerate(report.axes):
        pads = padding if isinstance(padding, str) else padding[index]
        mapped = [n for n in range(60) if forward_size(n, kernel, stride, dilation, pads) == 5]
        assert facts.allowed == (mapped[0], mapped[-1])


def test_explicit_padding_is_printed_as_given() -> None:
    report = example(padding=((1, 2), (0, 3), (0, 0)))
    assert [facts.padding for facts in report.axes] == [(1, 2), (0, 3), (0, 0)]
    assert "padding ((1, 2), (0, 3), (0, 0))" in str(report).splitlines()[0]


def test_same_padding_is_what_the_forward_convolution_pads() -> None:
    for out in (15, 16, 17, 18):
        facts = one_axis(5, 7, 4, 2, output_shape=(1, 1, 1, out + 2, 1)).axes[2]
        total = 4 * 4 + 6 * 2 + 1 - (out + 2)
        assert facts.padding == (total // 2, total - total // 2)


axes_to_count = st.tuples(
    st.integers(0, 7), st.integers(1, 7), st.integers(1, 5), st.integers(1, 3)
)


@given(axes_to_count, st.sampled_from(["SAME", "VALID", (1, 0), (0, 2)]), st.integers(0, 4))
def test_hits_are_those_counted_one_by_one(
    axis: tuple[int, int, int, int], padding: Any, extra: int
) -> None:
    size, kernel, stride, dilation = axis
    pads = padding if isinstance(padding, str) else ((0, 0), (0, 0), padding)
    try:
        facts = one_axis(size, kernel, stride, dilation, padding=pads).axes[2]
    except ValueError:
        return  # the padding crops more than there is
    out = min(facts.allowed[0] + extra, facts.allowed[1])
    report = one_axis(size, kernel, stride, dilation, padding=pads, output_shape=(1, 1, 1, out, 1))
    facts = report.axes[2]
    expected = np.zeros(out, np.int64)
    for i, tap in itertools.product(range(size), range(kernel)):
        position = stride * i + dilation * tap - facts.padding[0]
        if 0 <= position < out:
            expected[position] += 1
    np.testing.assert_array_equal(facts.hits(), expected)
    np.testing.assert_array_equal(facts.hits(out // 3, out // 2), expected[out // 3 : out // 2])
    assert report.multiplications == expected.sum()


def test_hits_of_a_part_need_no_more_memory_than_the_part() -> None:
    size = 1 << 40
    facts = AxisReport("width", Axis(size, 2 * size, 4, 2, 1, 1), (2 * size - 1, 2 * size), (1, 1))
    np.testing.assert_array_equal(facts.hits(size - 1, size + 2), [2, 2, 2])
    np.testing.assert_array_equal(facts.hits(2 * size - 3), [2, 2, 1])


# --- checkerboards --------------------------------------------------------------------------------
def test_uneven_hits_are_told_with_the_kernels_that_are_even() -> None:
    said = evenness(example().axes)
    assert "away from the borders: 1 to 2 on each axis. This is uneven" in said
    assert "distill.pub/2016/deconv-checkerboard" in said
    assert "divisible by the stride 2, such as 2 or 4 on each axis" in said


def test_even_hits_are_told() -> None:
    said = evenness(example(filters=(4, 4, 4, 16, 8)).axes)
    assert said.endswith("away from the borders: 2 on each axis. This is even: no checkerboard.")


def test_only_the_uneven_axes_are_told_how_to_be_even() -> None:
    said = evenness(example(filters=(4, 3, 5, 16, 8), strides=(2, 2, 3)).axes)
    assert "2 (depth); 1 to 2 (height, width)" in said
    assert "stride 2, such as 2 or 4 (height); " in said
    assert "stride 3, such as 3 or 6 (width)." in said


def test_where_the_kernel_reaches_past_the_input_nothing_is_called_even() -> None:
    said = evenness(explain((2, 1, 1, 1, 5), (28, 28, 1, 1, 5), None, 1, "VALID").axes)
    assert "the kernel reaches past the whole input (depth, height); 1 (width)." in said
    assert "even" not in said


@pytest.mark.parametrize(("stride", "dilation"), [*itertools.product((1, 2, 3, 4), (1, 2, 3))])
def test_the_kernels_called_even_are_even(stride: int, dilation: int) -> None:
    for kernel in range(1, 9):
        size = 3 * kernel * dilation
        facts = one_axis(size, kernel, stride, dilation, padding="VALID").axes[2]
        border = dilation * (kernel - 1)
        inside = facts.hits(border, stride * size - border)
        assert facts.hits_inside == (inside.min(), inside.max())
        remedy = facts.remedy()
        if remedy.startswith("no kernel size"):
            assert inside.min() < inside.max()
            assert f"stride {stride} and dilation {dilation}" in remedy
        else:
            assert (inside.min() == inside.max()) == (kernel % stride == 0)
            suggested = remedy.rpartition("such as ")[2].split(" or ")
            assert all(int(number) % stride == 0 for number in suggested)


# --- arrays and shapes ----------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("data_format", ["NDHWC", "NCDHW"])
def test_arrays_and_their_shapes_are_explained_alike(dtype: Any, data_format: str) -> None:
    shape = (2, 4, 5, 6, 8) if data_format == "NDHWC" else (2, 8, 4, 5, 6)
    arguments: dict[str, Any] = {"output_shape": None, "strides": 2, "groups": 2}
    arguments["data_format"] = data_format
    x, w, b = np.empty(shape, dtype), np.empty((3, 2, 1, 6, 4), dtype), np.empty(6, dtype)
    report = explain(x, w, bias=b, **arguments)
    assert report == explain(x.shape, w.shape, bias=b.shape, dtype=dtype, **arguments)
    assert str(report) == str(explain(x.shape, w.shape, bias=(6,), dtype=dtype, **arguments))
    assert str(report).splitlines()[0] == (
        f"conv3d_transpose: {dtype.name}, {data_format}, padding SAME, 2 groups, bias"
    )
    assert ["bias", "(6,)", f"{6 * dtype.itemsize} B"] in lines(report)


@pytest.mark.parametrize("shape", [[1, 4, 4, 4, 8], np.array([1, 4, 4, 4, 8]), range(4, 9)])
def test_a_shape_may_be_any_vector_of_integers(shape: Any) -> None:
    assert example(input=shape).spec.input_shape == tuple(shape)


def test_numbers_in_lists_are_arrays() -> None:
    x = np.ones((1, 2, 2, 2, 1)).tolist()
    report = explain(x, np.ones((2, 2, 2, 1, 1)).tolist(), None, 2, bias=[0.5])
    assert report.spec.dtype == np.float64
    assert report.spec.bias


@pytest.mark.parametrize(("dtype", "size"), [("bfloat16", 2), (BFLOAT16, 2), (np.float64, 8)])
def test_dtype_is_that_of_shapes(dtype: Any, size: int) -> None:
    assert example(dtype=dtype).input_bytes == 4**3 * 8 * size


def test_shapes_beside_an_array_take_its_dtype() -> None:
    report = example(input=np.empty((1, 4, 4, 4, 8), np.float16))
    assert report.spec.dtype == np.float16


class Tensor:
    """What an array of a framework or on disk looks like from outside."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype = shape, dtype

    def __array__(self, dtype: Any = None, copy: Any = None) -> npt.NDArray[Any]:
        raise AssertionError("memory was read")

    def __getitem__(self, key: Any) -> Any:
        raise AssertionError("memory was read")


class Named:
    """What a dtype of a framework looks like: a name, if need be behind the framework's."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


@pytest.mark.parametrize("dtype", ["bfloat16", BFLOAT16, Named("lib.bfloat16")])
def test_arrays_of_any_kind_are_described_without_reading_them(dtype: Any) -> None:
    x, w = Tensor((1, 4, 4, 4, 8), dtype), Tensor((3, 3, 3, 16, 8), dtype)
    assert example(input=x, filters=w) == example(dtype="bfloat16")


def test_an_unknown_dtype_is_refused_by_its_name() -> None:
    with pytest.raises(TypeError, match=r"input dtype lib\.quint8 must be float16, bfloat16"):
        example(input=Tensor((1, 4, 4, 4, 8), Named("lib.quint8")))
    with pytest.raises(
        TypeError, match="dtype must be float16, bfloat16, float32 or float64, got None"
    ):
        example(dtype=None)


def borders(shape: tuple[int, ...], dtype: Any = np.float32) -> npt.NDArray[Any]:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("x", "w", "rest"),
    [
        (borders((1, 6, 6, 6, 16)), borders((3, 3, 3, 32, 16)), {}),
        (borders((1, 6, 6, 6, 16), ">f4"), borders((3, 3, 3, 32, 16)), {}),
        (borders((1, 6, 6, 6, 16)), borders((3, 3, 3, 32, 16), ">f4"), {}),
        (borders((1, 16, 6, 6, 6)).transpose(0, 2, 3, 4, 1), borders((3, 3, 3, 32, 16)), {}),
        (borders((1, 6, 6, 6, 32))[..., ::2], borders((3, 3, 3, 32, 16)), {"threads": 3}),
        (borders((1, 16, 6, 6, 6)), borders((3, 3, 3, 32, 16)), {"data_format": "NCDHW"}),
        (borders((1, 6, 6, 6, 16)), borders((3, 3, 3, 32, 4)), {"groups": 4}),
        (borders((1, 20, 20, 20, 1)), borders((4, 4, 4, 1, 1)), {}),
        (borders((1, 20, 20, 20, 1), BFLOAT16), borders((4, 4, 4, 1, 1), BFLOAT16), {}),
        (borders((1, 1, 1, 1, 3)), borders((1, 1, 1, 5, 3)), {"strides": 1}),
    ],
)
def test_the_plan_explained_is_the_plan_that_runs(
    x: npt.NDArray[Any], w: npt.NDArray[Any], rest: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Any] = []
    monkeypatch.setattr(run, "pack_filters", lambda *_, **__: None)
    monkeypatch.setattr(run, "execute", lambda plan, *_: ran.append(plan))
    arguments = {"output_shape": None, "strides": 2} | rest
    convt.conv3d_transpose(x, w, **arguments)
    assert [explain(x, w, **arguments).plan] == ran


# --- errors ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output_shape": (1, 9, 8, 8, 16)}, r"output_shape\[1\] = 9 \(depth\).*allowed 7 to 8"),
        ({"output_shape": (1, 8, 8, 8, 15)}, r"output_shape\[4\] = 15 \(channels\)"),
        ({"padding": "same"}, 'write "SAME"'),
        ({"strides": 0}, "strides = 0 must be at least 1"),
        ({"groups": 3}, "groups = 3 must divide"),
        ({"threads": 0}, "threads = 0 must be at least 1"),
        ({"data_format": "NHWC"}, "data_format must be"),
        ({"filters": np.empty((3, 3, 3, 16, 8), np.float64)}, "filters dtype float64 must be"),
        ({"bias": np.empty(15, np.float32)}, r"bias\.shape = \(15,\) must be \(16,\)"),
    ],
)
def test_errors_are_those_of_the_call(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "input": np.empty((1, 4, 4, 4, 8), np.float32),
        "filters": np.empty((3, 3, 3, 16, 8), np.float32),
        "output_shape": None,
        "strides": 2,
    }
    with pytest.raises((TypeError, ValueError), match=message) as called:
        convt.conv3d_transpose(**(arguments | changes))
    with pytest.raises(called.type, match=message) as explained:
        explain(**(arguments | changes))
    assert str(explained.value) == str(called.value)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 4, 4, 8), r"input must have 5 dimensions .*got shape \(1, 4, 4, 8\)"),
        (None, r"input\.shape must be 5 integers, got None"),
        ((1, 4, 4, -4, 8), r"input\.shape\[3\] = -4 must be at least 0"),
    ],
)
def test_a_shape_that_is_none_is_refused(shape: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        example(input=shape)


# --- any size -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("shape", "out"),
    [((0, 4, 4, 4, 8), 8), ((1, 0, 4, 4, 8), 0), ((1, 4, 4, 4, 0), 8), ((0, 0, 0, 0, 0), 0)],
)
def test_sizes_of_zero(shape: tuple[int, ...], out: int) -> None:
    report = example(input=shape, filters=(3, 3, 3, 16, shape[4]))
    assert report.multiplications == report.input_bytes == 0
    assert report.axes[0].axis.output == out
    assert ["multiplications", "0"] in lines(report)
    assert report._repr_html_()


def test_no_output_channels() -> None:
    report = example(filters=(3, 3, 3, 0, 8))
    assert report.output_bytes == report.filters_bytes == 0
    assert ["output", "(1, 8, 8, 8, 0)", "0 B"] in lines(report)


def test_a_huge_volume_is_explained_at_once_and_without_memory() -> None:
    def once() -> tuple[float, Report]:
        start = time.perf_counter()
        report = explain((1, 1024, 1024, 1024, 64), (4, 4, 4, 32, 64), None, 2)
        assert str(report)
        return time.perf_counter() - start, report

    tracemalloc.start()
    once()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
    make_plan.cache_clear()
    assert once()[0] < 0.5  # most of it is the plan's, which is made once
    seconds, report = min((once() for _ in range(3)), key=lambda pair: pair[0])
    assert seconds < 0.05
    assert report.output_bytes == 2048**3 * 32 * 4
    assert ["output", "(1, 2048, 2048, 2048, 32)", "1.0 TiB"] in lines(report)


def test_a_huge_array_is_not_read() -> None:
    x = np.broadcast_to(np.float32(0), (1, 1024, 1024, 1024, 64))
    report = explain(x, (4, 4, 4, 32, 64), None, 2)
    assert report.input_bytes == 4 * x.size


def test_many_phases_and_taps_are_abridged() -> None:
    report = one_axis(300, 1000, 37, 2, padding="VALID")
    text = lines(report)
    assert ["...", "32 more phases"] in text
    assert ["width", "0", "0, 37, ..., 13061", "0, 37, ..., 999", "m, m-2, ..., m-54"] in text
    assert len(str(report).splitlines()) < 60


def test_phases_without_taps_are_printed() -> None:
    assert ["1", "1, 3, 5, 7", "none"] in lines(one_axis(4, 1, 2))


# --- what it must not do, and how it is reached ---------------------------------------------------
def test_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("compiled")

    monkeypatch.setattr(jit, "load", refuse)
    monkeypatch.setattr(jit, "_machine", refuse)
    assert str(example(filters=(3, 3, 3, 17, 8)))


def test_it_says_when_numpy_would_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "NumPy" not in str(example())
    monkeypatch.setattr(jit, "can_execute", lambda: False)
    assert "not make memory executable: NumPy computes the same results" in str(example())


def test_explain_stays_a_function() -> None:
    import convt.report

    assert convt.explain is convt.report.explain


def test_name_changes_nothing() -> None:
    assert example(name="up") == example()


def test_a_report_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        example().compiled = False  # type: ignore[misc]


# --- HTML -----------------------------------------------------------------------------------------
class Page(html.parser.HTMLParser):
    """Checks that tags are closed in order, and collects the cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert {name for name, _ in attrs} <= {"class", "style"}  # nothing from elsewhere
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.cells.append(data)


def test_html_has_what_the_text_has() -> None:
    report = example()
    cells = Page(report._repr_html_()).cells
    for line in lines(report)[2:]:
        assert set(line) <= set(cells) or len(line) == 1  # notes are wrapped in the text alone


def test_html_is_escaped() -> None:
    report = example()
    hostile = Report(dataclasses.replace(report.plan, reason="<script>1 & 2</script>"), True)
    page = hostile._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;1 &amp; 2&lt;/script&gt;" in page
    assert f"{report.plan.kernel.family}: <script>1 & 2</script>" in Page(page).cells


# --- the picture ----------------------------------------------------------------------------------
def test_the_picture_shows_the_hits_of_three_planes() -> None:
    report = example(input=(1, 4, 5, 6, 8), strides=(2, 2, 1))
    depth, height, width = (facts.hits() for facts in report.axes)
    panels = report.plot().axes[:3]
    shown = [np.asarray(panel.images[0].get_array()) for panel in panels]
    np.testing.assert_array_equal(shown[0], np.outer(height, width) * depth[4])
    np.testing.assert_array_equal(shown[1], np.outer(depth, width) * height[5])
    np.testing.assert_array_equal(shown[2], np.outer(depth, height) * width[3])
    assert [panel.get_title() for panel in panels] == [
        "depth 4 of 8",
        "height 5 of 10",
        "width 3 of 6",
    ]
    assert all(panel.images[0].get_clim() == (0, 2 * 2 * 3) for panel in panels)


def test_axes_of_one_voxel_are_drawn_as_profiles() -> None:
    report = one_axis(5, 3, 2)
    panels: Any = report.plot().axes
    np.testing.assert_array_equal(panels[0].patches[0].get_data().values, report.axes[2].hits())
    assert len(panels) == 3  # nothing has a colour, so there is no bar of colours
    assert panels[0].get_xlabel() == "width"


def test_the_caption_says_whether_hits_are_even() -> None:
    caption = example().plot().get_supxlabel()
    assert " ".join(caption.split()) == evenness(example().axes)


def test_long_axes_are_drawn_from_their_beginning() -> None:
    panel: Any = one_axis(1 << 20, 3, 2).plot().axes[0]
    assert len(panel.patches[0].get_data().values) == 128
    assert panel.get_xlabel() == "width: the first 128 of 2,097,152"


def test_without_outputs_the_picture_says_so() -> None:
    panels = example(input=(1, 0, 4, 4, 8)).plot().axes
    assert [panel.texts[0].get_text() for panel in panels] == ["no outputs"] * 3


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_the_picture_is_written(suffix: str, magic: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"hits.{suffix}"
    path.write_bytes(b"an older picture")
    figure = example().plot(path if suffix == "png" else str(path))
    assert path.read_bytes().startswith(magic)
    assert figure.get_suptitle() == "How often each output voxel is hit"


@pytest.mark.slow
def test_notebooks_show_the_picture() -> None:
    figure: Any = example().plot()
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "convt.report_plot", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    with pytest.raises(ImportError, match=r'needs matplotlib: pip install "convt\[cli\]"'):
        example().plot()


@pytest.mark.slow
def test_matplotlib_is_loaded_for_the_picture_alone_and_needs_no_display() -> None:
    script = """
import sys, convt
report = convt.explain((1, 4, 4, 4, 8), (3, 3, 3, 16, 8), None, 2)
str(report), report._repr_html_()
assert "matplotlib" not in sys.modules
report.plot()._repr_png_()
assert "matplotlib.pyplot" not in sys.modules
"""
    environment = {"PATH": "", "MPLBACKEND": "TkAgg"}  # a backend that would ask for a display
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
