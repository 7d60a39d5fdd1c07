"""Tables for people: as wide as the terminal, with every id whole, coloured only on a terminal."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO, TypeAlias

from keyguard.cli.output import is_terminal
from keyguard.core.texts import escaped
from keyguard.runtime.lazy import Lazy

# What only a table needs.
if TYPE_CHECKING:
    from rich import cells, console, text
    from rich import table as tables
else:
    cells = Lazy("rich.cells")
    console = Lazy("rich.console")
    tables = Lazy("rich.table")
    text = Lazy("rich.text")

Words: TypeAlias = "str | text.Text"
"""Words for people, with or without a colour."""

_GAP = 2
_SHORTEST_BAR, _LONGEST_BAR = 8, 50
# A word that may be an id, a slug or a scope. It is never broken, so that it can be copied.
_WHOLE = re.compile(r"(?<!\S)\(?[0-9A-Za-z_:-]{1,63}[),;]*(?!\S)")
_COLOURS = {
    **dict.fromkeys(("active", "enabled", "approved", "claimed"), "green"),
    **dict.fromkeys(("not yet valid", "pending"), "yellow"),
}


def coloured(words: str, colour: str = "") -> Words:
    """Return words in a colour, which may take several lines."""
    return text.Text(words, style=colour)


def status_word(word: str) -> Words:
    """Return the status of a key, an organization or a request in its colour."""
    return coloured(word, _COLOURS.get(word, "red"))


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[Words]],
    *,
    flexible: Mapping[str, int],
    numbers: Collection[str] = (),
    bars: Sequence[int] = (),
) -> str:
    """Lay out records in rows, or as separate blocks of lines if the terminal is too narrow.

    Args:
        headings: The headings of the columns.
        rows: The cells of each record.
        flexible: The headings of the columns whose cells may take several lines, and the least
            width of each, in characters. The cells of all others stay whole, and so does each id.
        numbers: The headings of the columns that are aligned on the right.
        bars: For each record a number that a bar shows beside it, where a terminal has room.
    """
    laid_out = [_cells(row) for row in rows]
    wide = _console(sys.stdout)
    room = wide.width - _GAP * (len(headings) - 1)
    widths = _widths(headings, laid_out, flexible, room)
    if sum(widths) > room:
        return "\n".join(details(zip(headings, row, strict=True)) for row in laid_out)
    # Gaps are columns: Rich before 14.3 counts padding behind the last column, and cuts ids off.
    grid = tables.Table(box=None, padding=0, header_style="bold")
    for heading, width in zip(headings, widths, strict=True):
        if grid.columns:
            grid.add_column(width=_GAP)
        grid.add_column(
            heading,
            width=width,
            no_wrap=heading not in flexible,
            overflow="fold",
            justify="right" if heading in numbers else "left",
        )
    drawn = _bars(bars, room - sum(widths) - _GAP, wide) if wide.is_terminal else []
    if drawn:
        grid.add_column(width=_GAP)
        grid.add_column()
    for number, row in enumerate(laid_out):
        parts: list[Words] = [""] * len(grid.columns)
        parts[::2] = [*row, *drawn[number : number + 1]]
        grid.add_row(*parts)
    return _render(grid, wide)


def _bars(numbers: Sequence[int], room: int, on: console.Console) -> list[str]:
    """Return a bar for each number, or none if there is no room for them."""
    longest, largest = min(room, _LONGEST_BAR), max(numbers, default=0)
    if longest < _SHORTEST_BAR or not largest:
        return []
    mark = "#" if on.options.ascii_only else "\N{FULL BLOCK}"
    return [mark * -(-number * longest // largest) for number in numbers]


def details(items: Iterable[tuple[str, Words | None]], stream: TextIO | None = None) -> str:
    """Lay out a record for a stream, each name and value on a line, without empty values."""
    grid = tables.Table.grid(padding=(0, _GAP, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    known = [(name, value) for name, value in items if value]
    values = _cells([value for _, value in known])
    for (name, _), cell in zip(known, values, strict=True):
        grid.add_row(text.Text(name, style="bold"), cell)
    on = _console(stream or sys.stdout)
    least = max((len(name) for name, _ in known), default=0) + _GAP + _longest_whole(values)
    on.width = max(on.width, least)
    return _render(grid, on)


def _widths(
    headings: Sequence[str],
    rows: Sequence[Sequence[text.Text]],
    flexible: Mapping[str, int],
    room: int,
) -> list[int]:
    # Rich would first make columns equally wide, and then cut off what does not fit.
    widths: list[int] = []
    least: list[int] = []
    for n, heading in enumerate(headings):
        lines = [heading, *(line for row in rows for line in row[n].plain.split("\n"))]
        widths.append(max(map(cells.cell_len, lines)))
        narrow = max(flexible.get(heading, 0), _longest_whole(row[n] for row in rows))
        least.append(narrow if heading in flexible else widths[n])
    while sum(widths) > room:
        spare = [n for n in range(len(headings)) if widths[n] > least[n]]
        if not spare:
            break
        widths[max(spare, key=widths.__getitem__)] -= 1
    return widths


def _longest_whole(values: Iterable[text.Text]) -> int:
    return max((len(word) for value in values for word in _WHOLE.findall(value.plain)), default=0)


def _cells(values: Sequence[Words]) -> list[text.Text]:
    # Unlike a string, a Text holds no markup: a name in brackets stays one.
    return [text.Text(escaped(value)) if isinstance(value, str) else value for value in values]


def _console(stream: TextIO | None) -> console.Console:
    shown = is_terminal(stream)
    colours = shown and not os.environ.get("NO_COLOR")
    return console.Console(
        file=stream,
        force_terminal=shown,
        color_system="auto" if colours else None,
        highlight=False,
    )


def _render(grid: tables.Table, on: console.Console) -> str:
    with on.capture() as capture:
        on.print(grid)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())
