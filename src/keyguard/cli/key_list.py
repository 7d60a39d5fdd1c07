"""``keyguard key list``: all keys, or those that soon stop working or that nobody uses."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.text import Text

from keyguard.cli.json_forms import key_json
from keyguard.cli.options import Common, Json, Url
from keyguard.cli.output import note
from keyguard.cli.pages import After, All, Limit, show_list
from keyguard.cli.parsing import parse_span
from keyguard.cli.terminal import status_word, table
from keyguard.cli.wording import last_used, when_ends
from keyguard.core.keys.records import Key, Page


def list_keys(
    ctx: typer.Context,
    organization: Annotated[
        str | None,
        typer.Option("--org", metavar="ORG", help="Only keys of this organization, by id or slug."),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(
            "--family",
            metavar="FAMILY",
            help="Only keys of this family, fam_...: a key and its successors.",
        ),
    ] = None,
    expiring_within: Annotated[
        str | None,
        typer.Option(
            "--expiring-within",
            metavar="SPAN",
            help="Only keys that work now but stop working within that time, such as 30d.",
        ),
    ] = None,
    unused_for: Annotated[
        str | None,
        typer.Option(
            "--unused-for",
            metavar="SPAN",
            help="Only keys that work now but were not used for that long, such as 90d.",
        ),
    ] = None,
    limit: Limit = None,
    after: After = None,
    everything: All = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List keys, oldest first, also those that no longer work."""
    common = Common.of(ctx, url, as_json)
    now = datetime.now(UTC)
    ending_in = None if expiring_within is None else parse_span(expiring_within)
    unused = None if unused_for is None else parse_span(unused_for)
    is_report = ending_in is not None or unused is not None
    with common.guard() as guard:
        owner = None if organization is None else guard.organizations.get(organization)

        def to_table(page: Page[Key]) -> str:
            owners = {key.organization for key in page} if owner is None else ()
            return _table(page, now, {each: guard.organizations.get(each).slug for each in owners})

        show_list(
            lambda after, limit: guard.keys.list(
                organization=None if owner is None else owner.id,
                family=family,
                expiring_within=ending_in,
                unused_for=unused,
                after=after,
                limit=limit,
            ),
            after=after,
            limit=limit,
            everything=everything,
            to_json=(lambda key: key_json(key, now)) if common.as_json else None,
            to_table=to_table,
            nothing="There are no such keys." if is_report else "There are no keys to list.",
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
            status_word(key.status(now).value),
            when_ends(key, now),
            last_used(key, now),
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
