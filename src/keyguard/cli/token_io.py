"""Tokens that leave keyguard, once, and tokens that enter it: never as an argument or in a log."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable
from functools import partial

from keyguard.cli.options import Common, actor
from keyguard.cli.output import emit, emit_json, is_terminal, note
from keyguard.cli.terminal import details
from keyguard.cli.wording import Details, absolute, scope_list, when
from keyguard.core.access.decisions import Decision, Deny, Reason
from keyguard.core.keys.records import Key
from keyguard.core.keys.results import CreatedRequest, IssuedKey
from keyguard.core.management.json_forms import JsonObject, new_key_json, request_json
from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import (
    InvalidValueError,
    KeyguardError,
    RefusedError,
    StoreUnavailableError,
)
from keyguard.guard import Keyguard
from keyguard.runtime.sync import run_sync

_LONGEST_INPUT = 4096
_REASONS = {
    Reason.KEY_UNKNOWN: "there is no key {key}",
    Reason.SECRET_WRONG: "the token names key {key}, but its secret is wrong",
    Reason.KEY_REVOKED: "key {key} is revoked",
    Reason.KEY_ROTATED: "key {key} was rotated, and its grace has ended",
    Reason.KEY_EXPIRED: "key {key} has expired",
    Reason.KEY_NOT_YET_VALID: "key {key} does not work yet",
    Reason.ORGANIZATION_DISABLED: "key {key} does not work while its organization is disabled",
}


def hand_over(
    guard: Keyguard, issued: IssuedKey, *, as_json: bool, predecessor: Key | None = None
) -> None:
    """Write a new key's token to stdout, and what else is worth knowing to stderr.

    If the token can't be written, nobody has it, so its key is revoked at once. ``predecessor`` is
    the key that the new one succeeds.
    """
    form = partial(new_key_json, issued.key, issued.token, predecessor)
    problem = _write(issued.token, form, as_json=as_json)
    if problem is not None:
        raise _revoke_unwritten(guard, issued.key.id, problem, predecessor)
    is_shown = is_terminal(sys.stdout)
    summary = "" if as_json else details(_summary(issued.key, predecessor), sys.stderr) + "\n"
    if is_shown:
        before = "" if as_json else f"\n{summary}"
        note(f"{before}This token is shown only once: copy it now.")
    elif not as_json:
        note(f"{summary}The token was written to stdout. It is not shown again.")


def hand_over_ticket(guard: Keyguard, created: CreatedRequest, *, as_json: bool) -> None:
    """Write a request's ticket to stdout, and what else is worth knowing to stderr.

    If the ticket can't be written, nobody has it, so its request is withdrawn at once.
    """
    request, ticket = created.request, created.ticket
    now = request.created_at

    def form() -> JsonObject:
        return {**request_json(request, now), "ticket": ticket.reveal()}

    problem = _write(ticket, form, as_json=as_json)
    if problem is not None:
        guard.requests.withdraw(request.id, ticket=ticket)
        raise RefusedError(
            f"the ticket could not be written to stdout ({problem}), so its request {request.id} "
            "was withdrawn at once"
        )
    if as_json:
        return
    until = request.claim_by or request.pending_until
    facts: Details = [
        ("Request", request.id),
        ("Status", request.state.value),
        ("Until", absolute(until, now)),
    ]
    note(
        f"{details(facts, sys.stderr)}\nThe ticket claims the key once it is approved. It is shown "
        f"only once.\nTo claim it, pipe the ticket into: keyguard request claim {request.id}"
    )


def read_token(common: Common, what: str = "token") -> bytes:
    """Return a token or a ticket that is read from stdin, or from a hidden prompt on a terminal."""
    refuse_arguments(common, what)
    if sys.stdin is None:
        raise InvalidValueError(f"no {what} was given: stdin is closed")
    if sys.stdin.isatty():
        try:
            token = getpass.getpass(f"{what.capitalize()} (not shown): ").encode(
                errors="surrogateescape"
            )
        except EOFError:
            token = b""
    else:
        token = sys.stdin.buffer.read(_LONGEST_INPUT)
    token = token.strip()
    if not token:
        raise InvalidValueError(f"no {what} was given: pipe it in, or run this on a terminal")
    return token


def authenticate(common: Common, guard: Keyguard) -> Decision:
    """Read a token and decide on it, as on a request over HTTPS from no known address.

    The key store stays as it is: nobody has used the key, and its digest may rest on other peppers.

    Raises:
        StoreError: The key store failed, so nothing is known of the key.
    """
    decision = run_sync(
        guard.decide([b"Bearer " + read_token(common)], secure=True, is_attempt=False)
    )
    if isinstance(decision, Deny) and decision.reason is Reason.STORE_UNAVAILABLE:
        if isinstance(decision.cause, KeyguardError):
            raise decision.cause
        raise StoreUnavailableError("the key store failed; try again later")
    return decision


def refusal_words(refusal: Deny, prefix: str) -> str:
    """Return in words why a token does not work.

    Args:
        refusal: The decision on it.
        prefix: The prefix of the service's tokens.
    """
    other = (
        f"this is not a token of this service: a token is {prefix}_ and 66 characters, and "
        "this one has a wrong prefix, length or checksum"
    )
    return _REASONS.get(refusal.reason, other).format(key=refusal.key_id)


def refuse_arguments(common: Common, what: str = "token") -> None:
    """Refuse a token or a ticket that is passed as an argument."""
    if common.strays:
        end = "revoke its key" if what == "token" else "withdraw its request"
        raise InvalidValueError(
            f"a {what} is never passed as an argument, where others can read it: pipe it in, or "
            f"run {common.command} on a terminal to be asked for it; if the argument was a {what}, "
            f"{end}"
        )


def _summary(key: Key, predecessor: Key | None) -> Details:
    now, old_key = key.created_at, None
    if predecessor is not None:
        end = None if predecessor.revoked_at else predecessor.grace_ends_at
        state = "revoked" if end is None else f"works until {absolute(end, now)}"
        old_key = f"{predecessor.id}, {state}"
    return [
        ("Key", key.id),
        ("Organization", key.organization),
        ("Scopes", scope_list(key.scopes)),
        ("Works from", when(key.not_before, now)),
        ("Expires", when(key.expires_at, now) or "never"),
        ("Networks", ", ".join(key.allowed_networks)),
        ("Old key", old_key),
    ]


def _write(secret: Secret, form: Callable[[], JsonObject], *, as_json: bool) -> str | None:
    """Write a secret; return why that failed, as an error would carry the secret in its frames."""
    try:
        if as_json:
            emit_json(form())
        else:
            emit(f"{secret.reveal()}\n")
    except OSError as failure:
        return failure.strerror or type(failure).__name__
    return None


def _revoke_unwritten(
    guard: Keyguard, key_id: str, problem: str, predecessor: Key | None
) -> RefusedError:
    failed = f"the token could not be written to stdout ({problem})"
    advice = ""
    if predecessor is not None:
        end = "is revoked" if predecessor.revoked_at else "stops working when its grace ends"
        advice = f"; its predecessor {predecessor.id} {end}: create a new key"
    try:
        # By force: nobody could use this key, even if it is the last one with admin.
        guard.keys.revoke(key_id, note="its token could not be written", force=True, actor=actor())
    except KeyguardError:
        return RefusedError(
            f"{failed}, and its key could not be revoked: revoke {key_id} yourself{advice}"
        )
    return RefusedError(f"{failed}, so its key {key_id} was revoked at once{advice}")
