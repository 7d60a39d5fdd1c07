"""Who plays which part in a request for a key: who asked, who decided, who may claim."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from keyguard.core.identity.person import Person, Role
from keyguard.core.identity.principal import Principal
from keyguard.core.keys.audit import SERVICE, Action, Actor
from keyguard.core.keys.lists import KeyFilter
from keyguard.core.keys.records import Key, KeyRecord, Organization
from keyguard.core.keys.requests import KeyRequest, RequestStatus
from keyguard.core.management.authority import ANYBODY, Authority, decides
from keyguard.core.management.common import LARGEST_PAGE, all_keys, check_actor, check_id, unknown
from keyguard.core.management.ports import ManagementPorts
from keyguard.core.texts import check_text
from keyguard.core.tokens.format import TokenFormat
from keyguard.core.tokens.secret import Secret
from keyguard.core.values import FAMILY_ID, NO_PERSON, REQUEST_ID
from keyguard.exceptions import InvalidValueError, RefusedError, shown

TICKETS = TokenFormat("kgc")
"""The format of tickets. The public part of a ticket is that of its request's id."""


async def found_request(
    ports: ManagementPorts, request_id: str, authority: Authority = ANYBODY
) -> tuple[KeyRequest, Organization]:
    """Return a request and its organization, if the actor may see them.

    Raises:
        NotFoundError: There is no such request, or the actor may not see it.
        RefusedError: The actor is a person or a key that decides on no requests.
    """
    check_id("request", request_id, REQUEST_ID)
    store = ports.store
    record = await store.find_request(request_id)
    owner = None
    if record is not None:
        owner = await store.find_organization(record.request.organization)
    if record is None or owner is None or not _is_known(authority, record.request, owner):
        raise unknown("request", request_id)
    authority.check_decides(owner)
    return record.request, owner


async def own_request(
    ports: ManagementPorts, request_id: str, actor: Actor, authority: Authority
) -> tuple[KeyRequest, Organization]:
    """Return a request and its organization for who has proven to be the requester.

    Raises:
        NotFoundError: The actor is a person who no longer has a role in the organization.
        RefusedError: The actor has decided on the request.
    """
    request, owner = await found_request(ports, request_id)
    if authority.person is not None and not authority.reaches(owner):
        raise unknown("request", request_id)
    party = party_of(actor)
    if actor is not None and not (await people_of(ports, party)).isdisjoint(
        await deciders(ports, request)
    ):
        raise RefusedError(f"{party!r} has decided on request {request_id!r}, and can't claim it")
    return request, owner


async def people_of(ports: ManagementPorts, *parties: str) -> set[str]:
    """Return parties together with those who hold keys of the families among them."""
    found = {*parties}
    for party in filter(FAMILY_ID.match, parties):
        keys = await all_keys(ports, KeyFilter(family=party))
        found |= {key.owner for key in keys if key.owner is not None}
    return found


async def deciders(ports: ManagementPorts, request: KeyRequest) -> set[str]:
    """Return who has decided on a request, and who holds a key now that has approved it."""
    approved = await _keys_that(ports, Action.REQUEST_APPROVED, request)
    families = {record.key.family for _, record in approved if record is not None}
    return await people_of(ports, *request.decided_by, *families)


def holder_of(authority: Authority, party: str) -> str:
    """Return who acts: the person who holds the key that does, or the party itself."""
    owner = None if authority.record is None else authority.record.key.owner
    return party if owner is None else owner


async def check_approvers(ports: ManagementPorts, request: KeyRequest, now: datetime) -> None:
    """Refuse a claim of what a key has approved, if no key of its family may do so now.

    Raises:
        RefusedError: The message names the key.
    """
    policy = ports.policy
    for key_id, record in await _keys_that(ports, Action.REQUEST_APPROVED, request):
        alive: tuple[Key, ...] = ()
        if record is not None:
            family = KeyFilter(family=record.key.family, alive_at=now)
            alive = (await all_keys(ports, family)).items
        if record is None or not any(
            decides(policy.principal(replace(record, key=key)).grant) for key in alive
        ):
            raise RefusedError(
                f"key {key_id!r} has approved request {request.id!r} and no longer works or "
                "decides on requests; ask again"
            )


async def families_that_asked(ports: ManagementPorts, request: KeyRequest) -> set[str]:
    """Return the family of the key that made a request, also if it has another holder now.

    Raises:
        RefusedError: That key is deleted, or so are the entries of the audit trail that name it.
    """
    families = set[str]()
    for key_id, record in await _keys_that(ports, Action.REQUEST_CREATED, request):
        if record is None:
            raise RefusedError(
                f"key {key_id!r}, which asked for request {request.id!r}, is deleted, so nobody "
                "can tell whose request it is; ask again"
            )
        families.add(record.key.family)
    return families


async def _keys_that(
    ports: ManagementPorts, action: Action, request: KeyRequest
) -> tuple[tuple[str, KeyRecord | None], ...]:
    """Return the ids and records of the keys that did something to a request.

    Raises:
        RefusedError: The entries of the audit trail that tell who it was are deleted.
    """
    store = ports.store
    trail = await store.list_audit(
        organization=None, subject=request.id, after=None, limit=LARGEST_PAGE
    )
    if not any(entry.action is Action.REQUEST_CREATED for entry in trail):
        raise RefusedError(
            f"the audit trail no longer tells who asked for request {request.id!r} and who "
            "approved it; ask again"
        )
    actors = [entry.actor.partition(":") for entry in trail if entry.action is action]
    ids = [key_id for kind, _, key_id in actors if kind == "key"]
    return tuple([(key_id, await store.find_key(key_id)) for key_id in ids])


async def prove_requester(
    ports: ManagementPorts, request_id: str, ticket: Secret | str | None, actor: Actor
) -> None:
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
    if secret is not None:
        proven = await is_ticket_of(ports, request_id, secret)
    elif actor is None:
        raise InvalidValueError("give the ticket, or the requester as the actor")
    else:
        record = await ports.store.find_request(request_id)
        proven = record is not None and await has_asked(ports, actor, record.request)
    if not proven:
        raise unknown("request", request_id)


async def is_ticket_of(ports: ManagementPorts, request_id: str, ticket: Secret) -> bool:
    """Tell whether a ticket is a request's. One that names another request asks no store.

    Args:
        ports: The outside.
        request_id: What the caller says is the request's id.
        ticket: What the caller says is its ticket.

    Raises:
        StoreError: The key store failed.
    """
    parts = TICKETS.parse(ticket.reveal())
    named = parts is not None and f"req_{parts.key_id}" == request_id
    del parts  # a traceback that passes here must not show it
    if not named:
        return False
    record = await ports.store.find_request(request_id)
    return await ports.verify(ticket, None if record is None else record.digest) is True


async def requester_of(ports: ManagementPorts, actor: Actor) -> str:
    """Return as whom an actor asks: a key as the person who holds it."""
    record = await ports.store.find_key(actor.key_id) if isinstance(actor, Principal) else None
    owner = None if record is None else record.key.owner
    return party_of(actor) if owner is None else owner


async def has_asked(ports: ManagementPorts, actor: Actor, request: KeyRequest) -> bool:
    """Tell whether an actor is known as the requester, or as a key that asked as its holder."""
    party = party_of(actor)
    if request.requester == party:
        return True
    # Of another organization's request nothing more is read: the time tells nothing.
    if not isinstance(actor, Principal) or actor.organization != request.organization:
        return False
    own = await ports.store.find_key(actor.key_id)
    holds = own is not None and own.key.owner == request.requester
    try:
        return holds and party in await families_that_asked(ports, request)
    except RefusedError:  # nobody can tell any more, and a list has other requests besides
        return False


def party_of(actor: Actor) -> str:
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


def author_of(actor: Actor, request: KeyRequest) -> Actor:
    """Return who acts, for the audit trail."""
    return f"ticket:{request.id}" if actor is None else actor


def _is_known(authority: Authority, request: KeyRequest, owner: Organization) -> bool:
    """Tell whether an actor may know of a request; a developer knows own requests alone."""
    person = authority.person
    if person is not None and authority.role_in(owner) is Role.DEVELOPER:
        return request.requester == person.id
    return authority.reaches(owner)


def refuse_unless(
    request: KeyRequest, wanted: RequestStatus | frozenset[RequestStatus], now: datetime
) -> None:
    """Refuse what a request of another status does not admit.

    Raises:
        RefusedError: The message names the status.
    """
    status = request.status(now)
    if status not in (wanted if isinstance(wanted, frozenset) else {wanted}):
        raise RefusedError(f"request {request.id!r} is {status}, so that can't be done")
