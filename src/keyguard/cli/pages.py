"""Lists: one page of records, or all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeAlias, TypeVar

import typer

from keyguard.cli.json_forms import JsonObject
from keyguard.cli.output import emit, emit_json, note
from keyguard.core.keys.records import Page
from keyguard.exceptions import InvalidValueError

T = TypeVar("T")

Limit: TypeAlias = Annotated[
    int | None,
    typer.Option("--limit", metavar="N", help="How many to list, 1 to 1000; 100 by default."),
]
After: TypeAlias = Annotated[
    str | None, typer.Option("--after", metavar="ID", help="List those that come after this one.")
]
All: TypeAlias = Annotated[bool, typer.Option("--all", help="List all of them.")]

_PAGE = 100
_LARGEST_PAGE = 1000


def show_list(
    fetch: Callable[[str | None, int], Page[T]],
    *,
    after: str | None,
    limit: int | None,
    everything: bool,
    to_json: Callable[[T], JsonObject] | None,
    to_table: Callable[[Page[T]], str],
    nothing: str,
) -> None:
    """Read one page of records, or all, and write it to stdout.

    Args:
        fetch: Returns the page after an id, with so many records at most.
        after: The id after which the list starts, or None.
        limit: How many records at most, or None for 100.
        everything: Whether to go on to the end.
        to_json: Returns a record as JSON; None if the list is for people.
        to_table: Lays out the page for people.
        nothing: The sentence about an empty page.

    Raises:
        InvalidValueError: A limit is given with everything, or the limit is out of range.
    """
    if everything and limit is not None:
        raise InvalidValueError("pass --limit or --all, not both")
    page = (
        _read_all(fetch, after) if everything else fetch(after, _PAGE if limit is None else limit)
    )
    if to_json is not None:
        emit_json({"items": [to_json(item) for item in page], "next": page.next})
    elif page.items:
        emit(to_table(page))
        if page.next:
            note(f"There are more: add --after {page.next}, or --all.")
    else:
        note(nothing)


def _read_all(fetch: Callable[[str | None, int], Page[T]], after: str | None) -> Page[T]:
    items: list[T] = []
    while True:
        page = fetch(after, _LARGEST_PAGE)
        items += page.items
        after = page.next
        if after is None:
            return Page(tuple(items))
