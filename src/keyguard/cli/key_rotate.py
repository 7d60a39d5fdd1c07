"""``keyguard key rotate``: gives a key a successor; both work during the grace."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from keyguard.cli.json_forms import new_key_json
from keyguard.cli.options import Common, Json, KeyNamed, PepperFile, Url, actor, argument_id
from keyguard.cli.output import emit_json, note
from keyguard.cli.parsing import parse_span
from keyguard.cli.token_io import hand_over
from keyguard.cli.wording import absolute
from keyguard.core.keys.records import IssuedKey, Key, KeyStatus, RotatedKey
from keyguard.core.keys.values import UNCHANGED


def rotate(
    ctx: typer.Context,
    named: KeyNamed,
    grace: Annotated[
        str,
        typer.Option(
            "--grace",
            metavar="SPAN",
            help="How long the old token keeps working; 0 ends it at once.",
        ),
    ] = "24h",
    expires_in: Annotated[
        str | None,
        typer.Option(
            "--expires-in",
            metavar="SPAN",
            help="How long the new key works; by default as long as the old one was meant to.",
        ),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            "--idempotency-key",
            metavar="TEXT",
            help="A name for this rotation. A second run with the same name changes nothing.",
        ),
    ] = None,
    url: Url = None,
    pepper_file: PepperFile = None,
    as_json: Json = False,
) -> None:
    """Give a key a successor and print the new token. It is shown only this once."""
    common = Common.of(ctx, url, as_json, pepper_file)
    grace_span = parse_span(grace, may_be_zero=True)
    span = UNCHANGED if expires_in is None else parse_span(expires_in)
    with common.guard() as guard:
        rotated = guard.keys.rotate(
            argument_id(named),
            grace=grace_span,
            expires_in=span,
            idempotency_key=idempotency_key,
            actor=actor(),
        )
        if rotated.token is None:
            _show_repeated(rotated, as_json=common.as_json)
        else:
            issued = IssuedKey(key=rotated.key, token=rotated.token)
            hand_over(guard, issued, as_json=common.as_json, predecessor=rotated.predecessor)


def _show_repeated(rotated: RotatedKey, *, as_json: bool) -> None:
    if as_json:
        emit_json(new_key_json(rotated.key, None, rotated.predecessor))
        return
    old, new = rotated.predecessor, rotated.key
    now = datetime.now(UTC)
    note(
        f"Key {old.id} was already rotated under this idempotency key.\n"
        f"Its successor is {new.id}{_unless_it_works(new, now)}. "
        "The new token was shown then and is not shown again."
    )
    if old.revoked_at is None and old.grace_ends_at is not None:
        verb = "works" if old.status(now) is KeyStatus.ACTIVE else "worked"
        note(f"Key {old.id} {verb} until {absolute(old.grace_ends_at, now)}.")


def _unless_it_works(key: Key, now: datetime) -> str:
    status = key.status(now)
    return "" if status is KeyStatus.ACTIVE else f", now {status.value}"
