"""``keyguard key``: the keys of organizations."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from math import ceil
from typing import Annotated, TypeAlias

import typer
from rich.text import Text

from keyguard.cli import pages
from keyguard.cli.importing import import_keys
from keyguard.cli.options import Common, Json, Limiter, Limits, PepperFile, Url, key_id
from keyguard.cli.output import document, emit, note
from keyguard.cli.pages import After, All, Limit
from keyguard.cli.records import ending, key_details, key_document, status_document
from keyguard.cli.tables import details, status, table
from keyguard.cli.times import parse_instant, parse_span, relative, spelled
from keyguard.cli.tokens import hand_over, verify
from keyguard.exceptions import InvalidValueError
from keyguard.sansio.limits import parse_limit
from keyguard.sansio.models import Key, Page, RevocationReason
from keyguard.sansio.values import UNCHANGED

__all__ = ["app"]

app = typer.Typer(help="Manage keys.", no_args_is_help=True)
app.command("import")(import_keys)
app.command("verify", context_settings={"allow_extra_args": True})(verify)

Named: TypeAlias = Annotated[
    str, typer.Argument(metavar="KEY", help="The key's id.", show_default=False)
]


@app.command()
def create(
    ctx: typer.Context,
    organization: Annotated[
        str,
        typer.Option("--org", metavar="ORG", help="Id or slug of its owner.", show_default=False),
    ],
    name: Annotated[
        str,
        typer.Option("--name", metavar="NAME", help="Its name for people.", show_default=False),
    ],
    scopes: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            metavar="SCOPE",
            help="What it may do, such as inference:read; may be repeated, or hold several "
            "separated by commas.",
        ),
    ] = None,
    expires_in: Annotated[
        str | None,
        typer.Option(
            "--expires-in",
            metavar="SPAN",
            help="How long it works, such as 90d, 12h, 2w or P90D; for ever by default.",
        ),
    ] = None,
    not_before: Annotated[
        str | None,
        typer.Option(
            "--not-before",
            metavar="TIME",
            help="From when on it works, such as 2030-01-31 or 2030-01-31T09:00:00Z.",
        ),
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata", metavar="NAME=VALUE", help="A note kept with it; may be repeated."
        ),
    ] = None,
    limits: Limits = None,
    url: Url = None,
    pepper_file: PepperFile = None,
    as_json: Json = False,
) -> None:
    """Create a key, and print its token: the only time it is shown."""
    common = Common.of(ctx, url, as_json, pepper_file)
    span = None if expires_in is None else parse_span(expires_in)
    start = None if not_before is None else parse_instant(not_before)
    notes = _parse_metadata(metadata or [])
    wanted = ",".join(scopes or []).replace(",", " ").split()
    own_limits = [parse_limit(text, "key") for text in limits or []]
    with common.guard() as guard:
        issued = guard.keys.issue(
            organization=organization,
            name=name,
            scopes=wanted,
            expires_in=span,
            not_before=start,
            metadata=notes,
            limits=own_limits,
        )
        hand_over(guard, issued, as_json=common.as_json)


@app.command("list")
def list_keys(
    ctx: typer.Context,
    organization: Annotated[
        str | None,
        typer.Option("--org", metavar="ORG", help="Id or slug of the owner; all by default."),
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
    with common.guard() as guard:
        owner = None if organization is None else guard.organizations.get(organization)
        only = None if owner is None else owner.id
        page = pages.read(
            lambda after, limit: guard.keys.list(organization=only, after=after, limit=limit),
            after=after,
            limit=limit,
            everything=everything,
        )
        slugs: dict[str, str] = {}
        if owner is None and not common.as_json:
            for owner_id in {key.organization for key in page}:
                slugs[owner_id] = guard.organizations.get(owner_id).slug
    pages.show(
        page,
        common.as_json,
        lambda key: key_document(key, now),
        lambda page: _table(page, now, slugs),
        "There are no keys to list.",
    )
    if owner is not None and owner.disabled_at is not None and not common.as_json:
        note(f"Organization {owner.slug} is disabled: none of its keys works until it is enabled.")


@app.command()
def show(ctx: typer.Context, named: Named, url: Url = None, as_json: Json = False) -> None:
    """Show all that is known of a key. The token is not."""
    common = Common.of(ctx, url, as_json)
    now = datetime.now(UTC)
    with common.guard() as guard:
        key = guard.keys.get(key_id(named))
        owner = guard.organizations.get(key.organization)
    if common.as_json:
        document(key_document(key, now))
    else:
        emit(details(key_details(key, owner, now)))


@app.command()
def update(
    ctx: typer.Context,
    named: Named,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Its new name for people.")
    ] = None,
    limits: Limits = None,
    no_limits: Annotated[bool, typer.Option("--no-limits", help="Take its limits away.")] = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Change a key; the limits given replace all it had."""
    common = Common.of(ctx, url, as_json)
    if limits and no_limits:
        raise InvalidValueError("give --limit or --no-limits, not both")
    wanted = [parse_limit(text, "key") for text in limits or []]
    with common.guard() as guard:
        key = guard.keys.update(
            key_id(named),
            name=UNCHANGED if name is None else name,
            limits=wanted if limits or no_limits else UNCHANGED,
        )
    if common.as_json:
        document(key_document(key, datetime.now(UTC)))
    else:
        emit(f"Key {key.id} is changed.\n")


@app.command("limits")
def show_limits(
    ctx: typer.Context,
    named: Named,
    limiter: Limiter = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Show what is left of a key's limits now, its organization's and the defaults included."""
    common = Common.of(ctx, url, as_json, limiter=limiter)
    if common.limiter == "memory://":
        raise InvalidValueError(
            "counters in the memory of another process can't be seen; name the store where the "
            "service counts"
        )
    with common.guard() as guard:
        statuses = guard.keys.limits(key_id(named))
    if common.as_json:
        document({"limits": [status_document(one) for one in statuses]})
    elif not statuses:
        emit(f"Key {named} has no limits.\n")
    else:
        rows = [
            (
                one.name,
                f"{one.quota} in {spelled(one.window)}",
                str(one.remaining),
                spelled(ceil(one.reset_after)) if one.remaining < one.quota else "",
                "yes" if one.enforce else "no",
            )
            for one in statuses
        ]
        headings = ("Policy", "Quota", "Left", "More in", "Enforced")
        emit(table(headings, rows, flexible={"Policy": 6}))


@app.command()
def revoke(
    ctx: typer.Context,
    named: Named,
    reason: Annotated[
        str, typer.Option("--reason", metavar="REASON", help="Why, such as 'key compromise'.")
    ] = RevocationReason.UNSPECIFIED.value,
    note_text: Annotated[
        str | None, typer.Option("--note", metavar="TEXT", help="Why in your own words.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Even the last key of its organization with admin.")
    ] = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Revoke a key, for good."""
    common = Common.of(ctx, url, as_json)
    now = datetime.now(UTC)
    with common.guard() as guard:
        before = guard.keys.get(key_id(named))
        key = guard.keys.revoke(before.id, reason=reason, note=note_text, force=force)
    if common.as_json:
        document(key_document(key, now))
    elif before.revoked_at is None:
        emit(f"Key {key.id} is revoked.\n")
    else:
        emit(
            f"Key {key.id} was revoked already, {relative(before.revoked_at, now)}; "
            "that time and its reason stay.\n"
        )


def _parse_metadata(pairs: list[str]) -> dict[str, str]:
    notes: dict[str, str] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise InvalidValueError(f"--metadata takes NAME=VALUE, such as team=web, not {pair!r}")
        if not pair.isprintable():
            raise InvalidValueError(f"--metadata takes printable characters only, not {pair!r}")
        if name in notes:
            raise InvalidValueError(f"--metadata gives {name!r} twice")
        notes[name] = value
    return notes


def _table(page: Page[Key], now: datetime, slugs: Mapping[str, str]) -> str:
    rows = [
        (
            key.id,
            *((slugs[key.organization],) if slugs else ()),
            key.name,
            Text("\n".join(sorted(key.scopes))),
            status(key.status(now).value),
            ending(key, now),
        )
        for key in page
    ]
    headings = ("Key", *(("Org",) if slugs else ()), "Name", "Scopes", "Status", "Ends")
    return table(headings, rows, flexible={"Org": 4, "Name": 6, "Scopes": 15})
