"""How keys end, for good."""

from __future__ import annotations

from datetime import datetime

from keyguard.core.access.effects import Flow, ReadClock, VerifyToken
from keyguard.core.keys.audit import Action, Actor, describe
from keyguard.core.keys.commit import Change, Commit, changed
from keyguard.core.keys.records import Key, KeyFilter, RevocationReason
from keyguard.core.keys.values import FAMILY_ID, check_text
from keyguard.core.management.administrators import refuse_to_lose_the_last
from keyguard.core.management.common import (
    Authority,
    all_keys,
    check_actor,
    find_record,
    settled,
    unknown,
)
from keyguard.core.management.effects import FindKey, ReadPolicy
from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import InvalidValueError, NotFoundError

__all__ = ["revoke_family", "revoke_key", "revoke_token"]


def revoke_key(
    key_id: str,
    *,
    reason: RevocationReason | str = RevocationReason.UNSPECIFIED,
    note: str | None = None,
    force: bool = False,
    actor: Actor = None,
) -> Flow[Key]:
    """Revoke a key, for good. Its successor, if it has one, works on.

    Args:
        key_id: Its id.
        reason: Why.
        note: Why in your own words, at most 200 characters.
        force: Revoke even the last key of its organization that has ``admin``.
        actor: Who revokes it, for the audit trail; a principal only keys of its own organization.

    Returns:
        The key as it stands after. Revoking a revoked key changes nothing; the first time and
        reason stay.

    Raises:
        InvalidValueError: The reason or the note is not as said.
        NotFoundError: There is no such key.
        RefusedError: It is the last that has ``admin``, or the actor's key works no more.
        StoreError: The key store failed.
    """
    check_actor(actor)
    why = _why(reason, note)

    def attempt(authority: Authority) -> Flow[tuple[Commit | None, Key]]:
        record = yield from find_record(key_id, authority)
        if record.key.revoked_at is not None:
            return None, record.key
        now = yield from ReadClock()
        after = _revoked(record.key, now, why)
        guarded = yield from refuse_to_lose_the_last(record, after, now, force=force)
        entry = describe(Action.KEY_REVOKED, now, actor, record.key, after)
        return Commit(entries=(entry,), changes=(Change(record.key, after), *guarded)), after

    return (yield from settled(actor, attempt))


def revoke_family(
    family: str,
    *,
    reason: RevocationReason | str = RevocationReason.UNSPECIFIED,
    note: str | None = None,
    force: bool = False,
    actor: Actor = None,
) -> Flow[tuple[Key, ...]]:
    """Revoke a key with all that descend from it by rotation, or from which it does, together.

    Args:
        family: The family, ``fam_...``.
        reason: Why.
        note: Why in your own words, at most 200 characters.
        force: Revoke even the last key of its organization that has ``admin``.
        actor: Who revokes them, for the audit trail; a principal only keys of its own organization.

    Returns:
        All keys of the family as they stand after, oldest first.

    Raises:
        InvalidValueError: The reason or the note is not as said.
        NotFoundError: There is no such family.
        RefusedError: The last key that has ``admin`` is among them, or the actor's works no more.
        StoreError: The key store failed.
    """
    check_actor(actor)
    why = _why(reason, note)
    if not isinstance(family, str) or not FAMILY_ID.match(family):
        raise InvalidValueError("a family is fam_ and 16 characters, as a key's record has it")

    def attempt(authority: Authority) -> Flow[tuple[Commit | None, tuple[Key, ...]]]:
        keys = yield from all_keys(KeyFilter(family=family))
        if not all(authority.reaches(key.organization) for key in keys) or not keys:
            raise unknown("family", family)
        alive = [key for key in keys if key.revoked_at is None]
        if not alive:
            return None, tuple(keys)
        now = yield from ReadClock()
        after = {key.id: _revoked(key, now, why) for key in alive}
        guarded: dict[str, Change] = {}
        for key in alive:
            record = yield from FindKey(key.id)
            if record is None or record.key.version != key.version:
                continue  # it changed: the commit will say so
            lost = yield from refuse_to_lose_the_last(
                record, after[key.id], now, force=force, besides=list(after)
            )
            guarded |= {change.id: change for change in lost}
        commit = Commit(
            entries=tuple(
                describe(Action.KEY_REVOKED, now, actor, key, after[key.id]) for key in alive
            ),
            changes=(*(Change(key, after[key.id]) for key in alive), *guarded.values()),
        )
        return commit, tuple(after.get(key.id, key) for key in keys)

    return (yield from settled(actor, attempt))


def revoke_token(token: Secret | str, *, note: str | None = None) -> Flow[Key]:
    """Revoke the key of a token that was found where it should not be; who holds it may.

    Args:
        token: The whole token, as a client would send it.
        note: Where it was found, say, at most 200 characters.

    Returns:
        The key as it stands after. A revoked one stays as it is.

    Raises:
        InvalidValueError: The note is not as said.
        NotFoundError: The token is no key's.
        StoreError: The key store failed.
    """
    secret = token if isinstance(token, Secret) else Secret(str(token))
    del token
    why = _why(RevocationReason.KEY_COMPROMISE, note)
    policy = yield from ReadPolicy()
    for key_id in policy.candidates(secret):
        record = yield from FindKey(key_id)
        genuine = yield from VerifyToken(secret, record.digest if record else None)
        if record is not None and genuine is True:
            return (
                yield from revoke_key(
                    key_id, reason=why[0], note=why[1], force=True, actor=f"key:{key_id}"
                )
            )
    raise NotFoundError("that token is no key's")


def _why(reason: RevocationReason | str, note: str | None) -> tuple[RevocationReason, str | None]:
    if note is not None:
        check_text("a revocation's note", note)
    return RevocationReason.of(reason), note


def _revoked(key: Key, at: datetime, why: tuple[RevocationReason, str | None]) -> Key:
    reason, note = why
    return changed(key, revoked_at=at, revoked_reason=reason, revoked_note=note)
