"""Issues, reads and changes keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from keyguard.core.identity.networks import parse_networks
from keyguard.core.keys.audit import Action, Actor, describe
from keyguard.core.keys.commit import Change, Commit, changed
from keyguard.core.keys.lists import KeyFilter
from keyguard.core.keys.records import Key, KeyRecord, Organization
from keyguard.core.keys.results import IssuedKey
from keyguard.core.limits.charges import LimitStatus, statuses
from keyguard.core.limits.limit import Limits, read_limits
from keyguard.core.management.administrators import keep_an_administrator
from keyguard.core.management.authority import (
    Authority,
    authority_of,
    check_changed_key,
    check_new_key,
)
from keyguard.core.management.checking import Checking
from keyguard.core.management.common import (
    LARGEST_PAGE,
    check_actor,
    check_end,
    check_version,
    draw_id,
    earlier,
    find_organization,
    find_record,
    granted_scopes,
    later,
    listed_organization,
    page_size,
    refuse_disabled,
    refuse_revoked,
    settled,
    unknown,
)
from keyguard.core.management.deletion import Deletion
from keyguard.core.management.importing import Import
from keyguard.core.management.revocation import Revocation
from keyguard.core.management.room_for_keys import is_live, make_room
from keyguard.core.management.rotation import Rotation
from keyguard.core.texts import check_metadata, check_text
from keyguard.core.tokens.format import ENTROPY_SIZE
from keyguard.core.values import LATEST, UNCHANGED, Page, Unchanged, in_utc
from keyguard.exceptions import InvalidValueError, RefusedError


class AsyncKeys(Rotation, Revocation, Deletion, Import, Checking):
    """The keys of one guard, for async code."""

    async def issue(
        self,
        *,
        organization: str,
        name: str,
        scopes: Iterable[str] = (),
        expires_in: timedelta | None = None,
        expires_at: datetime | None = None,
        not_before: datetime | None = None,
        metadata: Mapping[str, str] | None = None,
        limits: Limits = (),
        allowed_networks: Iterable[str] = (),
        owner: str | None = None,
        actor: Actor = None,
    ) -> IssuedKey:
        """Issue a key. See :meth:`~keyguard.guard.keys.Keys.issue`."""
        ports = self._ports
        policy = ports.policy
        check_actor(actor)
        name = check_text("a key's name", name)
        notes = check_metadata(metadata or {})
        holder = None if owner is None else check_text("a key's owner", owner)
        granted = granted_scopes(policy, scopes)
        own_limits = read_limits(limits, "key", stored=True)
        networks = parse_networks(allowed_networks)
        if expires_in is not None and expires_at is not None:
            raise InvalidValueError("give expires_in or expires_at, not both")
        key_id, token = policy.tokens.draw(ports.draw_entropy(ENTROPY_SIZE))
        family = draw_id(ports, "fam")
        now = ports.now()

        async def made(authority: Authority) -> tuple[Key, Organization]:
            tenant = await find_organization(ports, organization, authority)
            refuse_disabled(tenant, "issuing keys")
            start = now if not_before is None else in_utc("not_before", not_before)
            end = expires_at if expires_in is None else later(start, expires_in)
            if end is None:
                longest = tenant.max_key_lifetime
                end = authority.end(None if longest is None else later(start, longest, LATEST))
            key = Key(
                id=key_id,
                family=family,
                organization=tenant.id,
                name=name,
                scopes=granted,
                created_at=now,
                not_before=not_before,
                expires_at=end,
                metadata=notes,
                limits=authority.limits(own_limits),
                allowed_networks=authority.networks(networks),
                owner=holder,
            )
            check_new_key(policy, authority, tenant, key)
            check_end(key, tenant, now)
            return key, tenant

        await made(await authority_of(ports, actor))  # refuses before the hash, which may be slow
        digest = await ports.hash(token)

        async def attempt(authority: Authority) -> tuple[Commit | None, Key]:
            key, tenant = await made(authority)
            entry = describe(Action.KEY_ISSUED, now, actor, None, key)
            record = KeyRecord(key=key, organization=tenant, digest=digest)
            room = await make_room(ports, tenant, [key.family], now)
            commit = Commit(entries=(entry,), keys=(record,), changes=room, unchanged=(tenant,))
            return commit, key

        return IssuedKey(key=await settled(ports, actor, attempt), token=token)

    async def get(self, key_id: str, *, organization: str | None = None) -> Key:
        """Return a key. See :meth:`~keyguard.guard.keys.Keys.get`."""
        record = await find_record(self._ports, key_id)
        if organization not in (None, record.organization.id, record.organization.slug):
            raise unknown("key", key_id)
        return record.key

    async def limits(self, key_id: str) -> tuple[LimitStatus, ...]:
        """Return the state of a key's limits: its own, its organization's and the defaults.

        See :meth:`~keyguard.guard.keys.Keys.limits`.
        """
        ports = self._ports
        record = await find_record(ports, key_id)
        charges = ports.policy.allow(record).limits.charges
        if not charges:
            return ()
        return statuses(charges, (await ports.read_limits(charges)).tallies)

    async def list(
        self,
        *,
        organization: str | None = None,
        family: str | None = None,
        owner: str | None = None,
        search: str | None = None,
        expiring_within: timedelta | None = None,
        unused_for: timedelta | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Key]:
        """Return one page of keys, oldest first. See :meth:`~keyguard.guard.keys.Keys.list`."""
        ports = self._ports
        size = page_size(limit)
        if organization is not None:
            organization = await listed_organization(ports, organization)
        now = ports.now()
        report = expiring_within is not None or unused_for is not None
        wanted = KeyFilter(
            organization=organization,
            family=family,
            owner=None if owner is None else check_text("a key's owner", owner),
            search=None if search is None else check_text("a search", search),
            ends_before=None if expiring_within is None else later(now, expiring_within),
            unused_since=None if unused_for is None else earlier(now, unused_for),
            alive_at=now if report else None,
        )
        return await ports.store.list_keys(wanted, after=after, limit=size)

    async def update(
        self,
        key_id: str,
        *,
        name: str | Unchanged = UNCHANGED,
        scopes: Iterable[str] | Unchanged = UNCHANGED,
        not_before: datetime | Unchanged | None = UNCHANGED,
        expires_at: datetime | Unchanged | None = UNCHANGED,
        metadata: Mapping[str, str] | Unchanged = UNCHANGED,
        limits: Limits | Unchanged = UNCHANGED,
        allowed_networks: Iterable[str] | Unchanged = UNCHANGED,
        owner: str | Unchanged | None = UNCHANGED,
        version: int | None = None,
        force: bool = False,
        actor: Actor = None,
    ) -> Key:
        """Change a key that is not revoked. Arguments that are left out change nothing.

        See :meth:`~keyguard.guard.keys.Keys.update`.
        """
        ports = self._ports
        check_actor(actor)
        policy = ports.policy
        wanted: dict[str, object] = {
            "not_before": not_before,
            "expires_at": expires_at,
            "owner": owner,
        }
        if isinstance(owner, str):
            wanted["owner"] = check_text("a key's owner", owner)
        if not isinstance(name, Unchanged):
            wanted["name"] = check_text("a key's name", name)
        if not isinstance(metadata, Unchanged):
            wanted["metadata"] = check_metadata(metadata)
        if not isinstance(scopes, Unchanged):
            wanted["scopes"] = granted_scopes(policy, scopes)
        if not isinstance(limits, Unchanged):
            wanted["limits"] = read_limits(limits, "key", stored=True)
        if not isinstance(allowed_networks, Unchanged):
            wanted["allowed_networks"] = parse_networks(allowed_networks)
        fields = {column: value for column, value in wanted.items() if value is not UNCHANGED}

        async def attempt(authority: Authority) -> tuple[Commit | None, Key]:
            record = await find_record(ports, key_id, authority)
            present, tenant = record.key, record.organization
            check_version(present, version)
            refuse_revoked(present)
            after = changed(present, **fields)
            check_changed_key(policy, authority, tenant, present, after)
            now = ports.now()
            if not_before is not UNCHANGED or expires_at is not UNCHANGED:
                check_end(after, tenant, None)
                _check_start(present, after, tenant, now)
            change = Change(present, after)
            if len(change.columns()) == 1:  # the version alone
                return None, present
            witnesses: tuple[Key, ...] = ()
            if not force:
                witnesses = await keep_an_administrator(ports, tenant, [present], [after], now)
            entry = describe(Action.KEY_UPDATED, now, actor, present, after)
            revived = is_live(after, now) and not is_live(present, now)
            families = [after.family] if revived else []
            changes = (change, *await make_room(ports, tenant, families, now))
            return Commit(entries=(entry,), changes=changes, witnesses=witnesses), after

        return await settled(ports, actor, attempt)

    async def digests(self) -> Mapping[str, int]:
        """Count the keys that are not revoked by the scheme and pepper of their digests.

        See :meth:`~keyguard.guard.keys.Keys.digests`.
        """
        found: Counter[str] = Counter()
        after: str | None = None
        while True:
            page = await self._ports.store.list_digests(after=after, limit=LARGEST_PAGE)
            found.update(self._ports.scheme_of(key.digest) for key in page.items)
            if page.next is None:
                return dict(found)
            after = page.next


def _check_start(present: Key, after: Key, owner: Organization, now: datetime) -> None:
    """Refuse to move a key's start if its organization bounds the lifetime.

    Raises:
        RefusedError: The key works already, and its lifetime would begin again.
    """
    if owner.max_key_lifetime is None or after.not_before is None:
        return
    start = present.created_at if present.not_before is None else present.not_before
    if start <= now and start < after.not_before:
        raise RefusedError(
            f"key {present.id!r} works already, and keys of organization {owner.slug!r} work for "
            f"at most {owner.max_key_lifetime}: it can't be made to begin later"
        )
