"""The commands of ``convt``, one file each; `convt.cli` runs them.

A command turns text into the arguments of one library function, calls it, and reports. It writes
only the files that it was told to write, each of them whole or not at all. Whatever is wrong is
raised as an exception whose message is one line.
"""

from __future__ import annotations

import logging
from typing import Annotated

import typer

import convt
from convt.commands.apply import apply
from convt.commands.bench import bench
from convt.commands.demo import demo
from convt.commands.explain import explain
from convt.commands.info import info
from convt.commands.upsample import upsample

__all__ = ["app"]

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (demo, upsample, apply, explain, info, bench):
    app.command()(command)


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """The transposed 3-D convolution, exactly as TensorFlow defines it, on volumes.

    Start with [bold]convt demo[/bold]. An error is one line, with exit code 2.
    """
    for library in ("nibabel.global", "asyncio"):  # which log what is raised, too
        logging.getLogger(library).setLevel(logging.CRITICAL)
    if version:
        typer.echo(f"convt {convt.__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
