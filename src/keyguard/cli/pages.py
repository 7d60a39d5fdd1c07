"""Lists: one page of records, or all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from keyguard.cli.options import Common
from keyguard.cli.output import complain, emit, emit_json, note
from keyguard.core.management.json_forms import JsonObject
from keyguard.core.usage.results import UsageReport
from keyguard.core.values import Page
from keyguard.exceptions import InvalidValueError, shown

T = TypeVar("T")
P = TypeVar("P", bound=Page[object] | UsageReport)

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
        common: The options: which page, and in what form.
        fetch: Returns the page after the id ``after``, with at most ``limit`` records.
        to_json: Returns a record as JSON.
        to_table: Lays out a page for people.
        nothing: The sentence about an empty page.
    """
    pages = read_pages(common, fetch)
    items = [item for page in pages for item in page]
    damaged = [record_id for page in pages for record_id in page.damaged]
    following = pages[-1].next
    for record_id in damaged:
        complain(f"{record_id} is left out: its record is damaged and can't be read")
    if common.as_json:
        named = {"damaged": damaged} if damaged else {}
        emit_json({"items": [to_json(item) for item in items], "next": following, **named})
    elif items:
        emit(to_table(Page(tuple(items))))
        if following:
            note(f"There are more: add --after {following}, or --all.")
    else:
        note(nothing if common.after is None else f"Nothing comes after {shown(common.after)}.")


def read_pages(common: Common, fetch: Callable[..., P]) -> list[P]:
    """Return the page that is asked for, or all of them.

    Args:
        common: Which page.
        fetch: Returns the page after the id ``after``, with at most ``limit`` records.
    """
    if common.everything and common.limit is not None:
        raise InvalidValueError("pass --limit or --all, not both")
    if common.everything:
        return list(each_page(fetch, common.after))
    return [fetch(after=common.after, limit=_PAGE if common.limit is None else common.limit)]


def each_page(fetch: Callable[..., P], after: str | None = None) -> Iterator[P]:
    """Give each page of a list, as large as pages may be.

    Args:
        fetch: Returns the page after the id ``after``, with at most ``limit`` records.
        after: The id after which the first page begins; None for the beginning.
    """
    page = fetch(after=after, limit=_LARGEST_PAGE)
    yield page
    while page.next is not None:
        page = fetch(after=page.next, limit=_LARGEST_PAGE)
        yield page
