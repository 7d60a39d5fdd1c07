"""``keyguard org``: the organizations that own keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, TypeAlias

import typer

from keyguard.cli.json_forms import organization_json
from keyguard.cli.options import Common, Json, Limits, Url, actor
from keyguard.cli.output import emit, emit_json
from keyguard.cli.pages import After, All, Limit, show_list
from keyguard.cli.parsing import new_value, parse_scopes, parse_span
from keyguard.cli.terminal import details, table
from keyguard.cli.wording import absolute, organization_details, organization_status, relative
from keyguard.core.keys.records import Organization, Page
from keyguard.core.keys.values import UNCHANGED
from keyguard.core.limits.limit import parse_limit

app = typer.Typer(help="Manage organizations, which own keys.", no_args_is_help=True)

Named: TypeAlias = Annotated[
    str, typer.Argument(metavar="ORG", help="The organization's id or slug.", show_default=False)
]
Scopes: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--scope",
        metavar="SCOPE",
        help="The scopes that keys of the organization may have, any by default; may be repeated, "
        "or name several scopes separated by commas.",
    ),
]
Longest: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--max-key-lifetime",
        metavar="SPAN",
        help="How long keys of the organization may work, such as 90d; for ever by default.",
    ),
]


@app.command()
def create(
    ctx: typer.Context,
    slug: Annotated[
        str,
        typer.Argument(metavar="SLUG", help="A short name, such as acme-labs.", show_default=False),
    ],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="A name for people.")
    ] = None,
    limits: Limits = None,
    scopes: Scopes = None,
    longest: Longest = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Create an organization. Its limits apply to all its keys together."""
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
    _show(organization, common, f"Organization {organization.slug} was created")


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
        show_list(
            lambda after, limit: guard.organizations.list(after=after, limit=limit),
            after=after,
            limit=limit,
            everything=everything,
            to_json=organization_json if common.as_json else None,
            to_table=_table,
            nothing="There are no organizations to list.",
        )


@app.command()
def show(ctx: typer.Context, named: Named, url: Url = None, as_json: Json = False) -> None:
    """Show all that is known of an organization."""
    common = Common.of(ctx, url, as_json)
    with common.guard() as guard:
        organization = guard.organizations.get(named)
    if common.as_json:
        emit_json(organization_json(organization))
    else:
        emit(details(organization_details(organization, datetime.now(UTC))))


@app.command()
def update(
    ctx: typer.Context,
    named: Named,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The new name for people.")
    ] = None,
    limits: Limits = None,
    no_limits: Annotated[
        bool, typer.Option("--no-limits", help="Remove all limits of the organization.")
    ] = False,
    scopes: Scopes = None,
    any_scope: Annotated[
        bool, typer.Option("--any-scope", help="Let keys of the organization have any scope.")
    ] = False,
    longest: Longest = None,
    any_lifetime: Annotated[
        bool,
        typer.Option("--no-max-key-lifetime", help="Let keys of the organization work for ever."),
    ] = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Change an organization. Limits or scopes that are given replace all former ones.

    A new --max-key-lifetime applies to keys that are issued later.
    """
    common = Common.of(ctx, url, as_json)
    own_limits = [parse_limit(text, "organization") for text in limits or []]
    wanted_limits = new_value("--limit", own_limits, "--no-limits", is_cleared=no_limits, empty=())
    ceiling = new_value(
        "--scope", parse_scopes(scopes), "--any-scope", is_cleared=any_scope, empty=None
    )
    lifetime = new_value(
        "--max-key-lifetime",
        None if longest is None else parse_span(longest),
        "--no-max-key-lifetime",
        is_cleared=any_lifetime,
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
    _show(organization, common, f"Organization {organization.slug} was changed")


@app.command()
def disable(ctx: typer.Context, named: Named, url: Url = None, as_json: Json = False) -> None:
    """Disable an organization. None of its keys works until it is enabled again."""
    common = Common.of(ctx, url, as_json)
    with common.guard() as guard:
        before = guard.organizations.get(named)
        organization = guard.organizations.disable(before.id, actor=actor())
    if before.disabled_at is None:
        message = f"Organization {organization.slug} was disabled; none of its keys works now"
    else:
        since = absolute(before.disabled_at, datetime.now(UTC))
        message = f"Organization {organization.slug} has been disabled since {since}"
    _show(organization, common, message)


@app.command()
def enable(ctx: typer.Context, named: Named, url: Url = None, as_json: Json = False) -> None:
    """Enable an organization that was disabled. Its keys work again."""
    common = Common.of(ctx, url, as_json)
    with common.guard() as guard:
        before = guard.organizations.get(named)
        organization = guard.organizations.enable(before.id, actor=actor())
    state = "is enabled already" if before.disabled_at is None else "was enabled"
    _show(organization, common, f"Organization {organization.slug} {state}")


def _show(organization: Organization, common: Common, message: str) -> None:
    if common.as_json:
        emit_json(organization_json(organization))
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
