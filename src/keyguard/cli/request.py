"""``keyguard request``: asks for keys, decides on what is asked, and claims what was approved."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial

import typer

from keyguard.cli import output
from keyguard.cli.options import (
    HASHED_STORE,
    LIMITS,
    LIST,
    NETWORKS,
    SCOPES,
    STORE,
    Common,
    actor,
    argument,
    argument_id,
    flag,
    option,
    with_options,
)
from keyguard.cli.pages import show_list
from keyguard.cli.parsing import new_value, parse_limits, parse_scopes
from keyguard.cli.terminal import coloured, details, status_word, table
from keyguard.cli.token_io import hand_over, hand_over_ticket, read_token, refuse_arguments
from keyguard.cli.wording import relative, request_details
from keyguard.core.keys.requests import KeyRequest, RequestStatus
from keyguard.core.keys.results import CreatedRequest
from keyguard.core.management.json_forms import request_json
from keyguard.core.spans import parse_span
from keyguard.core.tokens.secret import Secret
from keyguard.core.values import UNCHANGED, Page
from keyguard.exceptions import RefusedError, StoreUnavailableError
from keyguard.guard import Keyguard

REQUEST = argument("REQUEST", "The request's id.")
NOTE = option("TEXT", "A note for the requester.")
OWN = flag("--own", "Act as the login that asked for the key, without a ticket.")
TAKES_TICKET = {"allow_extra_args": True}

_POLL = 2.0  # seconds

app = typer.Typer(help="Ask for keys, approve requests, and claim keys.", no_args_is_help=True)


@app.command()
@with_options(*HASHED_STORE)
def create(
    common: Common,
    organization: str = option(
        "ORG", "The organization that will own the key, by id or slug.", "--org", default=...
    ),
    name: str = option("NAME", "A name for people.", default=...),
    scopes: list[str] | None = SCOPES,
    expires_in: str | None = option(
        "SPAN", "How long the key works after it is claimed, such as 90d."
    ),
    limits: list[str] | None = LIMITS,
    networks: list[str] | None = NETWORKS,
    reason: str | None = option("TEXT", "Why the key is needed."),
    requester: str | None = option("NAME", "Who asks; by default cli: and your login."),
    wait: bool = flag("--wait", "Wait until it is approved, claim the key and print its token."),
) -> None:
    """Ask for a key and print the ticket that claims it. It is shown only this once."""
    span = None if expires_in is None else parse_span("--expires-in", expires_in)
    own_limits = parse_limits(limits, "key")
    with common.guard() as guard:
        created = guard.requests.create(
            organization=organization,
            name=name,
            scopes=parse_scopes(scopes),
            expires_in=span,
            limits=own_limits,
            allowed_networks=networks or (),
            reason=reason,
            actor=requester or actor(),
        )
        if wait:
            _claim_when_approved(guard, created, as_json=common.as_json)
        else:
            hand_over_ticket(guard, created, as_json=common.as_json)


def _claim_when_approved(guard: Keyguard, created: CreatedRequest, *, as_json: bool) -> None:
    request = created.request
    output.note(f"Request {request.id} waits for its approval.")
    while request.state is RequestStatus.PENDING:
        if request.status(datetime.now(UTC)) is RequestStatus.EXPIRED:
            break
        time.sleep(_POLL)
        try:
            request = guard.requests.get(request.id)
        except StoreUnavailableError as failure:
            output.complain(f"{failure}; still waiting")
    if request.state is not RequestStatus.APPROVED:
        why = "" if request.note is None else f": {request.note}"
        raise RefusedError(f"request {request.id} is {request.status(datetime.now(UTC))}{why}")
    hand_over(guard, guard.requests.claim(request.id, ticket=created.ticket), as_json=as_json)


@app.command("list")
@with_options(*LIST)
def list_requests(
    common: Common,
    organization: str | None = option(
        "ORG", "Only requests for keys of this organization, by id or slug.", "--org"
    ),
    requester: str | None = option("NAME", "Only requests of this requester."),
    statuses: list[str] | None = option(
        "STATUS",
        f"Only requests that are {', '.join(RequestStatus)}; may be repeated.",
        "--status",
    ),
) -> None:
    """List requests for keys, oldest first."""
    now = datetime.now(UTC)
    with common.guard() as guard:
        show_list(
            common,
            partial(
                guard.requests.list,
                organization=organization,
                requester=requester,
                statuses=statuses or (),
            ),
            partial(request_json, now=now),
            partial(_table, now=now),
            "There are no requests to list.",
        )


def _table(page: Page[KeyRequest], now: datetime) -> str:
    rows = [
        (
            request.id,
            request.requester,
            request.name,
            coloured("\n".join(sorted((request.granted or request.asked).scopes))),
            status_word(request.status(now).value),
            relative(request.created_at, now),
        )
        for request in page
    ]
    headings = ("Request", "Requester", "Name", "Scopes", "Status", "Asked")
    widths = {"Requester": 9, "Name": 6, "Scopes": 12, "Status": 7, "Asked": 7}
    return table(headings, rows, flexible=widths)


@app.command()
@with_options(*STORE)
def show(common: Common, named: str = REQUEST) -> None:
    """Show all that is known of a request. keyguard does not store its ticket."""
    with common.guard() as guard:
        _show(guard, guard.requests.get(argument_id(named)), common)


def _show(guard: Keyguard, request: KeyRequest, common: Common) -> None:
    now = datetime.now(UTC)
    owner = guard.organizations.get(request.organization)
    common.show(request_json(request, now), details(request_details(request, owner, now)))


@app.command()
@with_options(*STORE)
def approve(
    common: Common,
    named: str = REQUEST,
    scopes: list[str] | None = SCOPES,
    no_scopes: bool = flag("--no-scopes", "Grant no scope at all."),
    expires_in: str | None = option("SPAN", "How long the key works instead, such as 30d."),
    limits: list[str] | None = LIMITS,
    networks: list[str] | None = NETWORKS,
    note: str | None = NOTE,
) -> None:
    """Approve a request. Options replace what was asked for, and may only grant less."""
    with common.guard() as guard:
        request = guard.requests.approve(
            argument_id(named),
            scopes=new_value("--scope", parse_scopes(scopes), "--no-scopes", no_scopes, ()),
            expires_in=UNCHANGED if expires_in is None else parse_span("--expires-in", expires_in),
            limits=parse_limits(limits, "key") or UNCHANGED,
            allowed_networks=networks or UNCHANGED,
            note=note,
            actor=actor(),
        )
        _show(guard, request, common)


@app.command()
@with_options(*STORE)
def deny(common: Common, named: str = REQUEST, note: str | None = NOTE) -> None:
    """Deny a request that is pending."""
    with common.guard() as guard:
        _show(guard, guard.requests.deny(argument_id(named), note=note, actor=actor()), common)


@app.command()
@with_options(*STORE)
def rescind(common: Common, named: str = REQUEST, note: str | None = NOTE) -> None:
    """Take an approval back, before the key is claimed."""
    with common.guard() as guard:
        _show(guard, guard.requests.rescind(argument_id(named), note=note, actor=actor()), common)


@app.command(context_settings=TAKES_TICKET)
@with_options(*HASHED_STORE)
def withdraw(common: Common, named: str = REQUEST, own: bool = OWN) -> None:
    """Withdraw a request. Its ticket is read from stdin, or from a hidden prompt."""
    with common.guard() as guard:
        request_id, (ticket, who) = argument_id(named), _proof(common, own=own)
        _show(guard, guard.requests.withdraw(request_id, ticket=ticket, actor=who), common)


@app.command(context_settings=TAKES_TICKET)
@with_options(*HASHED_STORE)
def claim(common: Common, named: str = REQUEST, own: bool = OWN) -> None:
    """Claim an approved key and print its token. It is shown only this once.

    The ticket is read from stdin, or from a hidden prompt.
    """
    with common.guard() as guard:
        request_id, (ticket, who) = argument_id(named), _proof(common, own=own)
        issued = guard.requests.claim(request_id, ticket=ticket, actor=who)
        hand_over(guard, issued, as_json=common.as_json)


@app.command(context_settings=TAKES_TICKET)
@with_options(*HASHED_STORE)
def reclaim(common: Common, named: str = REQUEST, own: bool = OWN) -> None:
    """Replace a claimed key that nobody has used; print a new token.

    The ticket is read from stdin, or from a hidden prompt. The old key is revoked.
    """
    with common.guard() as guard:
        request_id, (ticket, who) = argument_id(named), _proof(common, own=own)
        issued = guard.requests.reclaim(request_id, ticket=ticket, actor=who)
        hand_over(guard, issued, as_json=common.as_json)


def _proof(common: Common, *, own: bool) -> tuple[Secret | None, str | None]:
    """Return the ticket that is read, or instead the login that asked."""
    refuse_arguments(common, "ticket")
    if own:
        return None, actor()
    return Secret(read_token(common, "ticket").decode(errors="replace")), None
