"""``keyguard key revoke``, ``revoke-family`` and ``revoke-token``: keys end, for good."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, TypeAlias

import typer

from keyguard.cli.options import Common, Json, KeyNamed, PepperFile, Url, actor, key_id
from keyguard.cli.output import emit, emit_json
from keyguard.cli.records import key_document
from keyguard.cli.times import relative
from keyguard.cli.tokens import read_token
from keyguard.core.keys.records import Key, KeyStatus, RevocationReason
from keyguard.core.tokens.secret import Secret

__all__ = ["revoke", "revoke_family", "revoke_token"]

Reason: TypeAlias = Annotated[
    str,
    typer.Option(
        "--reason",
        metavar="REASON",
        help=f"Why, one of: {', '.join(one.value for one in RevocationReason)}.",
    ),
]
Note: TypeAlias = Annotated[
    str | None, typer.Option("--note", metavar="TEXT", help="Why in your own words.")
]
Force: TypeAlias = Annotated[
    bool, typer.Option("--force", help="Even the last key of its organization that has admin.")
]


def revoke(
    ctx: typer.Context,
    named: KeyNamed,
    reason: Reason = RevocationReason.UNSPECIFIED.value,
    note_text: Note = None,
    force: Force = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Revoke a key, for good. Its successor, if it was rotated, works on."""
    common = Common.of(ctx, url, as_json)
    now = datetime.now(UTC)
    successor: Key | None = None
    with common.guard() as guard:
        before = guard.keys.get(key_id(named))
        key = guard.keys.revoke(
            before.id, reason=reason, note=note_text, force=force, actor=actor()
        )
        if key.successor is not None:
            successor = guard.keys.get(key.successor)
    if common.as_json:
        emit_json(key_document(key, now))
        return
    _tell(key, now, was_revoked=before.revoked_at is not None)
    if successor is not None and successor.status(now) is KeyStatus.ACTIVE:
        emit(
            f"Its successor {successor.id} works on; to end that too: "
            f"keyguard key revoke-family {key.family}\n"
        )


def revoke_family(
    ctx: typer.Context,
    family: Annotated[
        str,
        typer.Argument(
            metavar="FAMILY", help="The family, fam_..., as key show has it.", show_default=False
        ),
    ],
    reason: Reason = RevocationReason.UNSPECIFIED.value,
    note_text: Note = None,
    force: Force = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Revoke a key with all that descend from it by rotation, or from which it does."""
    common = Common.of(ctx, url, as_json)
    now = datetime.now(UTC)
    with common.guard() as guard:
        keys = guard.keys.revoke_family(
            key_id(family), reason=reason, note=note_text, force=force, actor=actor()
        )
    if common.as_json:
        emit_json({"items": [key_document(key, now) for key in keys]})
        return
    for key in keys:
        _tell(key, now, was_revoked=_since_before(key, now))


def revoke_token(
    ctx: typer.Context,
    note_text: Annotated[
        str | None,
        typer.Option("--note", metavar="TEXT", help="In your own words: where it was found, say."),
    ] = None,
    url: Url = None,
    pepper_file: PepperFile = None,
    as_json: Json = False,
) -> None:
    """Revoke the key of a token that was found, read from stdin or from a hidden prompt.

    Whoever holds a token may; the reason is key compromise, and nothing needs to be forced.
    """
    common = Common.of(ctx, url, as_json, pepper_file)
    now = datetime.now(UTC)
    with common.guard() as guard:
        token = Secret(read_token(ctx).decode(errors="replace"))
        key = guard.keys.revoke_token(token, note=note_text)
    if common.as_json:
        emit_json(key_document(key, now))
    else:
        _tell(key, now, was_revoked=_since_before(key, now))


def _since_before(key: Key, now: datetime) -> bool:
    return key.revoked_at is not None and key.revoked_at < now


def _tell(key: Key, now: datetime, *, was_revoked: bool) -> None:
    if was_revoked and key.revoked_at is not None:
        emit(
            f"Key {key.id} was revoked already, {relative(key.revoked_at, now)}; "
            "that time and its reason stay.\n"
        )
    else:
        emit(f"Key {key.id} is revoked.\n")
