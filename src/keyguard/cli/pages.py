"""Lists: one page of records, or all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from keyguard.cli.options import Common
from keyguard.cli.output import complain, emit, emit_json, note
from keyguard.core.keys.json_forms import JsonObject
from keyguard.core.keys.values import Page
from keyguard.exceptions import InvalidValueError

T = TypeVar("T")

_PAGE = 100
_LARGEST_PAGE = 1000


def show_list(
    common: Common,
    fetch: Callable[..., Page[T]],
    to_json: Callable[[T], JsonObject],
    to_table: Callable[[Page[T]], str],
    nothing: str,
) -> None:
    """Read one page of records, or all, and write it to stdout.

    Args:
        common: Which page, and in what form.
        fetch: Returns the page after the id ``after``, with at most ``limit`` records.
        to_json: Returns a record as JSON.
        to_table: Lays out a page for people.
        nothing: The sentence about an empty page.
    """
    if common.everything and common.limit is not None:
        raise InvalidValueError("pass --limit or --all, not both")
    size = _PAGE if common.limit is None else common.limit
    page = fetch(after=common.after, limit=_LARGEST_PAGE if common.everything else size)
    items, damaged = list(page), list(page.damaged)
    while common.everything and page.next is not None:
        page = fetch(after=page.next, limit=_LARGEST_PAGE)
        items += page
        damaged += page.damaged
    for record_id in damaged:
        complain(f"{record_id} is left out: its record is damaged and can't be read")
    if common.as_json:
        named = {"damaged": damaged} if damaged else {}
        emit_json({"items": [to_json(item) for item in items], "next": page.next, **named})
    elif items:
        emit(to_table(Page(tuple(items))))
        if page.next:
            note(f"There are more: add --after {page.next}, or --all.")
    else:
        note(nothing)
