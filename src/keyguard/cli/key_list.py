"""``keyguard key list``: keys, and reports of those that will end or that nobody uses."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.text import Text

from keyguard.cli import pages
from keyguard.cli.options import Common, Json, Url
from keyguard.cli.output import note
from keyguard.cli.pages import After, All, Limit
from keyguard.cli.records import ending, key_document, last_use
from keyguard.cli.tables import status, table
from keyguard.cli.times import parse_span
from keyguard.core.keys.records import Key, Page

__all__ = ["list_keys"]


def list_keys(
    ctx: typer.Context,
    organization: Annotated[
        str | None,
        typer.Option("--org", metavar="ORG", help="Id or slug of the owner; all by default."),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option("--family", metavar="FAMILY", help="Only keys that descend from one another."),
    ] = None,
    expiring_within: Annotated[
        str | None,
        typer.Option(
            "--expiring-within",
            metavar="SPAN",
            help="Only keys that work, and will no more after that time, such as 30d.",
        ),
    ] = None,
    unused_for: Annotated[
        str | None,
        typer.Option(
            "--unused-for",
            metavar="SPAN",
            help="Only keys that work, and that nobody has used for that long, such as 90d.",
        ),
    ] = None,
    limit: Limit = None,
    after: After = None,
    everything: All = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List keys, oldest first, dead ones included."""
    common = Common.of(ctx, url, as_json)
    now = datetime.now(UTC)
    ending_in = None if expiring_within is None else parse_span(expiring_within)
    unused = None if unused_for is None else parse_span(unused_for)
    with common.guard() as guard:
        owner = None if organization is None else guard.organizations.get(organization)
        only = None if owner is None else owner.id
        page = pages.read(
            lambda after, limit: guard.keys.list(
                organization=only,
                family=family,
                expiring_within=ending_in,
                unused_for=unused,
                after=after,
                limit=limit,
            ),
            after=after,
            limit=limit,
            everything=everything,
        )
        slugs: dict[str, str] = {}
        if owner is None and not common.as_json:
            for owner_id in {key.organization for key in page}:
                slugs[owner_id] = guard.organizations.get(owner_id).slug
    report = ending_in is not None or unused is not None
    pages.show(
        page,
        common.as_json,
        lambda key: key_document(key, now),
        lambda page: _table(page, now, slugs),
        "There are no such keys." if report else "There are no keys to list.",
    )
    if owner is not None and owner.disabled_at is not None and not common.as_json:
        note(f"Organization {owner.slug} is disabled: none of its keys works until it is enabled.")


def _table(page: Page[Key], now: datetime, slugs: Mapping[str, str]) -> str:
    rows = [
        (
            key.id,
            *((slugs[key.organization],) if slugs else ()),
            key.name,
            Text("\n".join(sorted(key.scopes))),
            status(key.status(now).value),
            ending(key, now),
            last_use(key, now),
        )
        for key in page
    ]
    headings = (
        "Key",
        *(("Org",) if slugs else ()),
        "Name",
        "Scopes",
        "Status",
        "Ends",
        "Last used",
    )
    widths = {"Org": 4, "Name": 6, "Scopes": 12, "Status": 7, "Ends": 7, "Last used": 9}
    return table(headings, rows, flexible=widths)
