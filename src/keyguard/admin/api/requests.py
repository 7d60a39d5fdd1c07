"""Requests for keys over HTTP: asked, decided, claimed once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from keyguard.admin.api.forms import (
    AFTER,
    EXPIRES_IN,
    EXPIRES_IN_OR_NONE,
    LIMIT,
    LIMITS,
    NAME,
    NETWORKS,
    NOTE,
    SCOPES,
)
from keyguard.admin.api.keys import known_key_answer, new_key_answer
from keyguard.admin.api.repeats import once
from keyguard.admin.api.shown import page_answer, record_answer
from keyguard.admin.context import Context, unknown
from keyguard.admin.endpoints import Table
from keyguard.admin.exchange import Answer, Problem
from keyguard.admin.members import Form, text
from keyguard.admin.rights import Right, rights_of
from keyguard.admin.step_up import claims_admin, grants_admin
from keyguard.core.access.decisions import AccessDenied
from keyguard.core.keys.requests import KeyRequest, RequestStatus
from keyguard.core.keys.results import IssuedKey
from keyguard.core.management.json_forms import JsonObject, request_json
from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import RefusedError

REASON = text("reason", "Why it is needed", longest=1000)
TICKET = text(
    "ticket", "The ticket that the requester was given; not needed if the requester makes the call"
)
STATUS = text("status", "Only requests that have this status now", enum=[*map(str, RequestStatus)])
REQUESTER = text("requester", "Only requests of that requester")

_GONE = (RequestStatus.CLAIMED, RequestStatus.LAPSED)

_TERMS = (SCOPES, LIMITS, NETWORKS)
_REQUEST = {200: "KeyRequest", 409: "Problem"}
ENDPOINTS = Table()


@ENDPOINTS.add(
    "GET",
    "/organizations/{organization}/requests",
    Right.READ_REQUESTS,
    own=True,
    query=Form(optional=(STATUS, REQUESTER, AFTER, LIMIT)),
    answers={200: "KeyRequests"},
)
async def list_requests(context: Context) -> Answer:
    """List requests for keys, oldest first."""
    organization, query = await context.organization(), context.query
    requester, asked_by = query.get(REQUESTER, None), None
    if not context.has(Right.READ_REQUESTS, organization):
        if requester not in (None, context.party):
            raise unknown()
        requester, asked_by = None, context.caller
    page = await context.management.requests.list(
        organization=organization.id,
        requester=requester,
        asked_by=asked_by,
        statuses=[query.need(STATUS)] if STATUS in query else [],
        after=query.get(AFTER, None),
        limit=query.get(LIMIT, 100),
    )
    now = context.now
    return page_answer(page, lambda request: request_json(request, now))


@ENDPOINTS.add(
    "POST",
    "/organizations/{organization}/requests",
    Right.ASK,
    form=Form(required=(NAME,), optional=(*_TERMS, EXPIRES_IN, REASON)),
    answers={200: "NewRequest", 201: "NewRequest", 409: "Problem"},
)
async def create_request(context: Context) -> Answer:
    """Ask for a key; the ticket is shown once."""
    organization = await context.organization()
    created = await context.management.requests.create(
        organization=organization.id,
        **context.form.given(),
        actor=context.caller,
    )
    request = created.request
    content: JsonObject = {
        "ticket": created.ticket.reveal(),
        "request": request_json(request, context.now),
    }
    status = 201 if request.state is RequestStatus.PENDING else 200  # a rule has approved it
    location = ("Location", context.url(f"/requests/{request.id}"))
    return record_answer(status, request.version, content, location)


@ENDPOINTS.add(
    "GET", "/requests/{request}", Right.READ_REQUESTS, own=True, answers={200: "KeyRequest"}
)
async def show_request(context: Context) -> Answer:
    """Return a request for a key."""
    return _shown(context, await context.request())


async def _decided_before(context: Context, request_id: str) -> Answer:
    return _decided(context, await context.management.requests.get(request_id))


async def _approves_admin(context: Context) -> bool:
    request = await context.request()
    return grants_admin(context, context.form.get(SCOPES, request.asked.scopes))


@ENDPOINTS.add(
    "POST",
    "/requests/{request}/approve",
    Right.DECIDE,
    reaches_far=_approves_admin,
    form=Form(optional=(*_TERMS, EXPIRES_IN_OR_NONE, NOTE)),
    repeats=True,
    answers={**_REQUEST, 202: "KeyRequest", 412: "Problem"},
)
async def approve_request(context: Context) -> Answer:
    """Approve a request, or a part of it."""
    request = await context.request()

    async def approve() -> tuple[str, Answer]:
        version = context.matched(request, needed=False)  # a repetition finds another one
        after = await context.management.requests.approve(
            request.id,
            **context.form.given(),
            version=version,
            actor=context.caller,
        )
        return after.id, _decided(context, after)

    return await once(context, approve, _decided_before)


@ENDPOINTS.add(
    "POST",
    "/requests/{request}/deny",
    Right.DECIDE,
    form=Form(optional=(NOTE,)),
    answers={**_REQUEST, 412: "Problem"},
)
async def deny_request(context: Context) -> Answer:
    """Deny a request."""
    return await _refused(context, context.management.requests.deny)


@ENDPOINTS.add(
    "POST",
    "/requests/{request}/rescind",
    Right.DECIDE,
    form=Form(optional=(NOTE,)),
    answers={**_REQUEST, 412: "Problem"},
)
async def rescind_request(context: Context) -> Answer:
    """Take an approval back before the key is claimed."""
    return await _refused(context, context.management.requests.rescind)


async def _refused(context: Context, refuse: Callable[..., Awaitable[KeyRequest]]) -> Answer:
    request = await context.request()
    refusal = refuse(
        request.id,
        **context.form.given(),
        version=context.matched(request, needed=False),
        actor=context.caller,
    )
    return _shown(context, await refusal)


@ENDPOINTS.add(
    "POST",
    "/requests/{request}/withdraw",
    anyone=True,
    form=Form(optional=(TICKET,)),
    answers=_REQUEST,
)
async def withdraw_request(context: Context) -> Answer:
    """Withdraw one's own request."""
    ticket = await _proof(context)
    withdrawal = context.management.requests.withdraw(
        context.parameters["request"], ticket=ticket, actor=context.known
    )
    return _shown(context, await withdrawal)


async def _claims_admin(context: Context) -> bool:
    """Return whether a person or a session claims a key with ``admin``."""
    await _check_claimant(context, await _proof(context))
    request, _ = await context.owned_request()
    return await claims_admin(context, request)


@ENDPOINTS.add(
    "POST",
    "/requests/{request}/claim",
    anyone=True,
    reaches_far=_claims_admin,
    form=Form(optional=(TICKET,)),
    repeats=True,
    answers={201: "NewKey", 409: "Problem", 410: "Problem"},
)
async def claim_request(context: Context) -> Answer:
    """Make the key of an approved request; its token is shown once."""
    return await _made(context, context.management.requests.claim)


@ENDPOINTS.add(
    "POST",
    "/requests/{request}/reclaim",
    anyone=True,
    reaches_far=_claims_admin,
    form=Form(optional=(TICKET,)),
    repeats=True,
    answers={201: "NewKey", 409: "Problem"},
)
async def reclaim_request(context: Context) -> Answer:
    """Replace a claimed key that nobody has used; its token is shown once."""
    return await _made(context, context.management.requests.reclaim)


async def _made(context: Context, make: Callable[..., Awaitable[IssuedKey]]) -> Answer:
    """Return the answer that shows a new key, once."""
    request_id = context.parameters["request"]
    ticket = await _proof(context)
    await _check_claimant(context, ticket)

    async def do() -> tuple[str, Answer]:
        try:
            issued = await make(request_id, ticket=ticket, actor=context.known)
        except RefusedError as refused:
            request = await context.management.requests.get(request_id)
            if context.endpoint.handler is claim_request and request.status(context.now) in _GONE:
                raise Problem(410, str(refused)) from None
            raise
        return issued.key.id, new_key_answer(context, issued.key, issued.token)

    return await once(context, do, known_key_answer)


async def _proof(context: Context) -> str | None:
    """Return the ticket; without one, the caller has to be known.

    Raises:
        AccessDenied: There is no ticket, and nobody knows who calls; or nobody does, and the ticket
            is not the request's.
    """
    ticket = context.form.get(TICKET, None)
    if ticket is None:
        _ = context.caller
    elif context.known is None:
        deny = await context.management.refuse_ticket(
            context.parameters["request"], Secret(ticket), address=context.call.client.address
        )
        if deny is not None:
            raise AccessDenied(deny)
    return ticket


async def _check_claimant(context: Context, ticket: str | None) -> None:
    """Refuse a person who may no longer claim a request, even what has been claimed already.

    The guard judges keys: one that a person holds claims what it asked for as that person. Of a key
    that began a session, only its organization is looked at here, as the step-up comes first.

    Raises:
        AccessDenied: There is no such request, the person has not asked, or the caller may do
            nothing in its organization.
    """
    if context.person is None and context.session is None:
        return
    request, owner = await context.owned_request()
    if not rights_of(context.caller, owner):
        raise unknown()
    if context.person is not None and ticket is None and request.requester != context.party:
        raise unknown()


def _shown(context: Context, request: KeyRequest, status: int = 200) -> Answer:
    return record_answer(status, request.version, request_json(request, context.now))


def _decided(context: Context, request: KeyRequest) -> Answer:
    """Return the answer to an approval: 202 if it takes another."""
    return _shown(context, request, 202 if request.state is RequestStatus.PENDING else 200)
