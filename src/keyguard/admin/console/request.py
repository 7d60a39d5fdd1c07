"""Pages on one request for a key: deciding on it, and claiming the key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import NamedTuple

from keyguard.admin.console.forms import Choices, KeyForm, days_text, limits_text
from keyguard.admin.console.keys import grants_by_form
from keyguard.admin.console.page import REFUSALS, Pages, View, sent
from keyguard.admin.console.render import span
from keyguard.admin.console.requests import section_of
from keyguard.admin.console.tokens import made_once, show_token
from keyguard.admin.context import Context
from keyguard.admin.exchange import Answer
from keyguard.admin.rights import Right
from keyguard.admin.step_up import claims_admin
from keyguard.core.keys.requests import KeyRequest, KeyTerms, RequestStatus
from keyguard.core.keys.results import IssuedKey
from keyguard.exceptions import NotFoundError, RefusedError

_LOST = (
    "The token was shown once, right after the key was made. If you did not store it, press Make "
    "a new key on the request's page: that revokes the unused key, and makes a new one. Rotate a "
    "key that was used already."
)

_ONE = "/requests/{request}"
PAGES = Pages()


async def _view(context: Context) -> tuple[View, KeyRequest]:
    request = await context.request()
    owner = await context.management.organizations.get(request.organization)
    return View(context, owner), request


def _is_own(view: View, request: KeyRequest) -> bool:
    return Right.ASK in view.rights and request.requester == view.context.party


def rights_on(view: View, request: KeyRequest) -> frozenset[str]:
    """Return what the caller may do with a request, as the templates name it."""
    own, decides = _is_own(view, request), Right.DECIDE in view.rights
    can: dict[RequestStatus, dict[str, bool]] = {
        RequestStatus.PENDING: {
            "approve": decides and not own and view.context.party not in request.decided_by,
            "deny": decides and not own,
            "withdraw": own,
        },
        RequestStatus.APPROVED: {
            "rescind": decides and not own,
            "claim": own,
            "withdraw": own,
        },
        RequestStatus.CLAIMED: {"reclaim": own},
    }
    found = can.get(request.status(view.now), {})
    return frozenset(name for name, may in found.items() if may)


@PAGES.add("GET", _ONE, Right.READ_REQUESTS, own=True)
async def show_request(context: Context) -> Answer:
    """Show a request for a key."""
    view, request = await _view(context)
    asked = request.granted or request.asked
    lifetime = days_text(asked.expires_in)
    if request.granted is None and not lifetime:  # no end is granted by choice, not by default
        lifetime = Choices.of(context.guard, view.owner).default()
    form = KeyForm(scopes=asked.scopes, lifetime=lifetime)
    return await _show(view, request, form)


async def _show(view: View, request: KeyRequest, form: KeyForm, problem: str = "") -> Answer:
    offered = Choices.of(view.context.guard, view.owner)
    asked, granted = request.asked, request.granted
    most = granted or asked
    texts = {scope: (text, implied) for scope, text, implied in offered.choices}
    can = rights_on(view, request)
    if "reclaim" in can and await _is_used(view, request):
        can -= {"reclaim"}
    return view.show(
        "request.html",
        request.name,
        section=section_of(view),
        problem=problem,
        notice=_notice(view, request),
        can=can,
        request=request,
        missing=_missing(view, request),
        parties=await view.keys_in([request]),
        compared=[
            ("Scopes", asked.scopes, granted and granted.scopes),
            *((name, told(asked), granted and told(granted)) for name, told in _TERMS.items()),
        ],
        form=form,
        choices=[(scope, *texts.get(scope, ("", []))) for scope in sorted(most.scopes)],
        lifetimes=_lifetimes(most.expires_in, offered),
        lifetime_hint="",
    )


def _notice(view: View, request: KeyRequest) -> str:
    """Return what is said after a form did its work, to the person alone who sent the form.

    The address of the page says which form that was, and others may open it as well.
    """
    if view.query("done") == "asked":
        tells = _is_own(view, request) and request.status(view.now) is RequestStatus.PENDING
    else:
        tells = _is_own(view, request) or view.context.party in request.decided_by
    return view.notice if tells else ""


def _missing(view: View, request: KeyRequest) -> int:
    """Return how many approvals are missing of a request that has some; 0 for any other."""
    if request.granted is None or request.status(view.now) is not RequestStatus.PENDING:
        return 0
    guard = view.context.guard
    needed = guard.settings.request_terms.approvers(guard.policy, request.granted.scopes)
    return max(1, needed - len(request.decided_by))


async def _is_used(view: View, request: KeyRequest) -> bool:
    """Return whether the key of a request was used, or is gone."""
    try:
        key = await view.context.management.keys.get(request.key or "")
    except NotFoundError:
        return True
    return key.last_used_at is not None or key.revoked_at is not None or key.successor is not None


def _lifetime(terms: KeyTerms) -> str:
    return "as long as allowed" if terms.expires_in is None else span(terms.expires_in)


_TERMS: dict[str, Callable[[KeyTerms], str]] = {
    "Works for": _lifetime,
    "Networks": lambda terms: ", ".join(terms.allowed_networks) or "any",
    "Limits": lambda terms: limits_text(terms.limits) or "those of the organization",
}


def _lifetimes(most: timedelta | None, offered: Choices) -> list[tuple[str, str]]:
    """Return the lifetimes that are no longer than what was asked for."""
    if most is None:
        return offered.lifetimes
    shorter = [
        (days, name)
        for days, name in offered.lifetimes
        if days and timedelta(days=int(days)) < most
    ]
    return [*shorter, (days_text(most), span(most))]


async def _approves_admin(context: Context) -> bool:
    await context.request()
    return await grants_by_form(context)


@PAGES.add("POST", f"{_ONE}/approve", Right.DECIDE, reaches_far=_approves_admin, page=_ONE)
async def approve_request(context: Context) -> Answer:
    """Approve a request, or a part of it."""
    view, request = await _view(context)
    fields = await sent(context)
    form = KeyForm()
    form.fill(fields)
    most = request.granted or request.asked
    keeps_lifetime = form.lifetime == days_text(most.expires_in)
    try:
        if fields.get("version") != str(request.version):
            raise RefusedError(
                "Somebody else changed the request in the meantime. Look at it again."
            )
        approved = await context.management.requests.approve(
            request.id,
            scopes=form.scopes,
            expires_in=most.expires_in if keeps_lifetime else form.expires_in,
            note=form.note or None,
            version=request.version,
            actor=context.caller,
        )
    except REFUSALS as problem:
        return await _show(view, request, form, str(problem))
    counted = approved.state is RequestStatus.PENDING
    return view.go(f"/requests/{request.id}", "counted" if counted else "approved")


class Confirmation(NamedTuple):
    """What a page asks before something is done to a request.

    Args:
        verb: What is done; also the last part of the path.
        title: The title.
        lead: What happens then.
        submit: What is on the button.
        noted: Whether a note is asked for.
        harmful: Whether it ends something.
    """

    verb: str
    title: str
    lead: str
    submit: str
    noted: bool = True
    harmful: bool = True


_DENY = Confirmation(
    "deny", "Deny this request?", "The requester sees this, with your note.", "Deny the request"
)
_RESCIND = Confirmation(
    "rescind",
    "Take the approval back?",
    "The key can't be claimed after that. The requester sees this, with your note.",
    "Take it back",
)
_WITHDRAW = Confirmation(
    "withdraw",
    "Withdraw this request?",
    "Nobody can approve it after that, and no key is made. You can ask again.",
    "Withdraw it",
    noted=False,
)
_CLAIM = Confirmation(
    "claim",
    "Claim the key?",
    "The key is made now. Its token is shown once, on the next page: be ready to store it.",
    "Make the key",
    noted=False,
    harmful=False,
)
_RECLAIM = Confirmation(
    "reclaim",
    "Make a new key?",
    "The key was not used yet. It is revoked, and another one is made, whose token is shown once.",
    "Make a new key",
    noted=False,
)


def _ask(view: View, request: KeyRequest, question: Confirmation, problem: str = "") -> Answer:
    note = {"name": "note", "label": "Note", "hint": "The requester reads this."}
    return view.ask(
        question.title,
        f"/requests/{request.id}/{question.verb}",
        question.submit,
        section=section_of(view),
        problem=problem,
        lead=question.lead,
        hidden=[("once", KeyForm().once)],
        fields=[note] if question.noted else [],
        harmful=question.harmful,
        back=f"/requests/{request.id}",
    )


@PAGES.form(f"{_ONE}/deny", Right.DECIDE)
async def deny_request(context: Context) -> Answer:
    """Ask whether a request shall be denied, and deny it."""
    return await _end(context, _DENY, context.management.requests.deny, "denied")


@PAGES.form(f"{_ONE}/rescind", Right.DECIDE)
async def rescind_request(context: Context) -> Answer:
    """Ask whether an approval shall be taken back, and take it back."""
    return await _end(context, _RESCIND, context.management.requests.rescind, "rescinded")


@PAGES.form(f"{_ONE}/withdraw", Right.ASK, own=True)
async def withdraw_request(context: Context) -> Answer:
    """Ask whether a request shall be withdrawn, and withdraw it."""
    return await _end(context, _WITHDRAW, context.management.requests.withdraw, "withdrawn")


async def _end(
    context: Context,
    question: Confirmation,
    end: Callable[..., Awaitable[KeyRequest]],
    done: str,
) -> Answer:
    view, request = await _view(context)
    fields = await sent(context)
    if not fields:
        return _ask(view, request, question)
    note = {"note": fields.get("note", "").strip() or None} if question.noted else {}
    try:
        await end(request.id, actor=context.caller, **note)
    except REFUSALS as problem:
        return _ask(view, request, question, str(problem))
    return view.go(f"/requests/{request.id}", done)


async def _claims_admin(context: Context) -> bool:
    return await claims_admin(context, await context.request())


@PAGES.form(f"{_ONE}/claim", Right.ASK, own=True, reaches_far=_claims_admin, page=_ONE)
async def claim_key(context: Context) -> Answer:
    """Ask whether the key of a request shall be made, make it, and show its token once."""
    return await _claim(context, _CLAIM, context.management.requests.claim)


@PAGES.form(f"{_ONE}/reclaim", Right.ASK, own=True, reaches_far=_claims_admin, page=_ONE)
async def reclaim_key(context: Context) -> Answer:
    """Ask whether the key of a request shall be made again, make it, and show its token once."""
    return await _claim(context, _RECLAIM, context.management.requests.reclaim)


async def _claim(
    context: Context, question: Confirmation, make: Callable[..., Awaitable[IssuedKey]]
) -> Answer:
    view, request = await _view(context)
    fields = await sent(context)
    if not fields:
        return _ask(view, request, question)
    try:
        issued = await made_once(
            view,
            fields.get("once", ""),
            partial(make, request.id, actor=context.caller),
            version=request.version,
        )
    except REFUSALS as problem:
        return await _show(view, request, KeyForm(), str(problem))
    if issued is None:
        path = f"/requests/{request.id}"
        return show_token(view, None, back=path, back_text="Go to the request", lost=_LOST)
    return show_token(view, issued.token, issued.key)
