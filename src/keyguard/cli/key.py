"""``keyguard key``: creates keys, shows, changes and rotates them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from math import ceil

import typer

from keyguard.cli import output
from keyguard.cli.key_import import import_keys
from keyguard.cli.key_revoke import revoke, revoke_family, revoke_token
from keyguard.cli.key_verify import verify
from keyguard.cli.options import (
    HASHED_STORE,
    KEY,
    LIMITS,
    LIST,
    NETWORKS,
    SCOPES,
    STORE,
    Common,
    actor,
    argument_id,
    flag,
    option,
    with_options,
)
from keyguard.cli.pages import show_list
from keyguard.cli.parsing import (
    check_change,
    new_value,
    parse_instant,
    parse_limits,
    parse_metadata,
    parse_scopes,
)
from keyguard.cli.terminal import coloured, details, status_word, table
from keyguard.cli.token_io import hand_over
from keyguard.cli.wording import absolute, key_details, last_used, when_ends
from keyguard.core.keys.records import Key, KeyStatus
from keyguard.core.keys.results import IssuedKey, RotatedKey
from keyguard.core.limits.charges import LimitStatus
from keyguard.core.management.json_forms import (
    key_json,
    limit_status_json,
    new_key_json,
)
from keyguard.core.spans import in_units, parse_span
from keyguard.core.values import UNCHANGED, Page
from keyguard.exceptions import CorruptDataError, InvalidValueError
from keyguard.guard import Keyguard

OWNER = option("NAME", "Who holds the key, as your service names people.")
app = typer.Typer(help="Manage keys.", no_args_is_help=True)
app.command("import")(import_keys)


@app.command()
@with_options(*HASHED_STORE)
def create(
    common: Common,
    organization: str = option(
        "ORG", "The organization that will own the key, by id or slug.", "--org", default=...
    ),
    name: str = option("NAME", "A name for people.", default=...),
    scopes: list[str] | None = SCOPES,
    expires_in: str | None = option(
        "SPAN",
        "How long the key works, such as 90d, 12h, 2w or P90D; by default as long as its "
        "organization allows.",
    ),
    not_before: str | None = option(
        "TIME", "When the key starts to work, such as 2030-01-31 or 2030-01-31T09:00:00Z."
    ),
    metadata: list[str] | None = option("NAME=VALUE", "A note kept with the key; may be repeated."),
    limits: list[str] | None = LIMITS,
    networks: list[str] | None = NETWORKS,
    owner: str | None = OWNER,
) -> None:
    """Create a key and print its token. It is shown only this once."""
    span = None if expires_in is None else parse_span("--expires-in", expires_in)
    start = None if not_before is None else parse_instant("--not-before", not_before)
    pairs = parse_metadata(metadata)
    own_limits = parse_limits(limits, "key")
    with common.guard() as guard:
        issued = guard.keys.issue(
            organization=organization,
            name=name,
            scopes=parse_scopes(scopes),
            expires_in=span,
            not_before=start,
            metadata=pairs,
            limits=own_limits,
            allowed_networks=networks or (),
            owner=owner,
            actor=actor(),
        )
        hand_over(guard, issued, as_json=common.as_json)


@app.command("list")
@with_options(*LIST)
def list_keys(
    common: Common,
    organization: str | None = option(
        "ORG", "Only keys of this organization, by id or slug.", "--org"
    ),
    owner: str | None = option("NAME", "Only keys that this person holds."),
    family: str | None = option(
        "FAMILY", "Only keys of this family, fam_...: a key and its successors."
    ),
    expiring_within: str | None = option(
        "SPAN", "Only keys that work now but stop working within that time, such as 30d."
    ),
    unused_for: str | None = option(
        "SPAN", "Only keys that work now but were not used for that long, such as 90d."
    ),
) -> None:
    """List keys, oldest first, also those that no longer work."""
    now = datetime.now(UTC)
    ending_in = (
        None if expiring_within is None else parse_span("--expiring-within", expiring_within)
    )
    unused = None if unused_for is None else parse_span("--unused-for", unused_for)
    is_report = ending_in is not None or unused is not None
    with common.guard() as guard:
        only = None
        with suppress(CorruptDataError):  # a list says what it can't read
            only = None if organization is None else guard.organizations.get(organization)

        def to_table(page: Page[Key]) -> str:
            owners = {key.organization for key in page} if only is None else ()
            return _table(page, now, {id: _slug(guard, id) for id in owners})

        show_list(
            common,
            partial(
                guard.keys.list,
                organization=organization if only is None else only.id,
                family=family,
                owner=owner,
                expiring_within=ending_in,
                unused_for=unused,
            ),
            partial(key_json, now=now),
            to_table,
            "There are no such keys." if is_report else "There are no keys to list.",
        )
    if only is not None and only.disabled_at is not None and not common.as_json:
        output.note(
            f"Organization {only.slug} is disabled: none of its keys works until it is enabled."
        )


def _slug(guard: Keyguard, organization: str) -> str:
    """Return an organization's slug, or its id if its record can't be read."""
    try:
        return guard.organizations.get(organization).slug
    except CorruptDataError:
        return organization


def _table(page: Page[Key], now: datetime, slugs: Mapping[str, str]) -> str:
    rows = [
        (
            key.id,
            *((slugs[key.organization],) if slugs else ()),
            key.name,
            coloured("\n".join(sorted(key.scopes))),
            status_word(key.status(now).value),
            when_ends(key, now),
            last_used(key, now),
        )
        for key in page
    ]
    org = ("Org",) if slugs else ()
    headings = ("Key", *org, "Name", "Scopes", "Status", "Ends", "Last used")
    widths = {"Org": 4, "Name": 6, "Scopes": 12, "Status": 7, "Ends": 7, "Last used": 9}
    return table(headings, rows, flexible=widths)


@app.command()
@with_options(*STORE)
def show(common: Common, named: str = KEY) -> None:
    """Show all that is known of a key. keyguard does not store its token."""
    now = datetime.now(UTC)
    with common.guard() as guard:
        key = guard.keys.get(argument_id(named))
        owner = guard.organizations.get(key.organization)
    common.show(key_json(key, now), details(key_details(key, owner, now)))


@app.command()
@with_options(*STORE)
def update(
    common: Common,
    named: str = KEY,
    name: str | None = option("NAME", "The new name for people."),
    scopes: list[str] | None = SCOPES,
    no_scopes: bool = flag("--no-scopes", "Remove all scopes of the key."),
    limits: list[str] | None = LIMITS,
    no_limits: bool = flag("--no-limits", "Remove the key's own limits."),
    networks: list[str] | None = NETWORKS,
    no_networks: bool = flag("--no-networks", "Let the key work from any network."),
    owner: str | None = OWNER,
    no_owner: bool = flag("--no-owner", "Remove the key's owner."),
    force: bool = flag(
        "--force", "Take the scope admin even from the last key of its organization that has it."
    ),
) -> None:
    """Change a key. Scopes, limits or networks that are given replace all former ones."""
    new_limits = new_value("--limit", parse_limits(limits, "key"), "--no-limits", no_limits, ())
    new_scopes = new_value("--scope", parse_scopes(scopes), "--no-scopes", no_scopes, ())
    new_networks = new_value("--network", networks, "--no-networks", no_networks, ())
    new_owner = new_value("--owner", owner, "--no-owner", no_owner, None)
    new_name = UNCHANGED if name is None else name
    key_id = argument_id(named)
    check_change(common.command, new_name, new_scopes, new_limits, new_networks, new_owner)
    with common.guard() as guard:
        key = guard.keys.update(
            key_id,
            name=new_name,
            scopes=new_scopes,
            limits=new_limits,
            allowed_networks=new_networks,
            owner=new_owner,
            force=force,
            actor=actor(),
        )
    common.show(key_json(key, datetime.now(UTC)), f"Key {key.id} was changed.\n")


@app.command()
@with_options(*HASHED_STORE)
def rotate(
    common: Common,
    named: str = KEY,
    grace: str = option(
        "SPAN", "How long the old token keeps working; 0 ends it at once.", default="24h"
    ),
    expires_in: str | None = option(
        "SPAN", "How long the new key works; by default as long as the old one was issued for."
    ),
    idempotency_key: str | None = option(
        "TEXT", "A name for this rotation. A second run with the same name changes nothing."
    ),
    force: bool = flag(
        "--force", "Rotate even if the organization then has no lasting key with the scope admin."
    ),
) -> None:
    """Give a key a successor and print the new token. It is shown only this once."""
    grace_span = parse_span("--grace", grace, may_be_zero=True)
    span = UNCHANGED if expires_in is None else parse_span("--expires-in", expires_in)
    with common.guard() as guard:
        rotated = guard.keys.rotate(
            argument_id(named),
            grace=grace_span,
            expires_in=span,
            idempotency_key=idempotency_key,
            force=force,
            actor=actor(),
        )
        if rotated.token is None:
            _show_repeated(rotated, as_json=common.as_json)
        else:
            issued = IssuedKey(key=rotated.key, token=rotated.token)
            hand_over(guard, issued, as_json=common.as_json, predecessor=rotated.predecessor)


def _show_repeated(rotated: RotatedKey, *, as_json: bool) -> None:
    old, new, now = rotated.predecessor, rotated.key, datetime.now(UTC)
    if as_json:
        output.emit_json(new_key_json(new, None, old))
        return
    status = new.status(now)
    unless_it_works = "" if status is KeyStatus.ACTIVE else f", now {status.value}"
    output.note(
        f"Key {old.id} was already rotated under this idempotency key.\n"
        f"Its successor is {new.id}{unless_it_works}. "
        "The new token was shown then and is not shown again."
    )
    if old.revoked_at is None and old.grace_ends_at is not None:
        verb = "works" if old.status(now) is KeyStatus.ACTIVE else "worked"
        output.note(f"Key {old.id} {verb} until {absolute(old.grace_ends_at, now)}.")


app.command()(revoke)
app.command()(revoke_family)
app.command(context_settings={"allow_extra_args": True})(revoke_token)
app.command("verify", context_settings={"allow_extra_args": True})(verify)


@app.command("limits")
@with_options("limiter", *STORE)
def show_limits(common: Common, named: str = KEY) -> None:
    """Show what is left of a key's limits. These include its organization's and the defaults."""
    if common.limiter == "memory://":
        raise InvalidValueError(
            "the counters in the memory of another process can't be seen; name the store where the "
            "service counts"
        )
    with common.guard() as guard:
        statuses = guard.keys.limits(argument_id(named))
    text = _limits_table(statuses) if statuses else f"Key {named} has no limits.\n"
    common.show({"limits": [limit_status_json(status) for status in statuses]}, text)


def _limits_table(statuses: Iterable[LimitStatus]) -> str:
    rows = [
        (
            status.name,
            f"{status.quota} in {in_units(status.window)}",
            str(status.remaining),
            in_units(ceil(status.reset_after)) if status.remaining < status.quota else "",
            "yes" if status.enforce else "no",
        )
        for status in statuses
    ]
    headings = ("Policy", "Quota", "Left", "More in", "Enforced")
    return table(headings, rows, flexible={"Policy": 6})
