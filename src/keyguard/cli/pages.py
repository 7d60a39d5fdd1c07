"""Lists: one page of records, or all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeAlias, TypeVar

import typer

from keyguard.cli.output import emit, emit_json, note
from keyguard.core.keys.records import Page
from keyguard.exceptions import InvalidValueError

__all__ = ["After", "All", "Limit", "read", "show"]

T = TypeVar("T")

Limit: TypeAlias = Annotated[
    int | None,
    typer.Option("--limit", metavar="N", help="How many to list, 1 to 1000; 100 by default."),
]
After: TypeAlias = Annotated[
    str | None, typer.Option("--after", metavar="ID", help="List those that come after this one.")
]
All: TypeAlias = Annotated[bool, typer.Option("--all", help="List them all.")]

_PAGE = 100
_LARGEST_PAGE = 1000


def read(
    fetch: Callable[[str | None, int], Page[T]],
    *,
    after: str | None,
    limit: int | None,
    everything: bool,
) -> Page[T]:
    """Read one page, or all.

    Args:
        fetch: Returns the page after an id, of so many records at most.
        after: The id behind which to start, or None.
        limit: How many records at most, or None for 100.
        everything: Whether to go on to the end.

    Raises:
        InvalidValueError: Both a limit and everything are asked for, or the limit is out of range.
    """
    if not everything:
        return fetch(after, _PAGE if limit is None else limit)
    if limit is not None:
        raise InvalidValueError("pass --limit or --all, not both")
    items: list[T] = []
    while True:
        page = fetch(after, _LARGEST_PAGE)
        items += page.items
        after = page.next
        if after is None:
            return Page(tuple(items))


def show(
    page: Page[T],
    as_json: bool,
    to_document: Callable[[T], dict[str, Any]],
    to_table: Callable[[Page[T]], str],
    nothing: str,
) -> None:
    """Write a page to stdout.

    Args:
        page: The page.
        as_json: Whether as one JSON document.
        to_document: Returns a record's JSON form.
        to_table: Lays out the page.
        nothing: What to say of an empty page.
    """
    if as_json:
        emit_json({"items": [to_document(item) for item in page], "next": page.next})
    elif page.items:
        emit(to_table(page))
        if page.next:
            note(f"There are more: add --after {page.next}, or --all.")
    else:
        note(nothing)
