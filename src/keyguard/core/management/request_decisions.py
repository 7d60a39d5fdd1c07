"""Approves, denies and rescinds requests for keys. The requester can't do this."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

from keyguard.core.identity.networks import parse_networks
from keyguard.core.keys.audit import Action, Actor, describe
from keyguard.core.keys.commit import Change, Commit, changed
from keyguard.core.keys.records import Organization
from keyguard.core.keys.requests import KeyRequest, KeyTerms, RequestStatus
from keyguard.core.limits.limit import Limits, read_limits
from keyguard.core.management.authority import Authority, check_new_key, gained
from keyguard.core.management.common import (
    Operations,
    check_actor,
    check_end,
    check_version,
    granted_scopes,
    later,
    refuse_disabled,
    settled,
)
from keyguard.core.management.request_claims import prospect
from keyguard.core.management.request_parties import (
    deciders,
    families_that_asked,
    found_request,
    holder_of,
    party_of,
    people_of,
    refuse_unless,
)
from keyguard.core.texts import check_text
from keyguard.core.values import LATEST, UNCHANGED, Unchanged
from keyguard.exceptions import RefusedError

Value = TypeVar("Value")


class Decisions(Operations):
    """Decides on requests for keys."""

    async def approve(
        self,
        request_id: str,
        *,
        scopes: Iterable[str] | Unchanged = UNCHANGED,
        expires_in: timedelta | Unchanged | None = UNCHANGED,
        limits: Limits | Unchanged = UNCHANGED,
        allowed_networks: Iterable[str] | Unchanged = UNCHANGED,
        note: str | None = None,
        version: int | None = None,
        actor: Actor = None,
    ) -> KeyRequest:
        """Approve a request or a part of it. Arguments that are left out grant what was asked for.

        See :meth:`~keyguard.guard.requests.Requests.approve`.
        """
        ports, settled_terms = self._ports, self._ports.request_terms
        policy, now = ports.policy, ports.now()
        if not isinstance(scopes, Unchanged):
            scopes = granted_scopes(policy, scopes)
        if not isinstance(limits, Unchanged):
            limits = read_limits(limits, "key", stored=True)
        if not isinstance(allowed_networks, Unchanged):
            allowed_networks = parse_networks(allowed_networks)
        claim_by = later(now, settled_terms.claimable_for, LATEST)

        def decide(
            authority: Authority,
            request: KeyRequest,
            owner: Organization,
            approver: str,
        ) -> KeyRequest:
            refuse_disabled(owner, "approving requests")
            most = lasting(request.granted or request.asked, owner)
            terms = KeyTerms(
                scopes=_given(scopes, most.scopes),
                expires_in=_given(expires_in, most.expires_in),
                limits=authority.limits(_given(limits, most.limits)),
                allowed_networks=authority.networks(
                    _given(allowed_networks, most.allowed_networks)
                ),
            )
            # The bounds are checked as if the key were claimed at the last moment.
            key = prospect(request, terms, owner, claim_by)
            more = gained(policy, owner, prospect(request, most, owner, claim_by), key)
            if more:
                raise RefusedError(
                    f"request {request_id!r} can be granted less than it asks for, never more: "
                    f"{', '.join(more)}"
                )
            check_new_key(policy, authority, owner, key)
            check_end(key, owner, now)
            terms = lasting(terms, owner)
            approvers = (*request.decided_by, approver)
            enough: dict[str, object] = {}
            if len(approvers) >= settled_terms.approvers(policy, terms.scopes):
                enough = {"state": RequestStatus.APPROVED, "decided_at": now, "claim_by": claim_by}
            return changed(
                request,
                granted=terms,
                decided_by=approvers,
                note=request.note if note is None else note,
                **enough,
            )

        return await self._decide(
            request_id, Action.REQUEST_APPROVED, actor, note, version, RequestStatus.PENDING, decide
        )

    async def deny(
        self,
        request_id: str,
        *,
        note: str | None = None,
        version: int | None = None,
        actor: Actor = None,
    ) -> KeyRequest:
        """Deny a request that is pending. See :meth:`~keyguard.guard.requests.Requests.deny`."""
        return await self._refuse(
            request_id, RequestStatus.DENIED, RequestStatus.PENDING, note, version, actor
        )

    async def rescind(
        self,
        request_id: str,
        *,
        note: str | None = None,
        version: int | None = None,
        actor: Actor = None,
    ) -> KeyRequest:
        """Take an approval back, before the key is claimed.

        See :meth:`~keyguard.guard.requests.Requests.rescind`.
        """
        return await self._refuse(
            request_id, RequestStatus.RESCINDED, RequestStatus.APPROVED, note, version, actor
        )

    async def _refuse(
        self,
        request_id: str,
        state: RequestStatus,
        of: RequestStatus,
        note: str | None,
        version: int | None,
        actor: Actor,
    ) -> KeyRequest:
        fields = {"state": state, "decided_at": self._ports.now(), "note": note}

        def decide(_: object, request: KeyRequest, __: object, approver: str) -> KeyRequest:
            return changed(request, decided_by=(*request.decided_by, approver), **fields)

        action = Action(f"request.{state}")
        return await self._decide(request_id, action, actor, note, version, of, decide)

    async def _decide(
        self,
        request_id: str,
        action: Action,
        actor: Actor,
        note: str | None,
        version: int | None,
        of: RequestStatus,
        decide: Callable[[Authority, KeyRequest, Organization, str], KeyRequest],
    ) -> KeyRequest:
        """Decide on a request that has a given status. The requester is refused."""
        ports = self._ports
        check_actor(actor)
        party, now = party_of(actor), ports.now()
        if note is not None:
            check_text("a note", note)

        async def attempt(authority: Authority) -> tuple[Commit | None, KeyRequest]:
            request, owner = await found_request(self._ports, request_id, authority)
            check_version(request, version)
            parties = await people_of(self._ports, party)
            askers = {request.requester, *await families_that_asked(self._ports, request)}
            if not parties.isdisjoint(await people_of(self._ports, *askers)):
                raise RefusedError("nobody may decide on their own request; withdraw it instead")
            refuse_unless(request, of, now)
            if action is Action.REQUEST_APPROVED and not parties.isdisjoint(
                await deciders(self._ports, request)
            ):
                raise RefusedError(
                    f"{party!r} has approved request {request_id!r} already; another approver is "
                    "needed"
                )
            after = decide(authority, request, owner, holder_of(authority, party))
            entry = describe(action, now, actor, request, after)
            # A change of the organization must not delay a refusal.
            read = (owner,) if action is Action.REQUEST_APPROVED else ()
            changes = (Change(request, after),)
            return Commit(entries=(entry,), changes=changes, unchanged=read), after

        request = await settled(ports, actor, attempt)
        if request.state is not RequestStatus.PENDING:
            ports.tell_request(action, request)
        return request


def lasting(terms: KeyTerms, owner: Organization) -> KeyTerms:
    """Return terms whose lifetime stays the same if the organization allows a longer one later."""
    return replace(terms, expires_in=terms.expires_in or owner.max_key_lifetime)


def _given(value: Value | Unchanged, present: Value) -> Value:
    return present if isinstance(value, Unchanged) else value
