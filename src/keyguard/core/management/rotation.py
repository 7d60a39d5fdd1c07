"""Rotation: a key gets a successor, and goes on working for a time."""

from __future__ import annotations

from datetime import datetime, timedelta

from keyguard.core.access.policy import Policy
from keyguard.core.keys.audit import Action, Actor, describe
from keyguard.core.keys.commit import Change, Commit, changed
from keyguard.core.keys.records import Key, KeyRecord, KeyStatus, RevocationReason
from keyguard.core.keys.results import RotatedKey
from keyguard.core.management.administrators import keep_an_administrator
from keyguard.core.management.authority import HOLDERS, Authority, check_new_key
from keyguard.core.management.common import (
    Operations,
    check_actor,
    check_end,
    find_record,
    later,
    refuse_disabled,
    refuse_revoked,
    settled,
)
from keyguard.core.texts import check_text
from keyguard.core.tokens.format import ENTROPY_SIZE
from keyguard.core.values import LATEST, UNCHANGED, Unchanged
from keyguard.exceptions import InvalidValueError, RefusedError, shown

DEFAULT_GRACE = timedelta(hours=24)


class Rotation(Operations):
    """Gives keys their successors."""

    async def rotate(
        self,
        key_id: str,
        *,
        grace: timedelta = DEFAULT_GRACE,
        expires_in: timedelta | Unchanged | None = UNCHANGED,
        idempotency_key: str | None = None,
        force: bool = False,
        actor: Actor = None,
    ) -> RotatedKey:
        """Give a key a successor in its family, with the same rights.

        See :meth:`~keyguard.guard.keys.Keys.rotate`.
        """
        check_actor(actor)
        if not isinstance(grace, timedelta) or grace < timedelta(0):
            raise InvalidValueError(f"grace takes a timedelta of 0 or more, not {shown(grace)}")
        if idempotency_key is not None:
            idempotency_key = check_text("an idempotency key", idempotency_key)
        ports = self._ports
        now = ports.now()
        successor_id, token = ports.policy.tokens.draw(ports.draw_entropy(ENTROPY_SIZE))
        ends = later(now, grace) if grace else now
        if isinstance(expires_in, timedelta):
            later(now, expires_in)  # refuses what is not a span
        elif expires_in is not None and not isinstance(expires_in, Unchanged):
            raise InvalidValueError(
                f"expires_in takes a timedelta or None, not {shown(expires_in)}"
            )
        digest: str | None = None

        async def attempt(authority: Authority) -> tuple[Commit | None, RotatedKey]:
            nonlocal digest
            record = await find_record(ports, key_id, authority, HOLDERS)
            if authority.person is not None:
                authority = authority.over(ports.policy, record)
            present, owner = record.key, record.organization
            if (
                idempotency_key is not None
                and present.rotation_key == idempotency_key
                and present.successor is not None
            ):
                made = await ports.store.find_key(present.successor)
                if made is not None:
                    return None, RotatedKey(key=made.key, predecessor=present, token=None)
            successor = _successor(ports.policy, authority, record, successor_id, now, expires_in)
            if digest is None:  # after all refusals, because a hash may be slow; and only once
                digest = await ports.hash(token)
            revoked: dict[str, object] = (
                {} if grace else {"revoked_at": now, "revoked_reason": RevocationReason.SUPERSEDED}
            )
            before = changed(
                present,
                successor=successor_id,
                rotation_key=idempotency_key,
                grace_ends_at=ends if present.expires_at is None else min(ends, present.expires_at),
                **revoked,
            )
            witnesses: tuple[Key, ...] = ()
            if not force:
                witnesses = await keep_an_administrator(
                    ports, owner, [present], [before, successor], now
                )
            commit = Commit(
                entries=(
                    describe(Action.KEY_ROTATED, now, actor, present, before),
                    describe(Action.KEY_ISSUED, now, actor, None, successor),
                ),
                keys=(KeyRecord(key=successor, organization=owner, digest=digest),),
                changes=(Change(present, before),),
                unchanged=(owner,),
                witnesses=witnesses,
            )
            return commit, RotatedKey(key=successor, predecessor=before, token=token)

        return await settled(ports, actor, attempt)


def _successor(
    policy: Policy,
    authority: Authority,
    record: KeyRecord,
    successor_id: str,
    now: datetime,
    expires_in: timedelta | Unchanged | None,
) -> Key:
    """Return the successor of a key.

    Raises:
        InvalidValueError: The successor would never work.
        RefusedError: The key can't be rotated, or not by this actor.
    """
    present, owner = record.key, record.organization
    refuse_revoked(present)
    if present.successor is not None:
        raise RefusedError(
            f"key {present.id!r} has a successor already: {present.successor!r}; rotate that"
        )
    if present.status(now) is KeyStatus.EXPIRED:
        raise RefusedError(f"key {present.id!r} has expired; issue a new one")
    refuse_disabled(owner, "rotating keys")
    begins = present.not_before
    if begins is not None and begins <= now:
        begins = None
    span, latest = expires_in, None if isinstance(expires_in, timedelta) else LATEST
    if isinstance(span, Unchanged) and present.expires_at is not None:
        latest = present.expires_at
        span = present.expires_at - (present.not_before or present.created_at)
        span = min(span, owner.max_key_lifetime or span)
    if span is None or isinstance(span, Unchanged):
        span = owner.max_key_lifetime
    end = None if span is None else later(begins or now, span, latest)
    successor = Key(
        id=successor_id,
        family=present.family,
        organization=present.organization,
        name=present.name,
        scopes=present.scopes,
        created_at=now,
        not_before=begins,
        expires_at=authority.end(end) if isinstance(expires_in, Unchanged) else end,
        metadata=present.metadata,
        limits=present.limits,
        allowed_networks=present.allowed_networks,
        owner=present.owner,
    )
    check_end(successor, owner, now)
    check_new_key(policy, authority, owner, successor)
    return successor
