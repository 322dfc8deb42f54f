"""The tables of a run: cells as text, for the terminal and for a page alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from convt.bench.peers import BOUND, GIVEN, GRADIENTS, PEERS
from convt.bench.results import COMPARED, DIFFERS, Goal, Pair, Results, Row

__all__ = ["Table", "ahead", "goal_table", "gradient_table", "left_out", "ratio_table"]

_SHORT = {
    "tf": "TF",
    "tf-onednn": "TF+oneDNN",
    "torch": "torch",
    "torch-last": "torch last",
    "jax": "JAX",
    "ort": "ORT",
    "openvino": "OpenVINO",
}
_MARKS = {"unserved": "-"}
_WORDS = {
    GIVEN: "filters given",
    BOUND: "filters bound",
    GRADIENTS: "with both gradients",
}


class Table(NamedTuple):
    """Headings and rows; the first `left` columns are words."""

    title: str
    headings: list[str]
    rows: list[list[str]]
    left: int = 1


def ratio_table(results: Results, threads: int, setting: str) -> Table:
    """Every shape in one setting: convt's time, and how many times as long each library took."""
    rows = [row for row in results.rows if row.threads == threads]
    word = "with each call" if setting == GIVEN else "bound beforehand"
    return _ratios(f"Filters {word}, {_threads(threads)}", results, rows, setting)


def gradient_table(results: Results) -> Table:
    """The same for the result and both gradients together."""
    rows = results.gradients
    title = f"The result and both gradients, {_threads(rows[0].threads if rows else 1)}"
    return _ratios(title, results, rows, GRADIENTS)


def _ratios(title: str, results: Results, rows: Sequence[Row], setting: str) -> Table:
    peers = [p.name for p in PEERS if p.name in results.peers and setting in p.settings]
    peers += sorted({p.peer for r in rows for p in r.pairs if p.setting == setting} - {*peers})
    headings = ["shape", "convt ms", *(_SHORT.get(p, p) for p in peers), "effective", "roofline"]
    return Table(title, headings, [_cells(row, setting, peers) for row in rows])


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count != 1)}"


def _cells(row: Row, setting: str, peers: list[str]) -> list[str]:
    pairs = {pair.peer: pair for pair in row.pairs if pair.setting == setting}
    own = row.ours(setting)
    ratios = [_ratio(pairs.get(peer)) for peer in peers]
    if own is None:
        return [row.problem, "failed", *ratios, "", ""]
    shares = [f"{own.of_peak:.0%}", f"{own.of_roofline:.0%}"]
    return [row.problem, milliseconds(own.seconds), *ratios, *shares]


def _ratio(pair: Pair | None) -> str:
    if pair is None:
        return ""
    return times(pair.ratio) if pair.ratio else _MARKS.get(pair.status, pair.status)


def milliseconds(seconds: float) -> str:
    value = 1e3 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def times(ratio: float) -> str:
    """A ratio with three digits, or as a whole number."""
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2f}"


def shape_table(results: Results) -> Table:
    """What the names of the shapes stand for."""
    found = {row.problem: row for row in results.rows}
    rows = [
        [
            name,
            row.title,
            f"{row.flops / 1e9:.3g}",
            f"{row.bytes / 1e6:.3g}",
            f"{row.intensity:.3g}",
        ]
        for name, row in found.items()
    ]
    headings = ["shape", "kernel, stride, input, channels", "GFLOP", "MB", "FLOP/byte"]
    return Table("Shapes", headings, rows, left=2)


def goal_table(goals: tuple[Goal, ...]) -> Table:
    """The goals, each with what was found."""
    rows = [[g.what, g.goal, g.found, "yes" if g.met else "no"] for g in goals]
    return Table("Goals", ["what", "goal", "found", "met"], rows, left=4)


def ahead(results: Results) -> Iterator[str]:
    """Where another library is faster than convt by more than a hundredth, the worst first."""
    pairs = [
        (pair, row)
        for row in (*results.rows, *results.gradients)
        for pair in row.pairs
        if pair.status == COMPARED and 0 < pair.ratio < 0.99
    ]
    for pair, row in sorted(pairs, key=lambda found: found[0].ratio):
        label = results.peers.get(pair.peer, pair.peer)
        yield (
            f"`{row.problem}`, {_threads(row.threads)}, {_WORDS[pair.setting]}: "
            f"{label} takes {pair.ratio:.2f} of convt's time"
        )


def left_out(results: Results) -> Iterator[str]:
    """Which results were not compared, and why, with the shapes that it concerns."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in (*results.rows, *results.gradients):
        own = (Pair("convt", o.setting, o.status, o.reason) for o in row.own)
        for pair in (*own, *row.pairs):
            if pair.status != COMPARED:
                reason = "its result differs" if pair.status == DIFFERS else pair.reason
                shapes = found.setdefault((pair.peer, pair.setting, reason), [])
                if row.problem not in shapes:
                    shapes.append(row.problem)
    for (peer, setting, reason), shapes in found.items():
        label = results.peers.get(peer, peer)
        yield f"{label}, {_WORDS[setting]}: {reason} ({', '.join(shapes)})"


def settings(results: Results) -> list[tuple[int, str]]:
    """The tables of ratios that there are: threads and setting."""
    counts = sorted({row.threads for row in results.rows}, reverse=True)
    return [(threads, setting) for threads in counts for setting in (GIVEN, BOUND)]
