"""Pages on the requests for keys of an organization: the list, and asking for a key."""

from __future__ import annotations

from keyguard.admin.console.forms import Choices, KeyForm
from keyguard.admin.console.page import REFUSALS, Pages, View, sent, view_of
from keyguard.admin.context import Context
from keyguard.admin.exchange import Answer
from keyguard.admin.rights import Right
from keyguard.core.keys.requests import RequestStatus

_ROWS = 20
_WAITING = 50
DECIDED = tuple(status for status in RequestStatus if status is not RequestStatus.PENDING)

_ALL = "/organizations/{organization}/requests"
PAGES = Pages()


@PAGES.add("GET", _ALL, Right.READ_REQUESTS)
async def list_requests(context: Context) -> Answer:
    """List the requests for keys of an organization."""
    view = await view_of(context)
    waiting = await context.management.requests.list(
        organization=view.owner.id, statuses=[RequestStatus.PENDING], limit=_WAITING
    )
    decided = await context.management.requests.list(
        organization=view.owner.id,
        statuses=DECIDED,
        after=view.query("after") or None,
        limit=_ROWS,
    )
    return view.show(
        "requests.html",
        "Key requests",
        section="Key requests",
        can=view.key_rights,
        waiting=waiting.items,
        decided=decided.items,
        parties=await view.keys_in((*waiting, *decided)),
        next=view.next_page(decided.next),
    )


@PAGES.form(f"{_ALL}/new", Right.ASK, target=_ALL)
async def create_request(context: Context) -> Answer:
    """Show the form of a request for a key, and ask for the key."""
    view = await view_of(context)
    fields, problem = await sent(context), ""
    offered = Choices.of(context.guard, view.owner)
    form = KeyForm(lifetime=offered.default(), reason="")
    form.fill(fields)
    if fields and "preview" not in fields:
        try:
            created = await context.management.requests.create(
                organization=view.owner.id,
                name=form.name,
                scopes=form.scopes,
                expires_in=form.expires_in,
                allowed_networks=form.allowed_networks,
                reason=" ".join((form.reason or "").split()) or None,
                actor=context.caller,
            )
            return view.go(f"/requests/{created.request.id}", "asked")
        except REFUSALS as refused:
            problem = str(refused)
    return view.show(
        "key_form.html",
        "Request a key",
        section=section_of(view),
        problem=problem,
        lead="An approver decides on it. The key is made when you claim it, and shown once.",
        action=f"{view.home}/requests",
        submit="Send the request",
        back=f"{view.home}/mine",
        **offered.of_form(form),
    )


def section_of(view: View) -> str:
    """Return the entry of the navigation that requests for keys belong to."""
    return "Key requests" if Right.READ_REQUESTS in view.rights else "My keys"
