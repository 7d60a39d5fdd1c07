"""How keys are asked for, approved and claimed.

No secret exists before the claim but the ticket, which its holder was shown when asking. A claim
takes the ticket, or the requester. Nobody who approves has either.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import TypeVar

from keyguard.core.identity.networks import parse_networks
from keyguard.core.identity.person import Person, Role
from keyguard.core.identity.principal import Principal
from keyguard.core.keys.audit import SERVICE, Action, Actor, describe
from keyguard.core.keys.commit import Change, Commit, changed
from keyguard.core.keys.records import Key, KeyFilter, KeyRecord, Organization, RevocationReason
from keyguard.core.keys.requests import (
    OPEN,
    KeyRequest,
    KeyTerms,
    RequestFilter,
    RequestRecord,
    RequestStatus,
)
from keyguard.core.keys.results import CreatedRequest, IssuedKey
from keyguard.core.keys.temporary import Temporary
from keyguard.core.keys.texts import check_text
from keyguard.core.keys.values import (
    FAMILY_ID,
    LATEST,
    NO_PERSON,
    REQUEST_ID,
    UNCHANGED,
    Page,
    Unchanged,
)
from keyguard.core.limits.limit import Limits, read_limits
from keyguard.core.management.administrators import keep_an_administrator
from keyguard.core.management.authority import (
    ANYBODY,
    ASKERS,
    Authority,
    check_new_key,
    decides,
    gained,
)
from keyguard.core.management.common import (
    LARGEST_PAGE,
    Operations,
    all_keys,
    check_actor,
    check_end,
    check_id,
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
from keyguard.core.management.room_for_keys import make_room
from keyguard.core.tokens.format import ENTROPY_SIZE, TokenFormat, TokenParts, base62
from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import (
    InvalidValueError,
    NotFoundError,
    RefusedError,
    StoreError,
    StoreUnavailableError,
    shown,
)

Value = TypeVar("Value")

TICKETS = TokenFormat("kgc")
"""The format of tickets. The public part of a ticket is that of its request's id."""

MOST_OPEN = 5
"""How many open requests a requester may have in an organization."""

MOST_A_DAY = 20
"""How many requests a requester may make in an organization within a day."""

_ASKING, _ASKED = "asking", "asked"
_DAY = timedelta(days=1)
_TURN = timedelta(seconds=10)
"""How long a requester's turn is, without the calls that write the request and end the turn."""

_LONGEST_REASON = 1000
_FAMILY_ENTROPY = 16


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
        party = _party(actor)
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
            key = None if authority.record is None else authority.record.key
            requester = party if key is None or key.owner is None else key.owner
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
            key = _prospect(request, asked, owner, now)
            check_new_key(policy, ANYBODY, owner, key)
            check_end(key, owner, now)
            await self._take_turn(turns, owner, requester, now)
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
                await self._count(owner, requester, now)
                digest = await ports.hash(ticket)
            if ports.now() >= now + _TURN:  # so that the commit ends within the turn
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
            await self._end_turns(turns, now)  # after another failure, the commit may go on
            raise
        await self._end_turns(turns, now)
        ports.tell_request(Action.REQUEST_CREATED, request)
        if request.decided_by:
            ports.tell_request(Action.REQUEST_APPROVED, request)
        return CreatedRequest(request=request, ticket=ticket)

    async def _take_turn(
        self, turns: set[str], owner: Organization, requester: str, now: datetime
    ) -> None:
        """Let a requester make one request at a time, and refuse one who has too many open.

        Args:
            turns: The digests of the turns that were taken before; gets this one.
            owner: The organization.
            requester: Who asks.
            now: The time.

        Raises:
            RefusedError: Another request of the requester is being made, or too many are open.
        """
        store = self._ports.store
        turn = _digest(owner, requester)
        if turn not in turns:
            end = later(now, _TURN + 2 * self._ports.longest_call, LATEST)
            if not await store.put_temporary(Temporary(_ASKING, turn, "", end), now):
                raise RefusedError(f"another request of {requester!r} is being made; try again")
            turns.add(turn)
        wanted = RequestFilter(at=now, organization=owner.id, requester=requester, statuses=OPEN)
        page = await store.list_requests(wanted, after=None, limit=MOST_OPEN)
        if len(page.items) + len(page.damaged) >= MOST_OPEN:
            raise RefusedError(
                f"{requester!r} has {MOST_OPEN} open requests in organization {owner.slug!r} "
                "already; claim or withdraw one first"
            )

    async def _count(self, owner: Organization, requester: str, now: datetime) -> None:
        """Count a request of a requester, whose turn it is, and refuse too many within a day.

        Raises:
            RefusedError: The requester has made too many.
        """
        store, digest = self._ports.store, _digest(owner, requester)
        kept = await store.find_temporary(_ASKED, digest, now)
        ends = [] if kept is None else kept.value.split()  # when each no longer counts
        counted = [end for end in ends if end > now.isoformat()]
        if len(counted) >= MOST_A_DAY:
            raise RefusedError(
                f"{requester!r} has made {MOST_A_DAY} requests in organization {owner.slug!r} "
                "within a day; ask again later"
            )
        end = later(now, _DAY, LATEST)
        asked = Temporary(_ASKED, digest, " ".join([*counted, end.isoformat()]), end)
        if not await store.replace_temporary(asked, now):
            await store.put_temporary(asked, now)

    async def _end_turns(self, turns: set[str], now: datetime) -> None:
        """End turns that were taken. One that can't be ended expires."""
        with suppress(StoreError):
            for turn in turns:
                await self._ports.store.take_temporary(_ASKING, turn, now)

    async def get(self, request_id: str, *, organization: str | None = None) -> KeyRequest:
        """Return a request. See :meth:`~keyguard.guard.requests.Requests.get`."""
        request, owner = await self._found(request_id)
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
            key = _prospect(request, terms, owner, claim_by)
            more = gained(policy, owner, _prospect(request, most, owner, claim_by), key)
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
            request_id, Action.REQUEST_APPROVED, actor, note, RequestStatus.PENDING, decide
        )

    async def deny(
        self, request_id: str, *, note: str | None = None, actor: Actor = None
    ) -> KeyRequest:
        """Deny a request that is pending. See :meth:`~keyguard.guard.requests.Requests.deny`."""
        return await self._refuse(
            request_id, RequestStatus.DENIED, RequestStatus.PENDING, note, actor
        )

    async def rescind(
        self, request_id: str, *, note: str | None = None, actor: Actor = None
    ) -> KeyRequest:
        """Take an approval back before the key is claimed.

        See :meth:`~keyguard.guard.requests.Requests.rescind`.
        """
        return await self._refuse(
            request_id, RequestStatus.RESCINDED, RequestStatus.APPROVED, note, actor
        )

    async def _refuse(
        self,
        request_id: str,
        state: RequestStatus,
        of: RequestStatus,
        note: str | None,
        actor: Actor,
    ) -> KeyRequest:
        fields = {"state": state, "decided_at": self._ports.now(), "note": note}

        def decide(_: object, request: KeyRequest, __: object, approver: str) -> KeyRequest:
            return changed(request, decided_by=(*request.decided_by, approver), **fields)

        return await self._decide(request_id, Action(f"request.{state}"), actor, note, of, decide)

    async def _decide(
        self,
        request_id: str,
        action: Action,
        actor: Actor,
        note: str | None,
        of: RequestStatus,
        decide: Callable[[Authority, KeyRequest, Organization, str], KeyRequest],
    ) -> KeyRequest:
        """Have somebody other than the requester decide on a request that has a status."""
        ports = self._ports
        check_actor(actor)
        party, now = _party(actor), ports.now()
        if note is not None:
            check_text("a note", note)

        async def attempt(authority: Authority) -> tuple[Commit | None, KeyRequest]:
            request, owner = await self._found(request_id, authority)
            parties = await self._people_of(party)
            askers = {request.requester, *await self._families_that_asked(request)}
            if not parties.isdisjoint(await self._people_of(*askers)):
                raise RefusedError("nobody decides on an own request; withdraw it instead")
            _refuse_unless(request, of, now)
            if action is Action.REQUEST_APPROVED and not parties.isdisjoint(
                await self._people_of(*request.decided_by)
            ):
                raise RefusedError(
                    f"{party!r} has approved request {request_id!r} already; it takes another"
                )
            after = decide(authority, request, owner, party)
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
        proving = self._prove(request_id, ticket, actor)
        del ticket  # a traceback that passes here must not show it
        await proving
        now = self._ports.now()

        async def attempt(authority: Authority) -> tuple[Commit | None, KeyRequest]:
            request, _ = await self._own(request_id, actor, authority)
            _refuse_unless(request, OPEN, now)
            after = changed(request, state=RequestStatus.WITHDRAWN, decided_at=now)
            entry = describe(Action.REQUEST_WITHDRAWN, now, _author(actor, request), request, after)
            return Commit(entries=(entry,), changes=(Change(request, after),)), after

        return await settled(self._ports, actor, attempt)

    async def claim(
        self, request_id: str, *, ticket: Secret | str | None = None, actor: Actor = None
    ) -> IssuedKey:
        """Make the key of a request that is approved. Of several calls, one makes it.

        See :meth:`~keyguard.guard.requests.Requests.claim`.
        """
        proving = self._prove(request_id, ticket, actor)
        del ticket  # a traceback that passes here must not show it
        ports = self._ports
        await proving
        family = f"fam_{base62(ports.draw_entropy(_FAMILY_ENTROPY), 16)}"

        async def prepare(
            request: KeyRequest, owner: Organization, key_id: str, now: datetime
        ) -> tuple[Key, Commit]:
            await self._check_approvers(request, now)
            key = _prospect(request, request.granted or request.asked, owner, now)
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
        proving = self._prove(request_id, ticket, actor)
        del ticket  # a traceback that passes here must not show it
        ports = self._ports
        await proving

        async def prepare(
            request: KeyRequest, owner: Organization, key_id: str, now: datetime
        ) -> tuple[Key, Commit]:
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
                    describe(Action.KEY_REVOKED, now, _author(actor, request), present, before),
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
            action: What the audit trail calls it.
            actor: Who has proven to be the requester, or None with a ticket.
            of: The status.
            prepare: Given the request, its organization, the key's id and the time, returns the
                key, and what the commit takes besides.
        """
        ports, now = self._ports, self._ports.now()
        parts = TokenParts.draw(ports.draw_entropy(ENTROPY_SIZE))
        token, key_id = ports.policy.tokens.mint(parts), parts.key_id
        del parts
        digest: str | None = None

        async def attempt(authority: Authority) -> tuple[Commit | None, tuple[KeyRequest, Key]]:
            # The bounds are those of the approvers and of the organization, not the requester's.
            nonlocal digest
            request, owner = await self._own(request_id, actor, authority)
            _refuse_unless(request, of, now)
            refuse_disabled(owner, "claiming keys")
            key, besides = await prepare(request, owner, key_id, now)
            check_new_key(ports.policy, ANYBODY, owner, key)
            check_end(key, owner, now)
            if digest is None:  # after all refusals, because a hash may be slow; and only once
                digest = await ports.hash(token)
            after = changed(request, state=RequestStatus.CLAIMED, claimed_at=now, key=key_id)
            author = _author(actor, request)
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

    async def _found(
        self, request_id: str, authority: Authority = ANYBODY
    ) -> tuple[KeyRequest, Organization]:
        """Return a request and its organization, if the actor may see them.

        Raises:
            NotFoundError: There is no such request, or the actor may not see it.
            RefusedError: The actor is a person or a key that decides on no requests.
        """
        check_id("request", request_id, REQUEST_ID)
        store = self._ports.store
        record = await store.find_request(request_id)
        owner = None
        if record is not None:
            owner = await store.find_organization(record.request.organization)
        if record is None or owner is None or not _is_known(authority, record.request, owner):
            raise unknown("request", request_id)
        authority.check_decides(owner)
        return record.request, owner

    async def _own(
        self, request_id: str, actor: Actor, authority: Authority
    ) -> tuple[KeyRequest, Organization]:
        """Return a request and its organization for who has proven to be the requester.

        Raises:
            NotFoundError: The actor is a person who no longer has a role in the organization.
            RefusedError: The actor has decided on the request.
        """
        request, owner = await self._found(request_id)
        if authority.person is not None and not authority.reaches(owner):
            raise unknown("request", request_id)
        party = _party(actor)
        if actor is not None and not (await self._people_of(party)).isdisjoint(
            await self._people_of(*request.decided_by)
        ):
            raise RefusedError(
                f"{party!r} has decided on request {request_id!r}, and can't claim it"
            )
        return request, owner

    async def _people_of(self, *parties: str) -> set[str]:
        """Return parties together with those who hold keys of the families among them."""
        found = {*parties}
        for party in filter(FAMILY_ID.match, parties):
            keys = await all_keys(self._ports, KeyFilter(family=party))
            found |= {key.owner for key in keys if key.owner is not None}
        return found

    async def _check_approvers(self, request: KeyRequest, now: datetime) -> None:
        """Refuse a claim of what a key has approved, if no key of its family may do so now.

        Raises:
            RefusedError: The message names the key.
        """
        policy = self._ports.policy
        for key_id, record in await self._keys_that(Action.REQUEST_APPROVED, request):
            alive: tuple[Key, ...] = ()
            if record is not None:
                family = KeyFilter(family=record.key.family, alive_at=now)
                alive = (await all_keys(self._ports, family)).items
            if record is None or not any(
                decides(policy.principal(replace(record, key=key)).grant) for key in alive
            ):
                raise RefusedError(
                    f"key {key_id!r} has approved request {request.id!r} and no longer works or "
                    "decides on requests; ask again"
                )

    async def _families_that_asked(self, request: KeyRequest) -> set[str]:
        """Return the family of the key that made a request, also if it has another holder now."""
        made = await self._keys_that(Action.REQUEST_CREATED, request)
        return {record.key.family for _, record in made if record is not None}

    async def _keys_that(
        self, action: Action, request: KeyRequest
    ) -> tuple[tuple[str, KeyRecord | None], ...]:
        """Return the ids and records of the keys that did something to a request."""
        store = self._ports.store
        trail = await store.list_audit(
            organization=None, subject=request.id, after=None, limit=LARGEST_PAGE
        )
        actors = [entry.actor.partition(":") for entry in trail if entry.action is action]
        ids = [key_id for kind, _, key_id in actors if kind == "key"]
        return tuple([(key_id, await store.find_key(key_id)) for key_id in ids])

    async def _prove(self, request_id: str, ticket: Secret | str | None, actor: Actor) -> None:
        """Refuse who is not the requester and has no ticket.

        A key asks as its holder, and claims what its family asked for. For another request of its
        holder it needs the ticket: it may do less than its holder is granted.

        Raises:
            NotFoundError: There is no such request, or the ticket is not its.
        """
        secret = Secret(ticket) if isinstance(ticket, str) else ticket
        del ticket  # a traceback that passes here must not show it
        check_id("request", request_id, REQUEST_ID)
        check_actor(actor)
        record = await self._ports.store.find_request(request_id)
        if secret is None and actor is None:
            raise InvalidValueError("give the ticket, or the requester as the actor")
        if secret is None:
            proven = record is not None and await self._has_asked(actor, record.request)
        else:
            parts = TICKETS.parse(secret.reveal())
            named = parts is not None and f"req_{parts.key_id}" == request_id
            del parts
            digest = None if record is None else record.digest
            proven = named and (await self._ports.verify(secret, digest)) is True
        if record is None or not proven:
            raise unknown("request", request_id)

    async def _has_asked(self, actor: Actor, request: KeyRequest) -> bool:
        """Tell whether an actor is the requester, or a key that asked as its holder."""
        party = _party(actor)
        if not isinstance(actor, Principal) or request.requester == party:
            return request.requester == party
        own = await self._ports.store.find_key(actor.key_id)
        holds = own is not None and own.key.owner == request.requester
        return holds and party in await self._families_that_asked(request)


def _digest(owner: Organization, requester: str) -> str:
    """Return under what the temporary values of a requester in an organization are kept."""
    return sha256(f"{owner.id}:{requester}".encode()).hexdigest()


def _party(actor: Actor) -> str:
    """Return who an actor is, for the rule that nobody plays two parts in a request.

    All keys of a family are one party, as the holder of one rotates it to the next.

    Raises:
        InvalidValueError: A name is spelled like a party of another kind.
    """
    if isinstance(actor, Principal):
        return actor.family
    if actor is None:
        return SERVICE
    name = actor.id if isinstance(actor, Person) else check_text("an actor", actor)
    if NO_PERSON.match(name):
        raise InvalidValueError(f"{shown(name)} can't name a person")
    return name


def _author(actor: Actor, request: KeyRequest) -> Actor:
    """Return who acts, for the audit trail."""
    return f"ticket:{request.id}" if actor is None else actor


def _lasting(terms: KeyTerms, owner: Organization) -> KeyTerms:
    """Return terms that grant no longer a life if the organization allows a longer one later."""
    return replace(terms, expires_in=terms.expires_in or owner.max_key_lifetime)


def _is_known(authority: Authority, request: KeyRequest, owner: Organization) -> bool:
    """Tell whether an actor may know of a request; a developer knows own requests alone."""
    person = authority.person
    if person is not None and authority.role_in(owner) is Role.DEVELOPER:
        return request.requester == person.id
    return authority.reaches(owner)


def _prospect(request: KeyRequest, terms: KeyTerms, owner: Organization, start: datetime) -> Key:
    """Return the key of a request, with an id that only the request has.

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


def _given(value: Value | Unchanged, present: Value) -> Value:
    return present if isinstance(value, Unchanged) else value


def _refuse_unless(
    request: KeyRequest, wanted: RequestStatus | frozenset[RequestStatus], now: datetime
) -> None:
    """Refuse what a request of another status does not admit.

    Raises:
        RefusedError: The message names the status.
    """
    status = request.status(now)
    if status not in (wanted if isinstance(wanted, frozenset) else {wanted}):
        raise RefusedError(f"request {request.id!r} is {status}, so that can't be done")


def _status(name: object) -> RequestStatus:
    try:
        return RequestStatus(str(name))
    except ValueError:
        known = ", ".join(RequestStatus)
        raise InvalidValueError(
            f"{shown(name)} is no status of a request; there are: {known}"
        ) from None
