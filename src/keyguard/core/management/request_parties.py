"""The parts in a request for a key: who asked, who decided, and who may claim."""

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
        RefusedError: The actor is a person or a key that may not decide on requests.
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
    """Return a request and its organization for a caller who has proven to be the requester.

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
    """Return parties, and the holders of the keys in the families among them."""
    found = {*parties}
    for party in filter(FAMILY_ID.match, parties):
        keys = await all_keys(ports, KeyFilter(family=party))
        found |= {key.owner for key in keys if key.owner is not None}
    return found


async def deciders(ports: ManagementPorts, request: KeyRequest) -> set[str]:
    """Return who has decided on a request, and the present holders of the keys that approved it."""
    approved = await _keys_that(ports, Action.REQUEST_APPROVED, request)
    families = {record.key.family for _, record in approved if record is not None}
    return await people_of(ports, *request.decided_by, *families)


def holder_of(authority: Authority, party: str) -> str:
    """Return the actor as a party: the person who holds the acting key, or the party itself."""
    owner = None if authority.record is None else authority.record.key.owner
    return party if owner is None else owner


async def check_approvers(ports: ManagementPorts, request: KeyRequest, now: datetime) -> None:
    """Refuse a claim if a key approved the request, and no key of its family may approve it now.

    Raises:
        RefusedError: No such key may approve now. The message names the key that approved.
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
                f"key {key_id!r} approved request {request.id!r}, but it no longer works, or may "
                "no longer approve requests; ask for the key again"
            )


class FoundKeys:
    """Keys by their ids, each asked of the store once, for decisions on many requests."""

    def __init__(self, ports: ManagementPorts) -> None:
        self._store = ports.store
        self._found: dict[str, KeyRecord | None] = {}

    async def find(self, key_id: str) -> KeyRecord | None:
        """Return a key with its organization as they stood when it was first asked for."""
        if key_id not in self._found:
            self._found[key_id] = await self._store.find_key(key_id)
        return self._found[key_id]


async def families_that_asked(
    ports: ManagementPorts, request: KeyRequest, keys: FoundKeys | None = None
) -> set[str]:
    """Return the family of the key that made a request, even if it has another holder now.

    Args:
        ports: The ports of management.
        request: The request.
        keys: What was found already; by default each key is looked up.

    Raises:
        RefusedError: The key, or the entry of the audit trail that names it, is deleted.
    """
    families = set[str]()
    for key_id, record in await _keys_that(ports, Action.REQUEST_CREATED, request, keys):
        if record is None:
            raise RefusedError(
                f"key {key_id!r}, which made request {request.id!r}, is deleted, so nobody can "
                "tell whose request it is; ask for the key again"
            )
        families.add(record.key.family)
    return families


async def _keys_that(
    ports: ManagementPorts, action: Action, request: KeyRequest, keys: FoundKeys | None = None
) -> tuple[tuple[str, KeyRecord | None], ...]:
    """Return the ids and records of the keys that did an action on a request.

    Raises:
        RefusedError: The entries of the audit trail that name the actors are deleted.
    """
    store = ports.store
    trail = await store.list_audit(
        organization=None, subject=request.id, after=None, limit=LARGEST_PAGE
    )
    if not any(entry.action is Action.REQUEST_CREATED for entry in trail):
        raise RefusedError(
            f"the audit trail no longer tells who made request {request.id!r} and who approved "
            "it; ask for the key again"
        )
    actors = [entry.actor.partition(":") for entry in trail if entry.action is action]
    ids = [key_id for kind, _, key_id in actors if kind == "key"]
    found = FoundKeys(ports) if keys is None else keys
    return tuple([(key_id, await found.find(key_id)) for key_id in ids])


async def prove_requester(
    ports: ManagementPorts, request_id: str, ticket: Secret | str | None, actor: Actor
) -> None:
    """Refuse a caller who is not the requester and has no ticket.

    A key asks in its holder's name, and may claim what its family asked for. For another request of
    its holder it needs the ticket, because that request may grant more than the key has.

    Raises:
        NotFoundError: There is no such request, or the ticket belongs to another.
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
    """Return whether a ticket belongs to a request. If it names another one, no store is asked.

    Args:
        ports: The ports of management.
        request_id: The request's id, as the caller gives it.
        ticket: Its ticket, as the caller gives it.

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
    """Return the requester that an actor stands for. A key stands for the person who holds it."""
    record = await ports.store.find_key(actor.key_id) if isinstance(actor, Principal) else None
    owner = None if record is None else record.key.owner
    return party_of(actor) if owner is None else owner


async def has_asked(
    ports: ManagementPorts, actor: Actor, request: KeyRequest, keys: FoundKeys | None = None
) -> bool:
    """Return whether an actor is the requester, or a key that asked in its holder's name.

    Args:
        ports: The ports of management.
        actor: The actor.
        request: The request.
        keys: What was found already, for the requests of a page.
    """
    party = party_of(actor)
    if request.requester == party:
        return True
    # Nothing more is read for a request of another organization, so that the time shows nothing.
    if not isinstance(actor, Principal) or actor.organization != request.organization:
        return False
    keys = keys or FoundKeys(ports)
    own = await keys.find(actor.key_id)
    holds = own is not None and own.key.owner == request.requester
    try:
        return holds and party in await families_that_asked(ports, request, keys)
    except RefusedError:  # the actor is not known any longer, and the list must go on
        return False


def party_of(actor: Actor) -> str:
    """Return the party of an actor, for the rule that nobody plays two parts in a request.

    All keys of a family are one party, because a holder rotates one into the next.

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
    """Return the author for the audit trail."""
    return f"ticket:{request.id}" if actor is None else actor


def _is_known(authority: Authority, request: KeyRequest, owner: Organization) -> bool:
    """Return whether an actor may know of a request. A developer knows only its own requests."""
    person = authority.person
    if person is not None and authority.role_in(owner) is Role.DEVELOPER:
        return request.requester == person.id
    return authority.reaches(owner)


def refuse_unless(
    request: KeyRequest, wanted: RequestStatus | frozenset[RequestStatus], now: datetime
) -> None:
    """Refuse an operation if a request does not have the status that it needs.

    Raises:
        RefusedError: The request has another status. The message names it.
    """
    status = request.status(now)
    if status not in (wanted if isinstance(wanted, frozenset) else {wanted}):
        raise RefusedError(f"request {request.id!r} is {status}, so that can't be done")
