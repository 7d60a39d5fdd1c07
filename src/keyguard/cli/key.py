"""``keyguard key``: creates keys, shows them and changes them."""

from __future__ import annotations

from datetime import UTC, datetime
from math import ceil
from typing import Annotated

import typer

from keyguard.cli import key_list, key_revoke, key_rotate
from keyguard.cli.json_forms import key_json, limit_status_json
from keyguard.cli.key_import import import_keys
from keyguard.cli.key_verify import verify
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
    argument_id,
)
from keyguard.cli.output import emit, emit_json
from keyguard.cli.parsing import (
    new_value,
    parse_instant,
    parse_metadata,
    parse_scopes,
    parse_span,
)
from keyguard.cli.terminal import details, table
from keyguard.cli.token_io import hand_over
from keyguard.cli.wording import in_units, key_details
from keyguard.core.keys.values import UNCHANGED
from keyguard.core.limits.limit import parse_limit
from keyguard.exceptions import InvalidValueError

app = typer.Typer(help="Manage keys.", no_args_is_help=True)
app.command("import")(import_keys)

ForceScopes = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Take the scope admin even from the last key of its organization that has it.",
    ),
]


@app.command()
def create(
    ctx: typer.Context,
    organization: Annotated[
        str,
        typer.Option(
            "--org",
            metavar="ORG",
            help="The organization that will own the key, by id or slug.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str,
        typer.Option("--name", metavar="NAME", help="A name for people.", show_default=False),
    ],
    scopes: Scopes = None,
    expires_in: Annotated[
        str | None,
        typer.Option(
            "--expires-in",
            metavar="SPAN",
            help="How long the key works, such as 90d, 12h, 2w or P90D; by default as long as its "
            "organization allows.",
        ),
    ] = None,
    not_before: Annotated[
        str | None,
        typer.Option(
            "--not-before",
            metavar="TIME",
            help="When the key starts to work, such as 2030-01-31 or 2030-01-31T09:00:00Z.",
        ),
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata", metavar="NAME=VALUE", help="A note kept with the key; may be repeated."
        ),
    ] = None,
    limits: Limits = None,
    networks: Networks = None,
    url: Url = None,
    pepper_file: PepperFile = None,
    as_json: Json = False,
) -> None:
    """Create a key and print its token. It is shown only this once."""
    common = Common.of(ctx, url, as_json, pepper_file)
    span = None if expires_in is None else parse_span(expires_in)
    start = None if not_before is None else parse_instant(not_before)
    pairs = parse_metadata(metadata)
    own_limits = [parse_limit(text, "key") for text in limits or []]
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
            actor=actor(),
        )
        hand_over(guard, issued, as_json=common.as_json)


app.command("list")(key_list.list_keys)


@app.command()
def show(ctx: typer.Context, named: KeyNamed, url: Url = None, as_json: Json = False) -> None:
    """Show all that is known of a key. keyguard does not store its token."""
    common = Common.of(ctx, url, as_json)
    now = datetime.now(UTC)
    with common.guard() as guard:
        key = guard.keys.get(argument_id(named))
        owner = guard.organizations.get(key.organization)
    if common.as_json:
        emit_json(key_json(key, now))
    else:
        emit(details(key_details(key, owner, now)))


@app.command()
def update(
    ctx: typer.Context,
    named: KeyNamed,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The new name for people.")
    ] = None,
    scopes: Scopes = None,
    no_scopes: Annotated[
        bool, typer.Option("--no-scopes", help="Remove all scopes of the key.")
    ] = False,
    limits: Limits = None,
    no_limits: Annotated[
        bool, typer.Option("--no-limits", help="Remove the key's own limits.")
    ] = False,
    networks: Networks = None,
    no_networks: Annotated[
        bool, typer.Option("--no-networks", help="Let the key work from any network.")
    ] = False,
    force: ForceScopes = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Change a key. Scopes, limits or networks that are given replace all former ones."""
    common = Common.of(ctx, url, as_json)
    own_limits = [parse_limit(text, "key") for text in limits or []]
    wanted_scopes = new_value(
        "--scope", parse_scopes(scopes), "--no-scopes", is_cleared=no_scopes, empty=()
    )
    wanted_limits = new_value("--limit", own_limits, "--no-limits", is_cleared=no_limits, empty=())
    wanted_networks = new_value(
        "--network", networks, "--no-networks", is_cleared=no_networks, empty=()
    )
    with common.guard() as guard:
        key = guard.keys.update(
            argument_id(named),
            name=UNCHANGED if name is None else name,
            scopes=wanted_scopes,
            limits=wanted_limits,
            allowed_networks=wanted_networks,
            force=force,
            actor=actor(),
        )
    if common.as_json:
        emit_json(key_json(key, datetime.now(UTC)))
    else:
        emit(f"Key {key.id} was changed.\n")


app.command("rotate")(key_rotate.rotate)
app.command("revoke")(key_revoke.revoke)
app.command("revoke-family")(key_revoke.revoke_family)
app.command("revoke-token", context_settings={"allow_extra_args": True})(key_revoke.revoke_token)
app.command("verify", context_settings={"allow_extra_args": True})(verify)


@app.command("limits")
def show_limits(
    ctx: typer.Context,
    named: KeyNamed,
    limiter: Limiter = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Show what is left of a key's limits. These include its organization's and the defaults."""
    common = Common.of(ctx, url, as_json, limiter=limiter)
    if common.limiter == "memory://":
        raise InvalidValueError(
            "the counters in the memory of another process can't be seen; name the store where the "
            "service counts"
        )
    with common.guard() as guard:
        statuses = guard.keys.limits(argument_id(named))
    if common.as_json:
        emit_json({"limits": [limit_status_json(status) for status in statuses]})
    elif not statuses:
        emit(f"Key {named} has no limits.\n")
    else:
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
        emit(table(headings, rows, flexible={"Policy": 6}))
