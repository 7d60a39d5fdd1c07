"""How keys are asked for, approved and claimed.

No secret exists before the claim but the ticket, which its holder was shown when asking. A claim
takes the ticket, or the requester. Nobody who approves has either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

from keyguard.core.identity.networks import parse_networks
from keyguard.core.keys.audit import Action, Actor, describe
from keyguard.core.keys.commit import Change, Commit, changed
from keyguard.core.keys.records import Organization
from keyguard.core.keys.requests import (
    OPEN,
    KeyRequest,
    KeyTerms,
    RequestFilter,
    RequestRecord,
    RequestStatus,
)
from keyguard.core.keys.results import CreatedRequest, IssuedKey
from keyguard.core.keys.texts import check_text
from keyguard.core.keys.values import LATEST, UNCHANGED, Page, Unchanged
from keyguard.core.limits.limit import Limits, read_limits
from keyguard.core.management import request_claims
from keyguard.core.management.authority import ANYBODY, ASKERS, Authority, check_new_key, gained
from keyguard.core.management.common import (
    Operations,
    check_actor,
    check_end,
    check_version,
    find_organization,
    granted_scopes,
    later,
    listed_organization,
    page_size,
    refuse_disabled,
    settled,
    unknown,
)
from keyguard.core.management.request_claims import prospect
from keyguard.core.management.request_parties import (
    TICKETS,
    author_of,
    deciders,
    families_that_asked,
    found_request,
    holder_of,
    own_request,
    party_of,
    people_of,
    prove_requester,
    refuse_unless,
)
from keyguard.core.management.request_turns import TURN, count_request, end_turns, take_turn
from keyguard.core.tokens.format import ENTROPY_SIZE, TokenParts
from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import (
    InvalidValueError,
    NotFoundError,
    RefusedError,
    StoreUnavailableError,
    shown,
)

Value = TypeVar("Value")

_LONGEST_REASON = 1000


class AsyncRequests(Operations):
    """The requests for keys of one guard, for async code."""

    async def create(
        self,
        *,
        organization: str,
        name: str,
        scopes: Iterable[str] = (),
        expires_in: timedelta | None = None,
        limits: Limits = (),
        allowed_networks: Iterable[str] = (),
        reason: str | None = None,
        actor: Actor,
    ) -> CreatedRequest:
        """Ask for a key. See :meth:`~keyguard.guard.requests.Requests.create`."""
        ports = self._ports
        policy, settled_terms = ports.policy, ports.request_terms
        check_actor(actor)
        if actor is None:
            raise InvalidValueError("say who asks: pass a name, a person or a principal as actor")
        party = party_of(actor)
        asked = KeyTerms(
            scopes=granted_scopes(policy, scopes),
            expires_in=expires_in,
            limits=read_limits(limits, "key", stored=True),
            allowed_networks=parse_networks(allowed_networks),
        )
        settled_terms.check_may_ask(actor)
        name = check_text("a key's name", name)
        if reason is not None:
            reason = check_text("a reason", reason, _LONGEST_REASON)
        parts = TokenParts.draw(ports.draw_entropy(ENTROPY_SIZE))
        ticket = TICKETS.mint(parts)
        request_id = f"req_{parts.key_id}"
        del parts
        now = ports.now()
        digest: str | None = None
        turns: set[str] = set()

        async def attempt(authority: Authority) -> tuple[Commit | None, KeyRequest]:
            nonlocal digest
            requester = holder_of(authority, party)
            owner = await find_organization(ports, organization, authority, ASKERS)
            refuse_disabled(owner, "asking for keys")
            request = KeyRequest(
                id=request_id,
                organization=owner.id,
                requester=requester,
                name=name,
                asked=asked,
                created_at=now,
                pending_until=later(now, settled_terms.pending_for, LATEST),
                reason=reason,
            )
            key = prospect(request, asked, owner, now)
            check_new_key(policy, ANYBODY, owner, key)
            check_end(key, owner, now)
            await take_turn(self._ports, turns, owner, requester, now)
            entries = [describe(Action.REQUEST_CREATED, now, actor, None, request)]
            # A key is not let in by a rule for its holder: it may do less.
            rule = settled_terms.rule_for(policy, replace(request, requester=party), owner)
            if rule is not None:
                approver = f"rule:{rule.name}"
                approved = replace(
                    request,
                    state=RequestStatus.APPROVED,
                    granted=_lasting(asked, owner),
                    decided_by=(approver,),
                    decided_at=now,
                    claim_by=later(now, settled_terms.claimable_for, LATEST),
                )
                entries.append(describe(Action.REQUEST_APPROVED, now, approver, request, approved))
                request = approved
            if digest is None:  # after all refusals, because a hash may be slow; and only once
                await count_request(self._ports, owner, requester, now)
                digest = await ports.hash(ticket)
            if ports.now() >= now + TURN:  # so that the commit ends within the turn
                raise StoreUnavailableError("asking took too long; try again")
            commit = Commit(
                entries=tuple(entries),
                requests=(RequestRecord(request=request, digest=digest),),
                unchanged=(owner,),
            )
            return commit, request

        try:
            request = await settled(ports, actor, attempt)
        except (InvalidValueError, NotFoundError, RefusedError):
            await end_turns(self._ports, turns, now)  # after another failure, the commit may go on
            raise
        await end_turns(self._ports, turns, now)
        ports.tell_request(Action.REQUEST_CREATED, request)
        if request.decided_by:
            ports.tell_request(Action.REQUEST_APPROVED, request)
        return CreatedRequest(request=request, ticket=ticket)

    async def get(self, request_id: str, *, organization: str | None = None) -> KeyRequest:
        """Return a request. See :meth:`~keyguard.guard.requests.Requests.get`."""
        request, owner = await found_request(self._ports, request_id)
        if organization not in (None, owner.id, owner.slug):
            raise unknown("request", request_id)
        return request

    async def list(
        self,
        *,
        organization: str | None = None,
        requester: str | None = None,
        statuses: Iterable[RequestStatus | str] = (),
        after: str | None = None,
        limit: int = 100,
    ) -> Page[KeyRequest]:
        """Return one page of requests, oldest first.

        See :meth:`~keyguard.guard.requests.Requests.list`.
        """
        ports = self._ports
        size = page_size(limit)
        if organization is not None:
            organization = await listed_organization(ports, organization)
        wanted = RequestFilter(
            at=ports.now(),
            organization=organization,
            requester=None if requester is None else check_text("a requester", requester),
            statuses=frozenset(map(_status, statuses)),
        )
        return await ports.store.list_requests(wanted, after=after, limit=size)

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
        """Approve a request, or a part of it. What is not given is granted as it was asked for.

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
            most = _lasting(request.granted or request.asked, owner)
            terms = KeyTerms(
                scopes=_given(scopes, most.scopes),
                expires_in=_given(expires_in, most.expires_in),
                limits=authority.limits(_given(limits, most.limits)),
                allowed_networks=authority.networks(
                    _given(allowed_networks, most.allowed_networks)
                ),
            )
            # The key is bounded as if it were claimed at the last moment.
            key = prospect(request, terms, owner, claim_by)
            more = gained(policy, owner, prospect(request, most, owner, claim_by), key)
            if more:
                raise RefusedError(
                    f"request {request_id!r} can be granted less than it asks for, never more: "
                    f"{', '.join(more)}"
                )
            check_new_key(policy, authority, owner, key)
            check_end(key, owner, now)
            terms = _lasting(terms, owner)
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
        """Take an approval back before the key is claimed.

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
        """Have somebody other than the requester decide on a request that has a status."""
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
                raise RefusedError("nobody decides on an own request; withdraw it instead")
            refuse_unless(request, of, now)
            if action is Action.REQUEST_APPROVED and not parties.isdisjoint(
                await deciders(self._ports, request)
            ):
                raise RefusedError(
                    f"{party!r} has approved request {request_id!r} already; it takes another"
                )
            after = decide(authority, request, owner, holder_of(authority, party))
            entry = describe(action, now, actor, request, after)
            # Nobody puts a refusal off by changing the organization.
            read = (owner,) if action is Action.REQUEST_APPROVED else ()
            changes = (Change(request, after),)
            return Commit(entries=(entry,), changes=changes, unchanged=read), after

        request = await settled(ports, actor, attempt)
        if request.state is not RequestStatus.PENDING:
            ports.tell_request(action, request)
        return request

    async def withdraw(
        self, request_id: str, *, ticket: Secret | str | None = None, actor: Actor = None
    ) -> KeyRequest:
        """Withdraw an own request that is pending or approved.

        See :meth:`~keyguard.guard.requests.Requests.withdraw`.
        """
        proving = prove_requester(self._ports, request_id, ticket, actor)
        del ticket  # a traceback that passes here must not show it
        await proving
        now = self._ports.now()

        async def attempt(authority: Authority) -> tuple[Commit | None, KeyRequest]:
            request, _ = await own_request(self._ports, request_id, actor, authority)
            refuse_unless(request, OPEN, now)
            after = changed(request, state=RequestStatus.WITHDRAWN, decided_at=now)
            entry = describe(
                Action.REQUEST_WITHDRAWN, now, author_of(actor, request), request, after
            )
            return Commit(entries=(entry,), changes=(Change(request, after),)), after

        return await settled(self._ports, actor, attempt)

    async def claim(
        self, request_id: str, *, ticket: Secret | str | None = None, actor: Actor = None
    ) -> IssuedKey:
        """Make the key of a request that is approved. Of several calls, one makes it.

        See :meth:`~keyguard.guard.requests.Requests.claim`.
        """
        claiming = request_claims.claim(self._ports, request_id, ticket=ticket, actor=actor)
        del ticket  # a traceback that passes here must not show it
        return await claiming

    async def reclaim(
        self, request_id: str, *, ticket: Secret | str | None = None, actor: Actor = None
    ) -> IssuedKey:
        """Replace a claimed key that nobody has used.

        See :meth:`~keyguard.guard.requests.Requests.reclaim`.
        """
        reclaiming = request_claims.reclaim(self._ports, request_id, ticket=ticket, actor=actor)
        del ticket  # a traceback that passes here must not show it
        return await reclaiming


def _lasting(terms: KeyTerms, owner: Organization) -> KeyTerms:
    """Return terms that grant no longer a life if the organization allows a longer one later."""
    return replace(terms, expires_in=terms.expires_in or owner.max_key_lifetime)


def _given(value: Value | Unchanged, present: Value) -> Value:
    return present if isinstance(value, Unchanged) else value


def _status(name: object) -> RequestStatus:
    try:
        return RequestStatus(str(name))
    except ValueError:
        known = ", ".join(RequestStatus)
        raise InvalidValueError(
            f"{shown(name)} is no status of a request; there are: {known}"
        ) from None
