"""``keyguard key revoke``, ``revoke-family`` and ``revoke-token``: end keys for good."""

from __future__ import annotations

from datetime import UTC, datetime

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
from keyguard.core.keys.results import DamagedKey
from keyguard.core.management.json_forms import JsonObject, revoked_json
from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import CorruptDataError, InvalidValueError, NotFoundError, shown
from keyguard.guard import Keyguard

_KNOWN = ", ".join(reason.replace(" ", "-") for reason in RevocationReason)
REASON = option(
    "REASON",
    f"Why, one of: {_KNOWN}.",
    default=RevocationReason.UNSPECIFIED.value,
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
            argument_id(named), reason=_reason(reason), note=note, force=force, actor=actor()
        )
        text = _revoked(key, now)
        if isinstance(key, Key) and key.successor is not None:
            text += _still_works(guard, key.successor, key.family, now)
    common.show(revoked_json(key, now), text)


def _still_works(guard: Keyguard, successor: str, family: str, now: datetime) -> str:
    try:
        if guard.keys.get(successor).status(now) is not KeyStatus.ACTIVE:
            return ""
    except (CorruptDataError, NotFoundError):  # nobody gets in with it
        return ""
    return (
        f"Its successor {successor} still works; to revoke it too, run: "
        f"keyguard key revoke-family {family}\n"
    )


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
            argument_id(family), reason=_reason(reason), note=note, force=force, actor=actor()
        )
    form: JsonObject = {"items": [revoked_json(key, now) for key in keys]}
    common.show(form, "".join(_revoked(key, now) for key in keys))


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
        try:
            key = guard.keys.revoke_token(token, note=note)
        except NotFoundError as failure:
            if common.given is not None or guard.policy.names_own(token.reveal()):
                raise
            prefix = f"{guard.settings.prefix}_"
            raise NotFoundError(
                f"{failure}; if the tokens of the service do not begin with {prefix}, set "
                "KEYGUARD_PREFIX to their prefix"
            ) from None
    common.show(revoked_json(key, now), _revoked(key, now))


def _reason(text: str) -> RevocationReason:
    try:
        return RevocationReason.of(text)
    except InvalidValueError:
        raise InvalidValueError(
            f"{shown(text)} is not a valid reason; use one of: {_KNOWN}. Put your own words into "
            "--note"
        ) from None


def _revoked(key: Key | DamagedKey, now: datetime) -> str:
    if isinstance(key, DamagedKey):
        if key.revoked_at is not None:
            return f"Key {key.id} was revoked. Its record is damaged and can't be read.\n"
        return (
            f"Key {key.id} was not changed. Its record is damaged and can't be read, but "
            "its field for the time of a revocation is filled already.\n"
        )
    if key.revoked_at is None or key.revoked_at >= now:
        return f"Key {key.id} was revoked.\n"
    return (
        f"Key {key.id} was already revoked {relative(key.revoked_at, now)}; "
        "that time and its reason stay.\n"
    )
