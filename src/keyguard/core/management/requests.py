"""Requests for keys: they are made, approved and claimed.

Before the claim, the only secret is the ticket, which is shown once to the caller who asks. A claim
needs the ticket or the requester. An approver has neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from keyguard.core.identity.networks import parse_networks
from keyguard.core.keys.audit import Action, Actor, describe
from keyguard.core.keys.commit import Change, Commit, changed
from keyguard.core.keys.requests import (
    OPEN,
    KeyRequest,
    KeyTerms,
    RequestFilter,
    RequestRecord,
    RequestStatus,
)
from keyguard.core.keys.results import CreatedRequest
from keyguard.core.limits.limit import Limits, read_limits
from keyguard.core.management.authority import ANYBODY, ASKERS, Authority, check_new_key
from keyguard.core.management.common import (
    check_actor,
    check_end,
    find_organization,
    granted_scopes,
    later,
    listed_organization,
    page_size,
    refuse_disabled,
    settled,
    unknown,
)
from keyguard.core.management.request_claims import Claims, prospect
from keyguard.core.management.request_decisions import Decisions, lasting
from keyguard.core.management.request_parties import (
    TICKETS,
    FoundKeys,
    author_of,
    found_request,
    has_asked,
    holder_of,
    own_request,
    party_of,
    prove_requester,
    refuse_unless,
    requester_of,
)
from keyguard.core.management.request_turns import TURN, count_request, end_turns, take_turn
from keyguard.core.texts import check_text
from keyguard.core.tokens.format import ENTROPY_SIZE
from keyguard.core.tokens.secret import Secret
from keyguard.core.values import LATEST, Page, member_of
from keyguard.exceptions import (
    CorruptDataError,
    InvalidValueError,
    NotFoundError,
    RefusedError,
    StoreUnavailableError,
)

_LONGEST_REASON = 1000


class AsyncRequests(Decisions, Claims):
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
        number, ticket = TICKETS.draw(ports.draw_entropy(ENTROPY_SIZE))
        now = ports.now()
        digest: str | None = None
        turns: set[str] = set()

        async def attempt(authority: Authority) -> tuple[Commit | None, KeyRequest]:
            nonlocal digest
            requester = holder_of(authority, party)
            owner = await find_organization(ports, organization, authority, ASKERS)
            refuse_disabled(owner, "asking for keys")
            request = KeyRequest(
                id=f"req_{number}",
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
            # A rule for its holder does not approve a key's request: the key may do less than its
            # holder.
            rule = settled_terms.rule_for(policy, replace(request, requester=party), owner)
            if rule is not None:
                approver = f"rule:{rule.name}"
                approved = replace(
                    request,
                    state=RequestStatus.APPROVED,
                    granted=lasting(asked, owner),
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
            await end_turns(self._ports, turns, now)  # after another error, the commit may happen
            raise
        await end_turns(self._ports, turns, now)
        ports.tell_request(Action.REQUEST_CREATED, request)
        if request.decided_by:
            ports.tell_request(Action.REQUEST_APPROVED, request)
        return CreatedRequest(request=request, ticket=ticket)

    async def get(
        self, request_id: str, *, organization: str | None = None, asked_by: Actor = None
    ) -> KeyRequest:
        """Return a request. See :meth:`~keyguard.guard.requests.Requests.get`."""
        check_actor(asked_by)
        request, owner = await found_request(self._ports, request_id)
        if organization not in (None, owner.id, owner.slug):
            raise unknown("request", request_id)
        if asked_by is not None and not await has_asked(self._ports, asked_by, request):
            raise unknown("request", request_id)
        return request

    async def list(
        self,
        *,
        organization: str | None = None,
        requester: str | None = None,
        asked_by: Actor = None,
        statuses: Iterable[RequestStatus | str] = (),
        after: str | None = None,
        limit: int = 100,
    ) -> Page[KeyRequest]:
        """Return one page of requests, oldest first.

        See :meth:`~keyguard.guard.requests.Requests.list`.
        """
        ports = self._ports
        size = page_size(limit)
        check_actor(asked_by)
        if asked_by is not None and requester is None:
            requester = await requester_of(ports, asked_by)
        if organization is not None:
            organization = await listed_organization(ports, organization)
        wanted = RequestFilter(
            at=ports.now(),
            organization=organization,
            requester=None if requester is None else check_text("a requester", requester),
            statuses=frozenset(
                member_of(RequestStatus, name, "status of a request") for name in statuses
            ),
        )
        page = await ports.store.list_requests(wanted, after=after, limit=size)
        if asked_by is None:
            return page
        own, damaged, keys = list[KeyRequest](), [*page.damaged], FoundKeys(ports)
        for request in page:
            try:
                if await has_asked(ports, asked_by, request, keys):
                    own.append(request)
            except CorruptDataError:  # the key that asked can't be read
                damaged.append(request.id)
        return replace(page, items=tuple(own), damaged=tuple(damaged))

    async def withdraw(
        self, request_id: str, *, ticket: Secret | str | None = None, actor: Actor = None
    ) -> KeyRequest:
        """Withdraw the actor's own request, which is pending or approved.

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
