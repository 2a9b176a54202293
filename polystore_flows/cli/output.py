"""What commands print: tables and facts, or JSON; progress on a terminal; one line of error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED = 130  # what shells and Typer take Ctrl-C for

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def fail(message: str, status: int) -> NoReturn:
    """Print one line of error and exit."""
    typer.echo("error: " + " ".join(message.split()), err=True)
    sys.exit(status)


def print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Rows of one kind as a table, headed by their keys."""
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in rows[0] if rows else ():
        table.add_column(column)
    for row in rows:
        table.add_row(*(Text(_text(value)) for value in row.values()))
    _console().print(table)


def print_facts(facts: dict[str, Any], as_json: bool) -> None:
    """Names and values, one a line."""
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in facts.items():
        table.add_row(Text(name.replace("_um", " (µm)").replace("_", " ")), Text(_text(value)))
    _console().print(table)


@contextmanager
def progress(start: str, on_interrupt: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar with rate and time left on a terminal, nothing in a pipe.

    Args:
        start: shown until the first report.
        on_interrupt: what Ctrl-C leaves and how to go on, unless the interrupted code says it.

    Yields:
        A function to call with ``(done, total, name)``.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.3g}/s" if speed else "")

    console = _console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate())
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ) as bar:
        task = bar.add_task(start, total=None)

        def show(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total, description=name)

        try:
            yield show
        except KeyboardInterrupt as error:
            bar.stop()
            fail(f"interrupted; {str(error) or on_interrupt}", INTERRUPTED)


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    plain = bool(os.environ.get("NO_COLOR"))
    console = Console(stderr=stderr, color_system=None if plain else "auto", highlight=False)
    if not console.is_terminal:
        console.width = 10_000  # whoever reads a pipe wants whole lines
    return console


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_text(inner)}" for key, inner in value.items())
    return str(value)
