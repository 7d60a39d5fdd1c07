"""Tables for people: at most as wide as the terminal, coloured only where that shows."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from keyguard.cli.output import plain

__all__ = ["details", "status", "table"]

_COLOURS = {"active": "green", "enabled": "green", "not yet valid": "yellow"}


def status(word: str) -> Text:
    """Return the word for what a key or an organization is good for, in its colour."""
    return Text(word, style=_COLOURS.get(word, "red"))


def table(
    headings: Sequence[str], rows: Iterable[Sequence[str | Text]], *, flexible: Mapping[str, int]
) -> str:
    """Lay out records, one a row.

    Args:
        headings: What stands above the columns.
        rows: The cells of each record.
        flexible: The headings of the columns that take more lines where the terminal is narrow,
            and the least width of each, in characters.
    """
    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for heading in headings:
        least = flexible.get(heading)
        grid.add_column(heading, no_wrap=least is None, min_width=least, overflow="fold")
    for row in rows:
        grid.add_row(*map(_cell, row))
    return _render(grid, sys.stdout)


def details(items: Iterable[tuple[str, str | Text | None]], stream: TextIO | None = None) -> str:
    """Lay out one record, a name and a value a line; a value that is None is left out.

    Args:
        items: The names and values.
        stream: Where it will be written; stdout by default.
    """
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in items:
        if value is not None:
            grid.add_row(Text(name, style="bold"), _cell(value))
    return _render(grid, stream or sys.stdout)


def _cell(value: str | Text) -> Text:
    # A Text holds no markup: a name in brackets is a name in brackets.
    return value if isinstance(value, Text) else Text(plain(value))


def _render(grid: Table, stream: TextIO | None) -> str:
    shown = stream is not None and stream.isatty()
    coloured = shown and not os.environ.get("NO_COLOR")
    console = Console(
        file=stream,
        force_terminal=shown,
        color_system="auto" if coloured else None,
        highlight=False,
    )
    with console.capture() as capture:
        console.print(grid)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())
