"""Tokens on their way out, which is once, and in: never as an argument, never in a log."""

from __future__ import annotations

import getpass
import sys
from datetime import UTC, datetime

import typer

from keyguard.cli.options import Common, Json, PepperFile, Url
from keyguard.cli.output import complain, document, emit, is_shown, note
from keyguard.cli.records import scope_list
from keyguard.cli.tables import details, status
from keyguard.cli.times import absolute, instant
from keyguard.exceptions import (
    BackendUnavailableError,
    InvalidValueError,
    KeyguardError,
    RefusedError,
)
from keyguard.guard import Keyguard
from keyguard.sansio.decisions import Allow, Deny, Reason
from keyguard.sansio.models import IssuedKey

__all__ = ["hand_over", "verify"]

_LONGEST_INPUT = 4096
_REASONS = {
    Reason.KEY_UNKNOWN: "there is no key {key}",
    Reason.SECRET_WRONG: "the token names key {key}, but its secret is wrong",
    Reason.KEY_REVOKED: "key {key} is revoked",
    Reason.KEY_ROTATED: "key {key} was rotated, and its grace is over",
    Reason.ADDRESS_NOT_ALLOWED: "key {key} does not work from here",
    Reason.KEY_EXPIRED: "key {key} has expired",
    Reason.KEY_NOT_YET_VALID: "key {key} does not work yet",
    Reason.ORGANIZATION_DISABLED: "key {key} does not work while its organization is disabled",
}


def hand_over(guard: Keyguard, issued: IssuedKey, *, as_json: bool) -> None:
    """Write a new key's token to stdout, and what is worth knowing beside it to stderr.

    A token that can't be written is in nobody's hands, so its key is revoked at once.

    Raises:
        RefusedError: The token could not be written.
    """
    key = issued.key
    problem = _write(issued, as_json=as_json)
    if problem is not None:
        raise _undelivered(guard, key.id, problem)
    if not as_json:
        now = datetime.now(UTC)
        items = [
            ("Key", key.id),
            ("Organization", key.organization),
            ("Scopes", scope_list(key.scopes)),
            ("Works from", None if key.not_before is None else absolute(key.not_before, now)),
            ("Expires", "never" if key.expires_at is None else absolute(key.expires_at, now)),
        ]
        note(("\n" if is_shown() else "") + details(items, sys.stderr))
    if is_shown():
        note("This token is shown only once: copy it now.")
    elif not as_json:
        note("The token went to stdout, and is not shown again.")


def verify(
    ctx: typer.Context,
    url: Url = None,
    pepper_file: PepperFile = None,
    as_json: Json = False,
) -> None:
    """Tell whether a token works, read from stdin or from a hidden prompt."""
    common = Common.of(ctx, url, as_json, pepper_file)
    if ctx.args:
        raise InvalidValueError(
            "a token is never passed as an argument, where others can read it: pipe it in, or run "
            "keyguard key verify on a terminal to be asked; if that was one, revoke its key"
        )
    with common.guard() as guard:
        decision = guard.authenticate([b"Bearer " + _read_token()], secure=True)
        if isinstance(decision, Deny) and decision.reason is Reason.STORE_UNAVAILABLE:
            raise _as_error(decision)
        prefix = guard.settings.prefix
    if isinstance(decision, Allow):
        _tell_active(decision, as_json=common.as_json)
        return
    if common.as_json:
        document({"active": False, "reason": decision.reason.value, "id": decision.key_id})
    else:
        complain(
            _REASONS.get(
                decision.reason,
                f"that is no token of this service: one is {prefix}_ and 66 characters, "
                "and this one has a wrong prefix, length or checksum",
            ).format(key=decision.key_id)
        )
    raise typer.Exit(1)


def _write(issued: IssuedKey, *, as_json: bool) -> str | None:
    """Write the token, and return why that failed: no error that has seen it goes any further."""
    key = issued.key
    try:
        if as_json:
            document(
                {
                    "id": key.id,
                    "token": issued.token.reveal(),
                    "organization": key.organization,
                    "scopes": sorted(key.scopes),
                    "expires_at": instant(key.expires_at),
                }
            )
        else:
            emit(f"{issued.token.reveal()}\n")
    except OSError as failure:
        return failure.strerror or type(failure).__name__
    return None


def _undelivered(guard: Keyguard, key_id: str, problem: str) -> RefusedError:
    failed = f"the token could not be written to stdout ({problem})"
    try:
        guard.keys.revoke(key_id, reason="its token could not be written")
    except KeyguardError:
        return RefusedError(f"{failed}, and its key could not be revoked: revoke {key_id} yourself")
    return RefusedError(f"{failed}, so its key {key_id} was revoked at once")


def _read_token() -> bytes:
    if sys.stdin is None:
        raise InvalidValueError("no token was given: stdin is closed")
    if sys.stdin.isatty():
        try:
            token = getpass.getpass("Token (not shown): ").encode(errors="surrogateescape")
        except EOFError:
            token = b""
    else:
        token = sys.stdin.buffer.read(_LONGEST_INPUT)
    token = token.strip()
    if not token:
        raise InvalidValueError("no token was given: pipe it in, or run this on a terminal")
    return token


def _tell_active(decision: Allow, *, as_json: bool) -> None:
    principal = decision.principal
    if as_json:
        document(
            {
                "active": True,
                "id": principal.key_id,
                "organization": principal.organization,
                "scopes": sorted(principal.scopes),
            }
        )
        return
    emit(
        details(
            [
                ("Status", status("active")),
                ("Key", principal.key_id),
                ("Organization", principal.organization),
                ("Scopes", scope_list(principal.scopes)),
            ]
        )
    )


def _as_error(decision: Deny) -> KeyguardError:
    if isinstance(decision.cause, KeyguardError):
        return decision.cause
    return BackendUnavailableError("the key store failed; try again later")
