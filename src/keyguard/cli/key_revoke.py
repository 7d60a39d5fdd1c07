"""``keyguard key revoke``, ``revoke-family`` and ``revoke-token``: end keys for good."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, TypeAlias

import typer

from keyguard.cli.json_forms import key_json
from keyguard.cli.options import Common, Json, KeyNamed, PepperFile, Url, actor, argument_id
from keyguard.cli.output import emit, emit_json
from keyguard.cli.token_io import read_token
from keyguard.cli.wording import relative
from keyguard.core.keys.records import Key, KeyStatus, RevocationReason
from keyguard.core.tokens.secret import Secret

Reason: TypeAlias = Annotated[
    str,
    typer.Option(
        "--reason",
        metavar="REASON",
        help=f"Why, one of: {', '.join(reason.value for reason in RevocationReason)}.",
    ),
]
Note: TypeAlias = Annotated[
    str | None, typer.Option("--note", metavar="TEXT", help="Why, in your own words.")
]
Force: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--force", help="Revoke even the last key of its organization that has the scope admin."
    ),
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
    """Revoke a key for good. If it was rotated, its successor keeps working."""
    common = Common.of(ctx, url, as_json)
    now = datetime.now(UTC)
    successor: Key | None = None
    with common.guard() as guard:
        key = guard.keys.revoke(
            argument_id(named), reason=reason, note=note_text, force=force, actor=actor()
        )
        if key.successor is not None:
            successor = guard.keys.get(key.successor)
    if common.as_json:
        emit_json(key_json(key, now))
        return
    _report(key, now)
    if successor is not None and successor.status(now) is KeyStatus.ACTIVE:
        emit(
            f"Its successor {successor.id} still works; to revoke it too, run: "
            f"keyguard key revoke-family {key.family}\n"
        )


def revoke_family(
    ctx: typer.Context,
    family: Annotated[
        str,
        typer.Argument(
            metavar="FAMILY", help="The family, fam_..., which key show prints.", show_default=False
        ),
    ],
    reason: Reason = RevocationReason.UNSPECIFIED.value,
    note_text: Note = None,
    force: Force = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Revoke all keys of a family. A family is a key with its successors and predecessors."""
    common = Common.of(ctx, url, as_json)
    now = datetime.now(UTC)
    with common.guard() as guard:
        keys = guard.keys.revoke_family(
            argument_id(family), reason=reason, note=note_text, force=force, actor=actor()
        )
    if common.as_json:
        emit_json({"items": [key_json(key, now) for key in keys]})
        return
    for key in keys:
        _report(key, now)


def revoke_token(
    ctx: typer.Context,
    note_text: Annotated[
        str | None,
        typer.Option(
            "--note",
            metavar="TEXT",
            help="In your own words, for example where the token was found.",
        ),
    ] = None,
    url: Url = None,
    pepper_file: PepperFile = None,
    as_json: Json = False,
) -> None:
    """Revoke the key of a token that was found. It is read from stdin or a hidden prompt.

    The reason is key compromise. No --force is needed, not even for the last key with admin.
    """
    common = Common.of(ctx, url, as_json, pepper_file)
    now = datetime.now(UTC)
    with common.guard() as guard:
        token = Secret(read_token(ctx).decode(errors="replace"))
        key = guard.keys.revoke_token(token, note=note_text)
    if common.as_json:
        emit_json(key_json(key, now))
    else:
        _report(key, now)


def _report(key: Key, now: datetime) -> None:
    if key.revoked_at is not None and key.revoked_at < now:
        emit(
            f"Key {key.id} was already revoked {relative(key.revoked_at, now)}; "
            "that time and its reason stay.\n"
        )
    else:
        emit(f"Key {key.id} was revoked.\n")
