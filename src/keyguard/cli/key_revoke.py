"""``keyguard key revoke``, ``revoke-family`` and ``revoke-token``: end keys for good."""

from __future__ import annotations

from datetime import UTC, datetime

import typer

from keyguard.cli.json_forms import JsonObject, key_json
from keyguard.cli.options import (
    HASHED_STORE,
    KEY,
    STORE,
    Common,
    actor,
    argument,
    argument_id,
    flag,
    option,
    with_options,
)
from keyguard.cli.token_io import read_token
from keyguard.cli.wording import relative
from keyguard.core.keys.records import Key, KeyStatus, RevocationReason
from keyguard.core.tokens.secret import Secret

REASON: str = typer.Option(
    RevocationReason.UNSPECIFIED.value,
    metavar="REASON",
    help=f"Why, one of: {', '.join(reason.value for reason in RevocationReason)}.",
)
NOTE = option("TEXT", "Why, in your own words.")
FORCE = flag("--force", "Revoke even the last key of its organization that has the scope admin.")


@with_options(*STORE)
def revoke(
    common: Common,
    named: str = KEY,
    reason: str = REASON,
    note: str | None = NOTE,
    force: bool = FORCE,
) -> None:
    """Revoke a key for good. If it was rotated, its successor keeps working."""
    now = datetime.now(UTC)
    with common.guard() as guard:
        key = guard.keys.revoke(
            argument_id(named), reason=reason, note=note, force=force, actor=actor()
        )
        successor = None if key.successor is None else guard.keys.get(key.successor)
    text = _report(key, now)
    if successor is not None and successor.status(now) is KeyStatus.ACTIVE:
        text += (
            f"Its successor {successor.id} still works; to revoke it too, run: "
            f"keyguard key revoke-family {key.family}\n"
        )
    common.show(key_json(key, now), text)


@with_options(*STORE)
def revoke_family(
    common: Common,
    family: str = argument("FAMILY", "The family, fam_..., which key show prints."),
    reason: str = REASON,
    note: str | None = NOTE,
    force: bool = FORCE,
) -> None:
    """Revoke all keys of a family. A family is a key with its successors and predecessors."""
    now = datetime.now(UTC)
    with common.guard() as guard:
        keys = guard.keys.revoke_family(
            argument_id(family), reason=reason, note=note, force=force, actor=actor()
        )
    form: JsonObject = {"items": [key_json(key, now) for key in keys]}
    common.show(form, "".join(_report(key, now) for key in keys))


@with_options(*HASHED_STORE)
def revoke_token(
    common: Common,
    note: str | None = option("TEXT", "In your own words, for example where the token was found."),
) -> None:
    """Revoke the key of a token that was found. It is read from stdin or a hidden prompt.

    The reason is key compromise. No --force is needed, not even for the last key with admin.
    """
    now = datetime.now(UTC)
    with common.guard() as guard:
        token = Secret(read_token(common).decode(errors="replace"))
        key = guard.keys.revoke_token(token, note=note)
    common.show(key_json(key, now), _report(key, now))


def _report(key: Key, now: datetime) -> str:
    if key.revoked_at is None or key.revoked_at >= now:
        return f"Key {key.id} was revoked.\n"
    return (
        f"Key {key.id} was already revoked {relative(key.revoked_at, now)}; "
        "that time and its reason stay.\n"
    )
