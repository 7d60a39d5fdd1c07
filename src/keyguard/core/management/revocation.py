"""How keys are revoked, for good."""

from __future__ import annotations

from keyguard.core.access.decisions import Deny
from keyguard.core.keys.audit import Action, Actor, describe
from keyguard.core.keys.commit import Change, Commit, changed
from keyguard.core.keys.records import Key, KeyFilter, RevocationReason
from keyguard.core.keys.values import FAMILY_ID, check_text
from keyguard.core.management.administrators import refuse_to_lose_the_last
from keyguard.core.management.common import (
    Authority,
    Operations,
    all_keys,
    check_actor,
    find_record,
    settled,
    unknown,
)
from keyguard.core.management.ports import ManagementPorts
from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import InvalidValueError, NotFoundError


class Revocation(Operations):
    """How keys are revoked, for good."""

    async def revoke(
        self,
        key_id: str,
        *,
        reason: RevocationReason | str = RevocationReason.UNSPECIFIED,
        note: str | None = None,
        force: bool = False,
        actor: Actor = None,
    ) -> Key:
        """Revoke a key for good. Its successor, if it has one, goes on working.

        See :meth:`~keyguard.guard.keys.Keys.revoke`.
        """
        ports = self._ports
        check_actor(actor)
        why = _why(reason, note)

        async def attempt(authority: Authority) -> tuple[Commit | None, Key]:
            record = await find_record(ports, key_id, authority)
            if record.key.revoked_at is not None:
                return None, record.key
            now = ports.now()
            after = changed(record.key, revoked_at=now, **why)
            guarded = await refuse_to_lose_the_last(ports, record, after, now, force=force)
            entry = describe(Action.KEY_REVOKED, now, actor, record.key, after)
            return Commit(entries=(entry,), changes=(Change(record.key, after), *guarded)), after

        return await settled(ports, actor, attempt)

    async def revoke_family(
        self,
        family: str,
        *,
        reason: RevocationReason | str = RevocationReason.UNSPECIFIED,
        note: str | None = None,
        force: bool = False,
        actor: Actor = None,
    ) -> tuple[Key, ...]:
        """Revoke all keys that descend from one another by rotation, together.

        See :meth:`~keyguard.guard.keys.Keys.revoke_family`.
        """
        ports = self._ports
        check_actor(actor)
        why = _why(reason, note)
        if not isinstance(family, str) or not FAMILY_ID.match(family):
            raise InvalidValueError("a family is fam_ and 16 characters, as a key's record has it")

        async def attempt(authority: Authority) -> tuple[Commit | None, tuple[Key, ...]]:
            keys = await all_keys(ports, KeyFilter(family=family))
            if not all(authority.reaches(key.organization) for key in keys) or not keys:
                raise unknown("family", family)
            alive = [key for key in keys if key.revoked_at is None]
            if not alive:
                return None, tuple(keys)
            now = ports.now()
            after = {key.id: changed(key, revoked_at=now, **why) for key in alive}
            guarded: dict[str, Change] = {}
            for key in alive:
                record = await ports.store.find_key(key.id)
                if record is None or record.key.version != key.version:
                    continue  # it changed, so the commit will fail
                lost = await refuse_to_lose_the_last(
                    ports, record, after[key.id], now, force=force, besides=list(after)
                )
                guarded |= {change.id: change for change in lost}
            commit = Commit(
                entries=tuple(
                    describe(Action.KEY_REVOKED, now, actor, key, after[key.id]) for key in alive
                ),
                changes=(*(Change(key, after[key.id]) for key in alive), *guarded.values()),
            )
            return commit, tuple(after.get(key.id, key) for key in keys)

        return await settled(ports, actor, attempt)

    async def revoke_token(self, token: Secret | str, *, note: str | None = None) -> Key:
        """Revoke the key of a token that was found where it should not be.

        See :meth:`~keyguard.guard.keys.Keys.revoke_token`.
        """
        secret = token if isinstance(token, Secret) else Secret(str(token))
        del token
        reason = RevocationReason.KEY_COMPROMISE
        _why(reason, note)
        ports = self._ports
        for key_id in ports.policy.candidates(secret):
            record = await ports.store.find_key(key_id)
            genuine = await ports.verify(secret, record.digest if record else None)
            if record is not None and genuine is True:
                return await self.revoke(
                    key_id, reason=reason, note=note, force=True, actor=f"key:{key_id}"
                )
        raise NotFoundError("that token belongs to no key")


async def revoke_exposed(ports: ManagementPorts, refusal: Deny) -> bool:
    """Revoke a live key that came over plain HTTP; return whether it is revoked now.

    A failure does not raise: the request is refused in any case, and its event tells the outcome.
    """
    if refusal.key_id is None:
        return False
    reason, note = RevocationReason.KEY_COMPROMISE, "it came over plain HTTP"
    try:
        await Revocation(ports).revoke(refusal.key_id, reason=reason, note=note, force=True)
    except Exception:  # noqa: BLE001 - see above
        return False
    return True


def _why(reason: RevocationReason | str, note: str | None) -> dict[str, object]:
    """Return the fields of a revoked key that say why."""
    if note is not None:
        check_text("a revocation's note", note)
    return {"revoked_reason": RevocationReason.of(reason), "revoked_note": note}
