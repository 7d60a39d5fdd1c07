"""Answers that several endpoints give: a record with its version, and one page of a list."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlencode

from keyguard.admin.context import Context
from keyguard.admin.exchange import Answer, json_answer
from keyguard.core.management.json_forms import JsonObject
from keyguard.core.values import Page

Record = TypeVar("Record")


def record_answer(
    status: int, version: int, content: JsonObject, *fields: tuple[str, str]
) -> Answer:
    """Return the answer that shows a record, with its version as its ``ETag``."""
    return json_answer(status, content, [("ETag", f'"{version}"'), *fields])


def next_link(context: Context, after: str | None) -> list[tuple[str, str]]:
    """Return the field that leads to the next page of what is not JSON (RFC 8288), if there is."""
    if after is None:
        return []
    query = urlencode({**context.call.request.args.to_dict(), "after": after})
    return [("Link", f'<?{query}>; rel="next"')]


def page_answer(page: Page[Record], shown: Callable[[Record], JsonObject]) -> Answer:
    """Return the answer that shows one page of a list."""
    items = [shown(record) for record in page]
    return json_answer(200, {"items": items, "next": page.next, "damaged": [*page.damaged]})
