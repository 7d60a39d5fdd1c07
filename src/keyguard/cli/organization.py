"""``keyguard org``: the organizations that own keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, TypeAlias

import typer

from keyguard.cli import pages
from keyguard.cli.options import Common, Json, Limits, Url, actor
from keyguard.cli.output import emit, emit_json
from keyguard.cli.pages import After, All, Limit
from keyguard.cli.records import (
    organization_details,
    organization_document,
    organization_status,
)
from keyguard.cli.tables import details, table
from keyguard.cli.times import absolute, parse_span, relative
from keyguard.cli.values import new_value, parse_scopes
from keyguard.core.keys.records import Organization, Page
from keyguard.core.keys.values import UNCHANGED
from keyguard.core.limits.limit import parse_limit

__all__ = ["app"]

app = typer.Typer(help="Manage organizations, which own keys.", no_args_is_help=True)

Named: TypeAlias = Annotated[
    str, typer.Argument(metavar="ORG", help="The organization's id or slug.", show_default=False)
]
Scopes: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--scope",
        metavar="SCOPE",
        help="What its keys may do at the most; may be repeated, or hold several separated by "
        "commas. Anything by default.",
    ),
]
Longest: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--max-key-lifetime",
        metavar="SPAN",
        help="How long its keys work at the most, such as 90d; for ever by default.",
    ),
]


@app.command()
def create(
    ctx: typer.Context,
    slug: Annotated[
        str,
        typer.Argument(
            metavar="SLUG", help="Its short name, such as acme-labs.", show_default=False
        ),
    ],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Its name for people.")
    ] = None,
    limits: Limits = None,
    scopes: Scopes = None,
    longest: Longest = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Create an organization; its limits are for all its keys together."""
    wanted = [parse_limit(text, "organization") for text in limits or []]
    common = Common.of(ctx, url, as_json)
    with common.guard() as guard:
        organization = guard.organizations.create(
            slug,
            name=name,
            limits=wanted,
            scopes=parse_scopes(scopes) or None,
            max_key_lifetime=None if longest is None else parse_span(longest),
            actor=actor(),
        )
    _show(organization, common, f"Organization {organization.slug} is created")


@app.command("list")
def list_organizations(
    ctx: typer.Context,
    limit: Limit = None,
    after: After = None,
    everything: All = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List organizations, oldest first."""
    common = Common.of(ctx, url, as_json)
    with common.guard() as guard:
        page = pages.read(
            lambda after, limit: guard.organizations.list(after=after, limit=limit),
            after=after,
            limit=limit,
            everything=everything,
        )
    pages.show(
        page, common.as_json, organization_document, _table, "There are no organizations to list."
    )


@app.command()
def show(ctx: typer.Context, named: Named, url: Url = None, as_json: Json = False) -> None:
    """Show all that is known of an organization."""
    common = Common.of(ctx, url, as_json)
    with common.guard() as guard:
        organization = guard.organizations.get(named)
    if common.as_json:
        emit_json(organization_document(organization))
    else:
        emit(details(organization_details(organization, datetime.now(UTC))))


@app.command()
def update(
    ctx: typer.Context,
    named: Named,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Its new name for people.")
    ] = None,
    limits: Limits = None,
    no_limits: Annotated[bool, typer.Option("--no-limits", help="Take its limits away.")] = False,
    scopes: Scopes = None,
    any_scope: Annotated[
        bool, typer.Option("--any-scope", help="Its keys may do whatever they are granted.")
    ] = False,
    longest: Longest = None,
    any_lifetime: Annotated[
        bool, typer.Option("--no-max-key-lifetime", help="Its keys may work for ever.")
    ] = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Change an organization; the limits or scopes given replace all it had.

    A new --max-key-lifetime is for keys that are issued from now on.
    """
    common = Common.of(ctx, url, as_json)
    own_limits = [parse_limit(text, "organization") for text in limits or []]
    wanted_limits = new_value("--limit", own_limits, "--no-limits", cleared=no_limits, empty=())
    ceiling = new_value(
        "--scope", parse_scopes(scopes), "--any-scope", cleared=any_scope, empty=None
    )
    lifetime = new_value(
        "--max-key-lifetime",
        None if longest is None else parse_span(longest),
        "--no-max-key-lifetime",
        cleared=any_lifetime,
        empty=None,
    )
    with common.guard() as guard:
        organization = guard.organizations.update(
            named,
            name=UNCHANGED if name is None else name,
            limits=wanted_limits,
            scopes=ceiling,
            max_key_lifetime=lifetime,
            actor=actor(),
        )
    _show(organization, common, f"Organization {organization.slug} is changed")


@app.command()
def disable(ctx: typer.Context, named: Named, url: Url = None, as_json: Json = False) -> None:
    """Pause an organization: none of its keys works until it is enabled."""
    common = Common.of(ctx, url, as_json)
    with common.guard() as guard:
        before = guard.organizations.get(named)
        organization = guard.organizations.disable(before.id, actor=actor())
    if before.disabled_at is None:
        message = f"Organization {organization.slug} is disabled; none of its keys works"
    else:
        since = absolute(before.disabled_at, datetime.now(UTC))
        message = f"Organization {organization.slug} was disabled already, since {since}"
    _show(organization, common, message)


@app.command()
def enable(ctx: typer.Context, named: Named, url: Url = None, as_json: Json = False) -> None:
    """End an organization's pause."""
    common = Common.of(ctx, url, as_json)
    with common.guard() as guard:
        before = guard.organizations.get(named)
        organization = guard.organizations.enable(before.id, actor=actor())
    state = "was enabled already" if before.disabled_at is None else "is enabled"
    _show(organization, common, f"Organization {organization.slug} {state}")


def _show(organization: Organization, common: Common, message: str) -> None:
    if common.as_json:
        emit_json(organization_document(organization))
    else:
        emit(f"{message}. Its id is {organization.id}.\n")


def _table(page: Page[Organization]) -> str:
    now = datetime.now(UTC)
    rows = [
        (
            organization.id,
            organization.slug,
            organization.name,
            organization_status(organization),
            relative(organization.created_at, now),
        )
        for organization in page
    ]
    return table(
        ("Organization", "Slug", "Name", "Status", "Created"), rows, flexible={"Slug": 6, "Name": 6}
    )
