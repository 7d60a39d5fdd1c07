"""``keyguard key``: keys are created, looked at and changed."""

from __future__ import annotations

from datetime import UTC, datetime
from math import ceil
from typing import Annotated

import typer

from keyguard.cli import key_list, revocation, rotation
from keyguard.cli.importing import import_keys
from keyguard.cli.options import (
    Common,
    Json,
    KeyNamed,
    Limiter,
    Limits,
    Networks,
    PepperFile,
    Scopes,
    Url,
    actor,
    key_id,
)
from keyguard.cli.output import emit, emit_json
from keyguard.cli.records import key_details, key_document, status_document
from keyguard.cli.tables import details, table
from keyguard.cli.times import parse_instant, parse_span, spelled
from keyguard.cli.tokens import hand_over, verify
from keyguard.cli.values import new_value, parse_metadata, parse_scopes
from keyguard.core.keys.values import UNCHANGED
from keyguard.core.limits.limit import parse_limit
from keyguard.exceptions import InvalidValueError

__all__ = ["app"]

app = typer.Typer(help="Manage keys.", no_args_is_help=True)
app.command("import")(import_keys)

ForceScopes = Annotated[
    bool,
    typer.Option("--force", help="Take admin even from the last key of its organization."),
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
    scopes: Scopes = None,
    expires_in: Annotated[
        str | None,
        typer.Option(
            "--expires-in",
            metavar="SPAN",
            help="How long it works, such as 90d, 12h, 2w or P90D; by default as long as the keys "
            "of its organization may.",
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
    networks: Networks = None,
    url: Url = None,
    pepper_file: PepperFile = None,
    as_json: Json = False,
) -> None:
    """Create a key, and print its token: the only time it is shown."""
    common = Common.of(ctx, url, as_json, pepper_file)
    span = None if expires_in is None else parse_span(expires_in)
    start = None if not_before is None else parse_instant(not_before)
    notes = parse_metadata(metadata)
    own_limits = [parse_limit(text, "key") for text in limits or []]
    with common.guard() as guard:
        issued = guard.keys.issue(
            organization=organization,
            name=name,
            scopes=parse_scopes(scopes),
            expires_in=span,
            not_before=start,
            metadata=notes,
            limits=own_limits,
            allowed_networks=networks or (),
            actor=actor(),
        )
        hand_over(guard, issued, as_json=common.as_json)


app.command("list")(key_list.list_keys)


@app.command()
def show(ctx: typer.Context, named: KeyNamed, url: Url = None, as_json: Json = False) -> None:
    """Show all that is known of a key. The token is not."""
    common = Common.of(ctx, url, as_json)
    now = datetime.now(UTC)
    with common.guard() as guard:
        key = guard.keys.get(key_id(named))
        owner = guard.organizations.get(key.organization)
    if common.as_json:
        emit_json(key_document(key, now))
    else:
        emit(details(key_details(key, owner, now)))


@app.command()
def update(
    ctx: typer.Context,
    named: KeyNamed,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Its new name for people.")
    ] = None,
    scopes: Scopes = None,
    no_scopes: Annotated[bool, typer.Option("--no-scopes", help="Take its scopes away.")] = False,
    limits: Limits = None,
    no_limits: Annotated[bool, typer.Option("--no-limits", help="Take its limits away.")] = False,
    networks: Networks = None,
    no_networks: Annotated[
        bool, typer.Option("--no-networks", help="Let it work from anywhere.")
    ] = False,
    force: ForceScopes = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Change a key; the scopes, limits or networks given replace all it had."""
    common = Common.of(ctx, url, as_json)
    own_limits = [parse_limit(text, "key") for text in limits or []]
    wanted_scopes = new_value(
        "--scope", parse_scopes(scopes), "--no-scopes", cleared=no_scopes, empty=()
    )
    wanted_limits = new_value("--limit", own_limits, "--no-limits", cleared=no_limits, empty=())
    wanted_networks = new_value(
        "--network", networks, "--no-networks", cleared=no_networks, empty=()
    )
    with common.guard() as guard:
        key = guard.keys.update(
            key_id(named),
            name=UNCHANGED if name is None else name,
            scopes=wanted_scopes,
            limits=wanted_limits,
            allowed_networks=wanted_networks,
            force=force,
            actor=actor(),
        )
    if common.as_json:
        emit_json(key_document(key, datetime.now(UTC)))
    else:
        emit(f"Key {key.id} is changed.\n")


app.command("rotate")(rotation.rotate)
app.command("revoke")(revocation.revoke)
app.command("revoke-family")(revocation.revoke_family)
app.command("revoke-token", context_settings={"allow_extra_args": True})(revocation.revoke_token)
app.command("verify", context_settings={"allow_extra_args": True})(verify)


@app.command("limits")
def show_limits(
    ctx: typer.Context,
    named: KeyNamed,
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
        emit_json({"limits": [status_document(one) for one in statuses]})
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
