"""Makes the key of an approved request, with its token, in one commit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime

from keyguard.core.keys.audit import Action, Actor, describe
from keyguard.core.keys.commit import Change, Commit, changed
from keyguard.core.keys.records import Key, KeyRecord, Organization, RevocationReason
from keyguard.core.keys.requests import KeyRequest, KeyTerms, RequestStatus
from keyguard.core.keys.results import IssuedKey
from keyguard.core.management.administrators import keep_an_administrator
from keyguard.core.management.authority import ANYBODY, Authority, check_new_key
from keyguard.core.management.common import (
    Operations,
    check_end,
    draw_id,
    find_record,
    later,
    refuse_disabled,
    refuse_revoked,
    settled,
)
from keyguard.core.management.request_parties import (
    author_of,
    check_approvers,
    own_request,
    prove_requester,
    refuse_unless,
)
from keyguard.core.management.room_for_keys import make_room
from keyguard.core.tokens.format import ENTROPY_SIZE
from keyguard.core.tokens.secret import Secret
from keyguard.core.values import LATEST
from keyguard.exceptions import RefusedError


class Claims(Operations):
    """How the keys of approved requests are made."""

    async def claim(
        self, request_id: str, *, ticket: Secret | str | None = None, actor: Actor = None
    ) -> IssuedKey:
        """Make the key of an approved request. Of several concurrent calls, only one succeeds.

        See :meth:`~keyguard.guard.requests.Requests.claim`.
        """
        ports = self._ports
        proving = prove_requester(ports, request_id, ticket, actor)
        del ticket  # a traceback that passes here must not show it
        await proving
        family = draw_id(ports, "fam")

        async def prepare(
            request: KeyRequest, owner: Organization, key_id: str, now: datetime
        ) -> tuple[Key, Commit]:
            await check_approvers(ports, request, now)
            key = prospect(request, request.granted or request.asked, owner, now)
            room = await make_room(ports, owner, [family], now)
            return replace(key, id=key_id, family=family), Commit(entries=(), changes=room)

        return await self._make(
            request_id, Action.REQUEST_CLAIMED, actor, RequestStatus.APPROVED, prepare
        )

    async def reclaim(
        self, request_id: str, *, ticket: Secret | str | None = None, actor: Actor = None
    ) -> IssuedKey:
        """Replace a claimed key that nobody has used.

        See :meth:`~keyguard.guard.requests.Requests.reclaim`.
        """
        ports = self._ports
        proving = prove_requester(ports, request_id, ticket, actor)
        del ticket  # a traceback that passes here must not show it
        await proving

        async def prepare(
            request: KeyRequest, owner: Organization, key_id: str, now: datetime
        ) -> tuple[Key, Commit]:
            await check_approvers(ports, request, now)
            if now >= later(request.claim_by or now, ports.request_terms.claimable_for, LATEST):
                raise RefusedError(
                    f"request {request.id!r} was approved too long ago; rotate the key, or ask for "
                    "another"
                )
            present = (await find_record(ports, request.key or "")).key
            refuse_revoked(present)
            if (present.last_used_at, present.successor) != (None, None):
                raise RefusedError(
                    f"key {present.id!r} was used or rotated already; rotate it, or ask for another"
                )
            if present.owner != request.requester:
                raise RefusedError(f"key {present.id!r} has another owner by now")
            key = replace(present, id=key_id, created_at=now, version=1)
            before = changed(
                present,
                successor=key_id,
                grace_ends_at=now,
                revoked_at=now,
                revoked_reason=RevocationReason.SUPERSEDED,
            )
            return key, Commit(
                entries=(
                    describe(Action.KEY_REVOKED, now, author_of(actor, request), present, before),
                ),
                changes=(Change(present, before),),
                witnesses=await keep_an_administrator(ports, owner, [present], [before, key], now),
            )

        return await self._make(
            request_id, Action.REQUEST_RECLAIMED, actor, RequestStatus.CLAIMED, prepare
        )

    async def _make(
        self,
        request_id: str,
        action: Action,
        actor: Actor,
        of: RequestStatus,
        prepare: Callable[[KeyRequest, Organization, str, datetime], Awaitable[tuple[Key, Commit]]],
    ) -> IssuedKey:
        """Make the key of a request that has a status, with its token, in one commit.

        Args:
            request_id: The request.
            action: The action in the audit trail.
            actor: Who has proven to be the requester, or None with a ticket.
            of: The status that the request must have.
            prepare: Given the request, its organization, the key's id and the time, returns the
                key, and other parts of the commit.
        """
        ports = self._ports
        now = ports.now()
        key_id, token = ports.policy.tokens.draw(ports.draw_entropy(ENTROPY_SIZE))
        digest: str | None = None

        async def attempt(authority: Authority) -> tuple[Commit | None, tuple[KeyRequest, Key]]:
            # The approvers and the organization bound the key, not the requester.
            nonlocal digest
            request, owner = await own_request(ports, request_id, actor, authority)
            refuse_unless(request, of, now)
            refuse_disabled(owner, "claiming keys")
            key, besides = await prepare(request, owner, key_id, now)
            check_new_key(ports.policy, ANYBODY, owner, key)
            check_end(key, owner, now)
            if digest is None:  # after all refusals, because a hash may be slow; and only once
                digest = await ports.hash(token)
            after = changed(request, state=RequestStatus.CLAIMED, claimed_at=now, key=key_id)
            author = author_of(actor, request)
            commit = replace(
                besides,
                entries=(
                    describe(action, now, author, request, after),
                    *besides.entries,
                    describe(Action.KEY_ISSUED, now, author, None, key),
                ),
                keys=(KeyRecord(key=key, organization=owner, digest=digest),),
                changes=(Change(request, after), *besides.changes),
                unchanged=(owner,),
            )
            return commit, (after, key)

        request, key = await settled(ports, actor, attempt)
        ports.tell_request(action, request)
        return IssuedKey(key=key, token=token)


def prospect(request: KeyRequest, terms: KeyTerms, owner: Organization, start: datetime) -> Key:
    """Return the key that a claim would make, under the id of the request.

    Args:
        request: The request.
        terms: What the key may do.
        owner: The organization.
        start: When it would be claimed.
    """
    number = request.id.removeprefix("req_")
    span = terms.expires_in or owner.max_key_lifetime
    return Key(
        id=number,
        family=f"fam_{number}",
        organization=owner.id,
        name=request.name,
        scopes=terms.scopes,
        created_at=start,
        expires_at=None if span is None else later(start, span, LATEST),
        limits=terms.limits,
        allowed_networks=terms.allowed_networks,
        owner=request.requester,
    )
