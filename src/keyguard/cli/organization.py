"""``keyguard org``: the organizations that own keys."""

from __future__ import annotations

from datetime import UTC, datetime

import typer

from keyguard.cli.options import (
    LIMITS,
    LIST,
    STORE,
    Common,
    actor,
    argument,
    flag,
    option,
    with_options,
)
from keyguard.cli.pages import show_list
from keyguard.cli.parsing import check_change, new_value, parse_limits, parse_metadata, parse_scopes
from keyguard.cli.terminal import details, table
from keyguard.cli.wording import absolute, organization_details, organization_status, relative
from keyguard.core.keys.records import Organization
from keyguard.core.keys.results import DamagedOrganization
from keyguard.core.management.json_forms import fields_json, organization_json
from keyguard.core.spans import parse_span
from keyguard.core.values import UNCHANGED, Page

app = typer.Typer(help="Manage organizations, which own keys.", no_args_is_help=True)

ORGANIZATION = argument("ORG", "The organization's id or slug.")
SCOPES = option(
    "SCOPE",
    "The scopes that keys of the organization may have, any by default; may be repeated, or name "
    "several scopes separated by commas.",
    "--scope",
)
LIFETIME = option(
    "SPAN",
    "How long keys of the organization may work, such as 90d; for ever by default.",
    "--max-key-lifetime",
)
MOST_KEYS = option(
    "NUMBER",
    "How many keys the organization may have at a time; any number by default.",
    "--max-keys",
)
TIME_ZONE = option(
    "ZONE",
    "The zone whose days the organization's usage is kept in, such as Europe/Berlin; UTC by "
    "default.",
    "--time-zone",
)

PLAN = option(
    "PLAN",
    "The organization's plan, one of those in the setting plans; none by default.",
    "--plan",
)

METADATA = option("NAME=VALUE", "A note kept with the organization; may be repeated.", "--metadata")


@app.command()
@with_options(*STORE)
def create(
    common: Common,
    slug: str = argument("SLUG", "A short name, such as acme-labs."),
    name: str | None = option("NAME", "A name for people."),
    limits: list[str] | None = LIMITS,
    scopes: list[str] | None = SCOPES,
    longest: str | None = LIFETIME,
    most_keys: int | None = MOST_KEYS,
    time_zone: str | None = TIME_ZONE,
    plan: str | None = PLAN,
    metadata: list[str] | None = METADATA,
) -> None:
    """Create an organization. Its limits apply to all its keys together."""
    own_limits = parse_limits(limits, "organization")
    with common.guard() as guard:
        organization = guard.organizations.create(
            slug,
            name=name,
            limits=own_limits,
            scopes=parse_scopes(scopes) or None,
            max_key_lifetime=None if longest is None else parse_span("--max-key-lifetime", longest),
            max_keys=most_keys,
            time_zone="UTC" if time_zone is None else time_zone,
            plan=plan,
            metadata=parse_metadata(metadata),
            actor=actor(),
        )
    _show(organization, common, "was created")


@app.command("list")
@with_options(*LIST)
def list_organizations(common: Common) -> None:
    """List organizations, oldest first."""
    with common.guard() as guard:
        show_list(
            common,
            guard.organizations.list,
            organization_json,
            _table,
            "There are no organizations to list.",
        )


@app.command()
@with_options(*STORE)
def show(common: Common, named: str = ORGANIZATION) -> None:
    """Show all that is known of an organization."""
    with common.guard() as guard:
        organization = guard.organizations.get(named)
    text = details(organization_details(organization, datetime.now(UTC)))
    common.show(organization_json(organization), text)


@app.command()
@with_options(*STORE)
def update(
    common: Common,
    named: str = ORGANIZATION,
    name: str | None = option("NAME", "The new name for people."),
    limits: list[str] | None = LIMITS,
    no_limits: bool = flag("--no-limits", "Remove all limits of the organization."),
    scopes: list[str] | None = SCOPES,
    any_scope: bool = flag("--any-scope", "Let keys of the organization have any scope."),
    longest: str | None = LIFETIME,
    any_lifetime: bool = flag(
        "--no-max-key-lifetime", "Let keys of the organization work for ever."
    ),
    most_keys: int | None = MOST_KEYS,
    any_number: bool = flag("--no-max-keys", "Let the organization have any number of keys."),
    time_zone: str | None = option(
        "ZONE", "The zone whose days the organization's usage is kept in from now on."
    ),
    plan: str | None = PLAN,
    no_plan: bool = flag("--no-plan", "Take the organization's plan away."),
    metadata: list[str] | None = METADATA,
    no_metadata: bool = flag("--no-metadata", "Remove all notes of the organization."),
    force: bool = flag("--force", "Take the scope admin even if a key of the organization has it."),
) -> None:
    """Change an organization. Limits, scopes or metadata that are given replace all former ones.

    A new --max-key-lifetime applies to keys that are issued later.
    """
    own_limits = parse_limits(limits, "organization")
    lifetime = None if longest is None else parse_span("--max-key-lifetime", longest)
    new_limits = new_value("--limit", own_limits, "--no-limits", no_limits, ())
    new_scopes = new_value("--scope", parse_scopes(scopes), "--any-scope", any_scope, None)
    new_lifetime = new_value(
        "--max-key-lifetime", lifetime, "--no-max-key-lifetime", any_lifetime, None
    )
    new_number = new_value("--max-keys", most_keys, "--no-max-keys", any_number, None)
    notes = parse_metadata(metadata)
    new_notes = new_value("--metadata", notes, "--no-metadata", no_metadata, dict[str, str]())
    new_plan = new_value("--plan", plan, "--no-plan", no_plan, None)
    new_name = UNCHANGED if name is None else name
    new_zone = UNCHANGED if time_zone is None else time_zone
    check_change(
        common.command,
        new_name,
        new_limits,
        new_scopes,
        new_lifetime,
        new_number,
        new_zone,
        new_plan,
        new_notes,
    )
    with common.guard() as guard:
        organization = guard.organizations.update(
            named,
            name=new_name,
            limits=new_limits,
            scopes=new_scopes,
            max_key_lifetime=new_lifetime,
            max_keys=new_number,
            time_zone=new_zone,
            plan=new_plan,
            metadata=new_notes,
            force=force,
            actor=actor(),
        )
    _show(organization, common, "was changed")


@app.command()
@with_options(*STORE)
def disable(common: Common, named: str = ORGANIZATION) -> None:
    """Disable an organization. None of its keys works until it is enabled again."""
    with common.guard() as guard:
        started_at = datetime.now(UTC)
        organization = guard.organizations.disable(named, actor=actor())
    disabled_at = organization.disabled_at
    if isinstance(organization, DamagedOrganization):
        what = "was not changed: its field for the time is filled already"
        what = what if disabled_at is None else "was disabled; none of its keys works now"
        text = f"Organization {organization.id} {what}. Its record is damaged and can't be read.\n"
        common.show({**fields_json(organization, ("id", "disabled_at")), "damaged": True}, text)
        return
    what = "was disabled; none of its keys works now"
    if disabled_at is not None and disabled_at < started_at:
        what = f"has been disabled since {absolute(disabled_at, started_at)}"
    _show(organization, common, what)


@app.command()
@with_options(*STORE)
def enable(common: Common, named: str = ORGANIZATION) -> None:
    """Enable an organization that was disabled. Its keys work again."""
    with common.guard() as guard:
        before = guard.organizations.get(named)
        organization = guard.organizations.enable(before.id, actor=actor())
    what = "is enabled already" if before.disabled_at is None else "was enabled"
    _show(organization, common, what)


def _show(organization: Organization, common: Common, what: str) -> None:
    text = f"Organization {organization.slug} {what}. Its id is {organization.id}.\n"
    common.show(organization_json(organization), text)


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
