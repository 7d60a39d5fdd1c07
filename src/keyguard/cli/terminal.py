"""Tables for people: no wider than the terminal, and coloured only on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keyguard.cli.output import is_terminal, plain

_GAP = 2
_COLOURS = {"active": "green", "enabled": "green", "not yet valid": "yellow"}


def status_word(word: str) -> Text:
    """Return the status of a key or an organization in its colour."""
    return Text(word, style=_COLOURS.get(word, "red"))


def table(
    headings: Sequence[str], rows: Iterable[Sequence[str | Text]], *, flexible: Mapping[str, int]
) -> str:
    """Lay out records in rows, or as separate blocks of lines if the terminal is too narrow.

    Args:
        headings: The headings of the columns.
        rows: The cells of each record.
        flexible: The headings of the columns whose cells may take several lines, and the least
            width of each, in characters. The cells of all others stay whole.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    console = _console(sys.stdout)
    room = console.width - _GAP * (len(headings) - 1)
    widths = _widths(headings, cells, flexible, room)
    if sum(widths) > room:
        return "\n".join(details(zip(headings, row, strict=True)) for row in cells)
    grid = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    for heading, width in zip(headings, widths, strict=True):
        grid.add_column(heading, width=width, no_wrap=heading not in flexible, overflow="fold")
    for row in cells:
        grid.add_row(*row)
    return _render(grid, console)


def details(items: Iterable[tuple[str, str | Text | None]], stream: TextIO | None = None) -> str:
    """Lay out a record for a stream, each name and value on a line, without empty values."""
    grid = Table.grid(padding=(0, _GAP, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in items:
        if value:
            grid.add_row(Text(name, style="bold"), _cell(value))
    return _render(grid, _console(stream or sys.stdout))


def _widths(
    headings: Sequence[str], rows: Sequence[Sequence[Text]], flexible: Mapping[str, int], room: int
) -> list[int]:
    # Rich would first make columns equally wide, and then cut off what does not fit.
    widths = [
        max(map(cell_len, [heading, *(line for row in rows for line in row[n].plain.split("\n"))]))
        for n, heading in enumerate(headings)
    ]
    while sum(widths) > room:
        spare = [n for n, name in enumerate(headings) if widths[n] > flexible.get(name, widths[n])]
        if not spare:
            break
        widths[max(spare, key=widths.__getitem__)] -= 1
    return widths


def _cell(value: str | Text) -> Text:
    # Unlike a string, a Text holds no markup: a name in brackets stays one.
    if isinstance(value, Text):
        return value
    return Text(value if value.isprintable() else plain(value))


def _console(stream: TextIO | None) -> Console:
    shown = is_terminal(stream)
    colours = shown and not os.environ.get("NO_COLOR")
    return Console(
        file=stream,
        force_terminal=shown,
        color_system="auto" if colours else None,
        highlight=False,
    )


def _render(grid: Table, console: Console) -> str:
    with console.capture() as capture:
        console.print(grid)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())
