"""``performance.md``: a run as a page, with its pictures. Every figure on it comes from the run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from convt.bench import pictures, tables
from convt.bench.problems import QUICK
from convt.bench.results import Results, overall
from convt.bench.tables import Table

__all__ = ["PAGE", "write_page"]

PAGE = "performance.md"

_HOW = """\
Every library works in a process of its own, in its best configuration and on the same data, and computes
one problem at a time. Its result is first checked at 1024 output voxels against the definition in float64;
a library whose error is more than a few roundings is named above and not compared. Then turns alternate:
convt, one other library, convt, the next one. A turn is a tenth of a second of calls, or one call if that
takes longer, and counts by its median. Only a turn and the one of convt's just before it are compared,
because the speed of a machine drifts: each ratio above is the median of {rounds} such ratios (fewer for a
library that is far behind).

- **Filters with each call**: the call takes input and filters, as `convt.conv3d_transpose` and the
  functions of TensorFlow, PyTorch and JAX do. convt packs the filters on each call.
- **Filters bound beforehand**: `convt.ConvTranspose3D`, PyTorch with filters in oneDNN's order (what its
  compiler makes of a frozen model), and models of one node in ONNX Runtime and OpenVINO.
- TensorFlow runs as shipped, and once more with `TF_ENABLE_ONEDNN_OPTS=1`; PyTorch with contiguous tensors
  and with `channels_last_3d`; OpenVINO computes in float32. A library that wants channels first gets its
  data in that order before the clock starts. Nothing is recorded for gradients, and each library allocates
  its own result. JAX, whose calls take seconds, is measured on the most threads alone.
- **The result and both gradients**: `convt.conv3d_transpose_vjp`, TensorFlow's `GradientTape` and PyTorch's
  autograd, with a gradient of the output that is there already. All three arrays are checked: the gradient
  in the input at 1024 voxels, that in the filters at all taps of 8 x 8 channels.
- **effective**: the products that the definition asks for, done per second, as a share of the fused
  multiply-adds that this machine can do, measured by generated code between the turns. It goes past 100%
  where minimal filtering gets by with fewer products. **roofline**: the share of what that peak and the
  speed of copying large arrays allow together, with each array moved once (for gradients: in each of the
  three operations). Arrays that stay in the caches can do better than that.
"""


def write_page(results: Results, folder: Path) -> Path:
    """Write ``performance.md`` and ``images/`` into `folder`; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures.draw(results, folder / "images")
    path = folder / PAGE
    path.write_text("\n".join(_page(results)).rstrip() + "\n")
    return path


def _page(results: Results) -> Iterator[str]:
    yield "# Performance"
    yield ""
    yield (
        f"Measured on {results.date} in {results.seconds / 60:.0f} minutes by `make bench`, which wrote "
        "this page. `convt bench` measures your machine."
    )
    yield from _section("The machine")
    names = {**results.machine, "libraries": ", ".join(map(" ".join, results.versions.items()))}
    yield from _table(Table("", ["", ""], [[name, text] for name, text in names.items()], left=2))
    yield from _section("In short")
    yield from _headline(results)
    yield from _table(tables.goal_table(results.goals))
    yield from _section("Against other libraries")
    yield "![Time of the fastest other library over convt's, by shape](images/speedup.png)"
    yield ""
    yield (
        "The figures are ratios of times: above 1, convt is faster. "
        "`-`: the library does not offer it; other words are explained below."
    )
    for threads, setting in tables.settings(results):
        yield from _section(tables.ratio_table(results, threads, setting).title, level=3)
        yield from _table(tables.ratio_table(results, threads, setting))
    if results.gradients:
        table = tables.gradient_table(results)
        yield from _section(table.title, level=3)
        yield from _table(table)
    yield from _section("Against the machine")
    yield "![convt's effective rate beside the roofline of this machine](images/roofline.png)"
    yield from _section("Where another library is ahead")
    yield from _list(
        tables.ahead(results), "Nowhere in this run, but for differences below one percent."
    )
    yield from _section("What was not compared")
    yield from _list(tables.left_out(results), "Everything was compared.")
    yield from _section("How it is measured")
    yield _HOW.format(rounds=results.rounds)
    yield from _section("The shapes")
    yield from _table(tables.shape_table(results))


def _headline(results: Results) -> Iterator[str]:
    most = max((row.threads for row in results.rows), default=0)
    rows = [r for r in results.rows if r.threads == most and r.problem in QUICK]
    mean = overall(rows)
    if mean is not None:
        yield (
            f"Over {len(rows)} layers of common networks in float32, on {most} threads, the fastest "
            f"other library of each takes {mean:.2f} times as long as convt (geometric mean)."
        )
        yield ""
    mean = overall(results.gradients)
    if mean is not None:
        yield (
            f"With both gradients, over {len(results.gradients)} of them, it is {mean:.2f} times as long."
        )
        yield ""


def _section(title: str, level: int = 2) -> Iterator[str]:
    yield from ("", f"{'#' * level} {title}", "")


def _list(lines: Iterable[str], otherwise: str) -> Iterator[str]:
    items = [f"- {line}." for line in lines]
    yield from items or [otherwise]


def _table(table: Table) -> Iterator[str]:
    yield f"| {' | '.join(table.headings)} |"
    right = len(table.headings) - table.left
    yield f"|{'|'.join(['---'] * table.left + ['---:'] * right)}|"
    for row in table.rows:
        yield f"| {' | '.join(cell.replace('|', '/') for cell in row)} |"
