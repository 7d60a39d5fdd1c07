"""``keyguard org``: the organizations that own keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, TypeAlias

import typer

from keyguard.cli import pages
from keyguard.cli.options import Common, Json, Limits, Url
from keyguard.cli.output import document, emit
from keyguard.cli.pages import After, All, Limit
from keyguard.cli.records import organization_document, organization_status
from keyguard.cli.tables import table
from keyguard.cli.times import absolute, relative
from keyguard.exceptions import InvalidValueError
from keyguard.sansio.limits import parse_limit
from keyguard.sansio.models import Organization, Page
from keyguard.sansio.values import UNCHANGED

__all__ = ["app"]

app = typer.Typer(help="Manage organizations, which own keys.", no_args_is_help=True)

Named: TypeAlias = Annotated[
    str, typer.Argument(metavar="ORG", help="The organization's id or slug.", show_default=False)
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
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Create an organization; its limits are for all its keys together."""
    wanted = [parse_limit(text, "organization") for text in limits or []]
    common = Common.of(ctx, url, as_json)
    with common.guard() as guard:
        organization = guard.organizations.create(slug, name=name, limits=wanted)
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
    """Change an organization; the limits given replace all it had."""
    common = Common.of(ctx, url, as_json)
    if limits and no_limits:
        raise InvalidValueError("give --limit or --no-limits, not both")
    wanted = [parse_limit(text, "organization") for text in limits or []]
    with common.guard() as guard:
        organization = guard.organizations.update(
            named,
            name=UNCHANGED if name is None else name,
            limits=wanted if limits or no_limits else UNCHANGED,
        )
    _show(organization, common, f"Organization {organization.slug} is changed")


@app.command()
def disable(ctx: typer.Context, named: Named, url: Url = None, as_json: Json = False) -> None:
    """Pause an organization: none of its keys works until it is enabled."""
    common = Common.of(ctx, url, as_json)
    with common.guard() as guard:
        before = guard.organizations.get(named)
        organization = guard.organizations.disable(before.id)
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
        organization = guard.organizations.enable(before.id)
    state = "was enabled already" if before.disabled_at is None else "is enabled"
    _show(organization, common, f"Organization {organization.slug} {state}")


def _show(organization: Organization, common: Common, message: str) -> None:
    if common.as_json:
        document(organization_document(organization))
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
