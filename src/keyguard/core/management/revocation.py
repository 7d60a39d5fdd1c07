"""Revokes keys, for good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from keyguard.core.access.decisions import Deny
from keyguard.core.keys.audit import Action, Actor, actor_name
from keyguard.core.keys.commit import Ending
from keyguard.core.keys.lists import KeyFilter
from keyguard.core.keys.records import Key, RevocationReason
from keyguard.core.keys.results import DamagedKey
from keyguard.core.management.administrators import (
    administering_scopes,
    keep_an_administrator,
)
from keyguard.core.management.authority import HOLDERS, Authority
from keyguard.core.management.common import (
    Operations,
    all_keys,
    check_actor,
    check_id,
    ended,
    find_organization,
    find_record,
    unknown,
)
from keyguard.core.management.ports import ManagementPorts
from keyguard.core.texts import check_text
from keyguard.core.tokens.format import KEY_ID
from keyguard.core.tokens.secret import Secret
from keyguard.core.values import FAMILY_ID, Page
from keyguard.exceptions import (
    CorruptDataError,
    InvalidValueError,
    NotDurableError,
    NotFoundError,
)


class Revocation(Operations):
    """Revokes keys, for good."""

    async def revoke(
        self,
        key_id: str,
        *,
        reason: RevocationReason | str = RevocationReason.UNSPECIFIED,
        note: str | None = None,
        force: bool = False,
        actor: Actor = None,
    ) -> Key | DamagedKey:
        """Revoke a key for good. Its successor, if it has one, goes on working.

        See :meth:`~keyguard.guard.keys.Keys.revoke`.
        """
        ports = self._ports
        check_actor(actor)
        check_id("key", key_id, KEY_ID)
        now = ports.now()
        ending = _ending(key_id, now, reason, note, actor)

        async def attempt(authority: Authority) -> Ending:
            if force and authority.person is None:
                return ending
            try:
                record = await find_record(ports, key_id, authority, HOLDERS)
            except CorruptDataError:
                if authority.person is not None:  # the record does not show whose key it is
                    raise unknown("key", key_id) from None
                return ending  # a key that can't be read does not work, so it is no administrator
            present = record.key
            if force or present.revoked_at is not None:
                return ending  # changes nothing, but the store may have to make it durable
            witnesses = await keep_an_administrator(ports, record.organization, [present], [], now)
            return _decided(ports, ending, [present], witnesses)

        authority, ids = await ended(ports, actor, attempt)
        try:
            return (await find_record(ports, key_id, authority, HOLDERS)).key
        except CorruptDataError:
            if authority.is_bounded and key_id not in ids:
                # The damaged record does not show whether the key belongs to the actor's
                # organization.
                raise unknown("key", key_id) from None
            return DamagedKey(id=key_id, revoked_at=now if key_id in ids else None)

    async def revoke_family(
        self,
        family: str,
        *,
        reason: RevocationReason | str = RevocationReason.UNSPECIFIED,
        note: str | None = None,
        force: bool = False,
        actor: Actor = None,
    ) -> tuple[Key | DamagedKey, ...]:
        """Revoke all keys that descend from one another by rotation, together.

        See :meth:`~keyguard.guard.keys.Keys.revoke_family`.
        """
        ports = self._ports
        check_actor(actor)
        if not isinstance(family, str) or not FAMILY_ID.match(family):
            raise InvalidValueError("a family is fam_ and 16 characters, as a key's record has it")
        now = ports.now()
        ending = _ending(family, now, reason, note, actor)

        async def attempt(authority: Authority) -> Ending:
            if force and authority.person is None:
                return ending
            page = await self._family(family, authority)
            alive = [key for key in page if not key.revoked_at]
            if force or not alive:
                return ending  # likewise: a store may have to make the end durable
            try:
                owner = await find_organization(ports, alive[0].organization)
            except CorruptDataError:
                return ending  # none of its keys works
            witnesses = await keep_an_administrator(ports, owner, alive, [], now, family=family)
            if page.damaged:  # whose scopes say nothing of what they may do
                return replace(ending, witnesses=witnesses)
            return _decided(ports, ending, alive, witnesses)

        authority, ids = await ended(ports, actor, attempt)
        page = await self._family(family, authority)
        damaged = [
            DamagedKey(id=key_id, revoked_at=now if key_id in ids else None)
            for key_id in page.damaged
            # The records do not show whose keys these are, so an actor gets only those that it
            # could end.
            if not authority.is_bounded or key_id in ids
        ]
        if not page.items and not damaged:
            raise unknown("family", family)
        return (*page, *damaged)

    async def _family(self, family: str, authority: Authority) -> Page[Key]:
        own = None if authority.record is None else authority.record.organization.id
        page = await all_keys(self._ports, KeyFilter(organization=own, family=family))
        try:
            for key in page if authority.person is not None else ():
                await find_record(self._ports, key.id, authority, HOLDERS)
        except (NotFoundError, CorruptDataError):
            raise unknown("family", family) from None
        if not page.items and (authority.person is not None or not page.damaged):
            raise unknown("family", family)
        return page

    async def revoke_token(
        self, token: Secret | str, *, note: str | None = None
    ) -> Key | DamagedKey:
        """Revoke the key of a token that was found where it should not be.

        See :meth:`~keyguard.guard.keys.Keys.revoke_token`.
        """
        secret = token if isinstance(token, Secret) else Secret(str(token))
        del token
        reason = RevocationReason.KEY_COMPROMISE
        ports = self._ports
        _ending("", ports.now(), reason, note, None)  # refuses the note before a slow hash
        damaged: tuple[str, CorruptDataError] | None = None
        candidates = ports.policy.candidates(secret)
        if not candidates:
            raise NotFoundError(
                f"this is not a token of this service: a token is {ports.policy.tokens.prefix}_ "
                "and 66 characters, and this one has a wrong prefix, length or checksum"
            )
        for key_id in candidates:
            try:
                record = await ports.store.find_key(key_id)
            except CorruptDataError as problem:
                damaged = key_id, problem  # an id alone does not prove possession of the token
                continue
            genuine = await ports.verify(secret, record.digest if record else None)
            if record is not None and genuine is True:
                return await self.revoke(
                    key_id, reason=reason, note=note, force=True, actor=f"key:{key_id}"
                )
        if damaged is not None:
            key_id, failure = damaged
            raise CorruptDataError(
                f"{failure}; requests with the key are refused, but its token can't be verified: "
                f"revoke the key by its id, {key_id}"
            ) from failure
        raise NotFoundError("that token belongs to no key")


async def revoke_exposed(ports: ManagementPorts, refusal: Deny) -> bool:
    """Revoke a live key that came over plain HTTP; return whether it is revoked now.

    A failure does not raise: the request is refused in any case, and its event reports the outcome.
    """
    if refusal.key_id is None:
        return False
    reason, note = RevocationReason.KEY_COMPROMISE, "it came over plain HTTP"
    try:
        await Revocation(ports).revoke(refusal.key_id, reason=reason, note=note, force=True)
    except NotDurableError:
        return True
    except Exception:  # noqa: BLE001 - see above
        return False
    return True


def _decided(
    ports: ManagementPorts, ending: Ending, read: Sequence[Key], witnesses: tuple[Key, ...]
) -> Ending:
    """Return an ending that holds only while its organization keeps an administrator.

    Args:
        ports: The outside.
        ending: The ending without conditions.
        read: The keys that end, as they were read.
        witnesses: The administrators that remain; needed if one of the keys administers.
    """
    without = administering_scopes(ports.policy)
    if witnesses or any(without & key.scopes for key in read):
        return replace(ending, witnesses=witnesses)
    return replace(ending, without=without)


def _ending(
    subject: str, now: datetime, reason: RevocationReason | str, note: str | None, actor: Actor
) -> Ending:
    """Return the ending that revokes a key or a family."""
    fields: dict[str, object] = {"revoked_at": now, "revoked_reason": RevocationReason.of(reason)}
    if note is not None:
        fields["revoked_note"] = check_text("a revocation's note", note)
    return Ending(
        subject=subject,
        action=Action.KEY_REVOKED,
        at=now,
        actor=actor_name(actor),
        fields=fields,
    )
