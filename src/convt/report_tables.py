"""A report's numbers -> tables, and tables -> text or HTML.

Constraints of this file: text is plain ASCII for any terminal; HTML is escaped and needs nothing
from elsewhere. Lists are abridged, so that a report stays a page whatever the problem's size.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from itertools import zip_longest
from textwrap import TextWrapper
from typing import TYPE_CHECKING, NamedTuple

from convt.kernels.keys import Channels, Dots, Filtering, Rows
from convt.report_axes import AxisReport, evenness

if TYPE_CHECKING:
    from convt.report import Report

__all__ = ["Table", "as_html", "as_text", "tables", "title"]

_LISTED = 4  # entries of a list that are written out
_PHASES = 6  # phases of an axis that are written out
_NUMBER = re.compile(r"[\d,.]+( [KMGTPE]?i?B)?")


class Table(NamedTuple):
    """Cells of text; a heading over every column, or none at all."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""  # below the rows; one paragraph a line


def title(report: Report) -> str:
    """What is computed, in one line."""
    spec = report.spec
    parts = [str(spec.dtype), spec.data_format, f"padding {spec.padding}"]
    if spec.groups > 1:
        parts.append(f"{spec.groups} groups")
    if spec.bias:
        parts.append("bias")
    return f"conv3d_transpose: {', '.join(parts)}"


def tables(report: Report) -> tuple[Table, ...]:
    """Everything that a report says."""
    return _arrays(report), _axes(report), _phases(report), _work(report), _kernel(report)


def _arrays(report: Report) -> Table:
    spec = report.spec
    rows = [
        ("input", str(spec.input_shape), _bytes(report.input_bytes)),
        ("filters", str(spec.filters_shape), _bytes(report.filters_bytes)),
        ("output", str(spec.output_shape), _bytes(report.output_bytes)),
        ("workspace", "", _bytes(report.workspace_bytes)),
    ]
    if spec.bias:
        rows.insert(2, ("bias", str((spec.out_channels,)), _bytes(report.bias_bytes)))
    return Table("Arrays", ("", "shape", "memory"), tuple(rows))


def _axes(report: Report) -> Table:
    head = (
        "axis", "input", "kernel", "stride", "dilation", "output", "allowed outputs", "pad before",
        "pad after",
    )  # fmt: skip
    rows = []
    for facts in report.axes:
        axis, (low, high) = facts.axis, facts.allowed
        sizes = (axis.input, axis.kernel, axis.stride, axis.dilation, axis.output)
        allowed = f"{low} to {high}" if low < high else f"only {low}"
        rows.append((facts.name, *map(str, sizes), allowed, *map(str, facts.padding)))
    note = "In voxels. The padding is the forward convolution's: here it crops the output."
    return Table("Axes", head, tuple(rows), note)


def _phases(report: Report) -> Table:
    alike: dict[object, list[AxisReport]] = {}
    for facts in report.axes:
        alike.setdefault(facts.axis, []).append(facts)
    rows: list[tuple[str, ...]] = []
    for group in alike.values():
        names = ", ".join(facts.name for facts in group)
        cells = _phase_cells(group[0]) or [("none", "", "", "")]
        rows.extend((names if i == 0 else "", *row) for i, row in enumerate(cells))
    rule = (
        "Output stride * m + phase - pad before is the sum of its taps times the inputs they read."
    )
    return Table(
        "Phases",
        ("axis", "phase", "outputs", "taps", "input read"),
        tuple(rows),
        f"{rule}\n{evenness(report.axes)}",
    )


def _phase_cells(facts: AxisReport) -> list[tuple[str, str, str, str]]:
    axis = facts.axis
    phases = axis.phases
    shown = phases if len(phases) <= _PHASES else (*phases[: _PHASES - 2], phases[-1])
    cells = []
    for phase in shown:
        first = (phase.residue - axis.pad_before) % axis.stride
        outputs = _listed(range(first, axis.output, axis.stride))
        taps = _listed([tap.index for tap in phase.taps]) or "none"
        reads = _listed([_place(tap.shift) for tap in phase.taps])
        cells.append((str(phase.residue), outputs, taps, reads))
    if len(shown) < len(phases):
        cells.insert(-1, ("...", f"{len(phases) - len(shown)} more phases", "", ""))
    return cells


def _place(shift: int) -> str:
    return f"m-{shift}" if shift else "m"


def _listed(values: Sequence[object]) -> str:
    """Name `values`; of a long list, whose middle goes on as it began, the ends."""
    if len(values) <= _LISTED:
        return ", ".join(map(str, values))
    return f"{values[0]}, {values[1]}, ..., {values[-1]}"


def _work(report: Report) -> Table:
    zeros, columns = report.zero_insertion_multiplications, report.column_buffer_bytes
    entry = report.output_bytes // max(report.spec.batch, 1)
    rows: tuple[tuple[str, str, str], ...] = (
        ("multiplications", f"{report.multiplications:,}", ""),
        (
            "zeros inserted into the input would take",
            f"{zeros:,}",
            _ratio(zeros, report.multiplications, "times as many"),
        ),
        (
            "a column buffer of one batch entry would hold",
            _bytes(columns),
            _ratio(columns, entry, "times that entry's output"),
        ),
    )
    found = report.plan.filtered
    if found is not None:
        saved = _ratio(report.multiplications, found.products, "times fewer")
        rows = (rows[0], ("minimal filtering takes", f"{found.products:,}", saved), *rows[1:])
    return Table("Work", (), rows)


def _kernel(report: Report) -> Table:
    plan = report.plan
    kernel, target = plan.kernel, plan.target
    counts = " x ".join(str(len(chunks)) for chunks in plan.chunks)
    largest = (max((c.stop - c.start for c in chunks), default=0) for chunks in plan.chunks)
    threads = min(plan.threads, max(plan.tasks, 1))
    rows = (
        ("name", kernel.name),
        ("family", f"{kernel.family}: {plan.reason}"),
        ("tile", _tile(kernel)),
        ("lanes", f"{kernel.lanes} of {kernel.wide.name}"),
        ("instructions", f"{target.isa}, {target.vector_bits}-bit registers, for {target.cpu}"),
        ("chunks", f"{counts} of up to {' x '.join(map(str, largest))} outputs"),
        ("batch", f"{plan.batch_step} of {_count(plan.spec.batch, 'entry', 'entries')} at a time"),
        ("tasks", f"{plan.tasks:,} on {_count(threads, 'thread', 'threads')}"),
    )
    notes = []
    if kernel.rows:
        notes.append("With NaN or Inf in the filters, the family of channels takes over.")
    if not report.compiled:
        notes.append(
            "This process may not make memory executable: NumPy computes the same results, slowly."
        )
    return Table("Kernel", (), rows, "\n".join(notes))


def _tile(kernel: Channels | Dots | Filtering | Rows) -> str:
    if isinstance(kernel, Rows):
        if kernel.lines > 1:
            return f"{kernel.lines} x {kernel.columns}, rows x columns"
        return f"{kernel.channels} x {kernel.columns}, output channels x columns"
    if isinstance(kernel, Dots):
        return f"{kernel.phases} x {kernel.columns}, phases x columns"
    if isinstance(kernel, Channels):
        return f"{kernel.pixels} x {kernel.block_channels}, pixels x output channels"
    axes = (
        " or ".join(f"F({m}, {r})" for m, r in axis)
        for axis in (kernel.depth, kernel.height, kernel.width)
    )
    tile = kernel.products
    return f"{'; '.join(axes)}; summed {tile.pixels} x {tile.block_channels} at a time"


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _bytes(size: int) -> str:
    """Write a number of bytes with a binary unit, rounded to a tenth of it."""
    if size < 1024:
        return f"{size} B"
    power = min((size.bit_length() - 1) // 10, 6)
    return f"{size / 1024**power:,.1f} {'KMGTPE'[power - 1]}iB"


def _ratio(number: int, base: int, unit: str) -> str:
    if not base:
        return ""
    ratio = number / base
    return f"{ratio:,.0f} {unit}" if ratio >= 100 else f"{ratio:.3g} {unit}"


def as_text(heading: str, parts: Sequence[Table]) -> str:
    """Lay out `parts` below `heading`, columns aligned by spaces."""
    return "\n\n".join([heading, *map(_table_text, parts)])


def _table_text(table: Table) -> str:
    lines = [table.head, *table.rows] if table.head else [*table.rows]
    columns = list(zip_longest(*lines, fillvalue=""))
    widths = [max(map(len, column)) for column in columns]
    right = [_numeric(column[1:] if table.head else column) for column in columns]
    text = [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    ]
    return "\n".join([table.title, *(f"  {line}" for line in text), *_wrapped(table.note)])


def _numeric(cells: Sequence[str]) -> bool:
    return all(_NUMBER.fullmatch(cell) or cell in ("", "...") for cell in cells)


def _wrapped(note: str) -> list[str]:
    layout = TextWrapper(96, break_on_hyphens=False, break_long_words=False)
    return [f"  {line}" for paragraph in note.splitlines() for line in layout.wrap(paragraph)]


def as_html(heading: str, parts: Sequence[Table]) -> str:
    """Lay out `parts` below `heading` as a piece of HTML."""
    body = "".join(map(_table_html, parts))
    return f'<div class="convt-report"><p><b>{escape(heading)}</b></p>{body}</div>'


def _table_html(table: Table) -> str:
    head = _row_html("th", table.head, [False] * len(table.head)) if table.head else ""
    right = [_numeric(column) for column in zip(*table.rows, strict=True)]
    rows = "".join(_row_html("td", row, right) for row in table.rows)
    note = "".join(f"<p>{escape(paragraph)}</p>" for paragraph in table.note.splitlines())
    caption = f'<caption style="text-align:left"><b>{escape(table.title)}</b></caption>'
    return f"<table>{caption}{head}{rows}</table>{note}"


def _row_html(tag: str, cells: Sequence[str], right: Sequence[bool]) -> str:
    aligned = ("right" if to_right else "left" for to_right in right)
    inner = "".join(
        f'<{tag} style="text-align:{side}">{escape(cell)}</{tag}>'
        for cell, side in zip(cells, aligned, strict=True)
    )
    return f"<tr>{inner}</tr>"
