"""``convt bench``: convt against the libraries that are installed, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from convt.bench import tables
from convt.bench.journal import Journal
from convt.bench.page import PAGE, write_page
from convt.bench.results import Results, Row, load, save
from convt.bench.run import Choice, choose_run, run
from convt.commands.options import Force, check_targets, integers

__all__ = ["bench"]

_WIDTH = 118  # columns of the tables, where the terminal does not say


def bench(
    quick: Annotated[
        bool, typer.Option("--quick", help="Twelve common layers, few rounds: minutes.")
    ] = False,
    shapes: Annotated[str | None, typer.Option(metavar="A,B", help="Only these shapes.")] = None,
    peers: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Only these libraries: tf, tf-onednn, torch, torch-last, jax, ort, openvino.",
        ),
    ] = None,
    threads: Annotated[
        str | None, typer.Option(metavar="N,M", help="Numbers of threads; default: all, then 1.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(metavar="N", help="Turns of each library on each shape.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Write performance.md and its pictures there."
        ),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all figures as JSON.")
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Keep what is measured there, and go on from it if broken off."
        ),
    ] = None,
    draw: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Show the figures of this JSON file; measure nothing."),
    ] = None,
    force: Force = False,
) -> None:
    """Measure convt against other libraries and against this machine's limits.

    [bold]convt bench --quick[/bold]
    """
    page = None if output is None else output / PAGE
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    check_targets((json, (".json",)), (page, (".md",)), force=force)
    choice = choose_run(
        quick=quick,
        shapes=_names(shapes),
        peers=_names(peers),
        threads=None if threads is None else integers("--threads", threads),
        rounds=rounds,
    )
    kept = None if draw is not None else Journal(journal, choice.peers, choice.pace)
    results = load(draw) if draw is not None else measure(choice, kept)
    report(results, output=output, json=json)
    if kept is not None:
        kept.drop()
    raise typer.Exit(0 if results.sound else 2)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",")]


def measure(choice: Choice, journal: Journal | None) -> Results:
    """Run, telling on standard error how it goes."""
    console = Console(stderr=True)

    def say(news: Row | str) -> None:
        if isinstance(news, str):
            console.print(news, style="bold", highlight=False)
            return
        best, own = news.best(), max(news.own, key=lambda own: own.of_roofline)
        against = f"{tables.times(best.ratio)} x {best.peer}" if best else "not compared"
        line = f"  {news.problem:<16}{against:<24}{own.of_roofline:>5.0%} of the roofline"
        console.print(line, highlight=False)

    return run(choice, say, journal)


def report(results: Results, *, output: Path | None, json: Path | None) -> None:
    """Print the tables; write the page and the JSON."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    for threads, setting in tables.settings(results):
        console.print(_rich(tables.ratio_table(results, threads, setting)))
    if results.gradients:
        console.print(_rich(tables.gradient_table(results)))
    console.print(_rich(tables.goal_table(results.goals)))
    for title, lines in (
        ("Another library is ahead:", tables.ahead(results)),
        ("Not compared:", tables.left_out(results)),
    ):
        found = [f"  {line}" for line in lines]
        if found:
            typer.echo("\n".join([title, *found]))
    if json is not None:
        save(results, json)
        typer.echo(f"figures: {json}")
    if output is not None:
        typer.echo(f"page: {write_page(results, output)}")


def _rich(table: tables.Table) -> Table:
    shown = Table(title=table.title, title_justify="left")
    for number, heading in enumerate(table.headings):
        shown.add_column(heading, justify="left" if number < table.left else "right")
    for row in table.rows:
        shown.add_row(*row)
    return shown
