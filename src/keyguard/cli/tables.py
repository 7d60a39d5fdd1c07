"""Tables for people: at most as wide as the terminal, coloured only where that shows."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keyguard.cli.output import plain

__all__ = ["details", "status", "table"]

_GAP = 2
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
    grid = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    cells = [[_cell(value) for value in row] for row in rows]
    console = _console(sys.stdout)
    for heading, width in zip(headings, _widths(headings, cells, flexible, console), strict=True):
        grid.add_column(heading, width=width, no_wrap=heading not in flexible, overflow="fold")
    for row in cells:
        grid.add_row(*row)
    return _render(grid, console)


def _widths(
    headings: Sequence[str],
    rows: Sequence[Sequence[Text]],
    flexible: Mapping[str, int],
    console: Console,
) -> list[int]:
    # Rich would make columns equally wide first and see to the least width of each after, and cut
    # off what is then too much.
    widths = [
        max(
            [
                cell_len(heading),
                *(cell_len(line) for row in rows for line in row[n].plain.split("\n")),
            ]
        )
        for n, heading in enumerate(headings)
    ]
    room = console.width - _GAP * (len(headings) - 1)
    while sum(widths) > room:
        spare = [n for n, name in enumerate(headings) if widths[n] > flexible.get(name, widths[n])]
        if not spare:
            break
        widest = max(spare, key=widths.__getitem__)
        widths[widest] -= 1
    return widths


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
    return _render(grid, _console(stream or sys.stdout))


def _cell(value: str | Text) -> Text:
    # A Text holds no markup: a name in brackets is a name in brackets.
    return value if isinstance(value, Text) else Text(plain(value))


def _console(stream: TextIO | None) -> Console:
    shown = stream is not None and stream.isatty()
    coloured = shown and not os.environ.get("NO_COLOR")
    return Console(
        file=stream,
        force_terminal=shown,
        color_system="auto" if coloured else None,
        highlight=False,
    )


def _render(grid: Table, console: Console) -> str:
    with console.capture() as capture:
        console.print(grid)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())
