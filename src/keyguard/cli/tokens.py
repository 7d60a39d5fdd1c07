"""Tokens on their way out, which is once, and in: never as an argument, never in a log."""

from __future__ import annotations

import getpass
import sys
from datetime import datetime
from typing import Any

import typer

from keyguard.cli.options import Common, Json, PepperFile, Url, actor
from keyguard.cli.output import complain, emit, emit_json, is_shown, note
from keyguard.cli.records import scope_list
from keyguard.cli.tables import details, status
from keyguard.cli.times import absolute, instant
from keyguard.core.access.decisions import Allow, Deny, Reason
from keyguard.core.keys.records import IssuedKey, Key
from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import (
    InvalidValueError,
    KeyguardError,
    RefusedError,
    StoreUnavailableError,
)
from keyguard.guard import Keyguard

__all__ = ["hand_over", "read_token", "token_document", "verify"]

_LONGEST_INPUT = 4096
_REASONS = {
    Reason.KEY_UNKNOWN: "there is no key {key}",
    Reason.SECRET_WRONG: "the token names key {key}, but its secret is wrong",
    Reason.KEY_REVOKED: "key {key} is revoked",
    Reason.KEY_ROTATED: "key {key} was rotated, and its grace is over",
    Reason.KEY_EXPIRED: "key {key} has expired",
    Reason.KEY_NOT_YET_VALID: "key {key} does not work yet",
    Reason.ORGANIZATION_DISABLED: "key {key} does not work while its organization is disabled",
}


def hand_over(
    guard: Keyguard, issued: IssuedKey, *, as_json: bool, predecessor: Key | None = None
) -> None:
    """Write a new key's token to stdout, and what is worth knowing beside it to stderr.

    A token that can't be written is in nobody's hands, so its key is revoked at once.

    Args:
        guard: The guard that issued it.
        issued: The key and its token.
        as_json: Whether as one JSON document.
        predecessor: The key whose place it takes, if any.

    Raises:
        RefusedError: The token could not be written.
    """
    key = issued.key
    problem = _write(issued, predecessor, as_json=as_json)
    if problem is not None:
        raise _undelivered(guard, key.id, problem, predecessor)
    if not as_json:
        now = key.created_at
        items = [
            ("Key", key.id),
            ("Organization", key.organization),
            ("Scopes", scope_list(key.scopes)),
            ("Works from", None if key.not_before is None else absolute(key.not_before, now)),
            ("Expires", "never" if key.expires_at is None else absolute(key.expires_at, now)),
            ("Networks", ", ".join(key.allowed_networks) or None),
            ("Old key", None if predecessor is None else _fate(predecessor, now)),
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
    _refuse_arguments(ctx)
    with common.guard() as guard:
        decision = guard.authenticate([b"Bearer " + read_token(ctx)], secure=True)
        if isinstance(decision, Deny) and decision.reason is Reason.STORE_UNAVAILABLE:
            raise _as_error(decision)
        prefix = guard.settings.prefix
        if isinstance(decision, Allow):
            key, scopes = guard.keys.get(decision.principal.key_id), decision.principal.scopes
            return _tell_active(key, scopes, as_json=common.as_json)
        if decision.reason is Reason.ADDRESS_NOT_ALLOWED and decision.key_id is not None:
            # It is good, though not from everywhere, and this is no client.
            key = guard.keys.get(decision.key_id)
            return _tell_active(key, key.scopes, as_json=common.as_json)
    if common.as_json:
        emit_json({"active": False, "reason": decision.reason.value, "id": decision.key_id})
    else:
        complain(
            _REASONS.get(
                decision.reason,
                f"that is no token of this service: one is {prefix}_ and 66 characters, "
                "and this one has a wrong prefix, length or checksum",
            ).format(key=decision.key_id)
        )
    raise typer.Exit(1)


def token_document(key: Key, token: Secret | None, predecessor: Key | None) -> dict[str, Any]:
    """Return a new key and its token as a JSON document has them.

    Args:
        key: The key.
        token: Its token, or None where it was shown before.
        predecessor: The key whose place it takes, if any.
    """
    shown: dict[str, Any] = {
        "id": key.id,
        "token": None if token is None else token.reveal(),
        "organization": key.organization,
        "scopes": sorted(key.scopes),
        "expires_at": instant(key.expires_at),
    }
    if predecessor is not None:
        shown["predecessor"] = {
            "id": predecessor.id,
            "grace_ends_at": instant(predecessor.grace_ends_at),
            "revoked_at": instant(predecessor.revoked_at),
        }
    return shown


def _fate(predecessor: Key, now: datetime) -> str:
    if predecessor.revoked_at is not None or predecessor.grace_ends_at is None:
        return f"{predecessor.id}, revoked"
    return f"{predecessor.id}, works until {absolute(predecessor.grace_ends_at, now)}"


def _write(issued: IssuedKey, predecessor: Key | None, *, as_json: bool) -> str | None:
    """Write the token, and return why that failed: no error that has seen it goes any further."""
    try:
        if as_json:
            emit_json(token_document(issued.key, issued.token, predecessor))
        else:
            emit(f"{issued.token.reveal()}\n")
    except OSError as failure:
        return failure.strerror or type(failure).__name__
    return None


def _undelivered(
    guard: Keyguard, key_id: str, problem: str, predecessor: Key | None
) -> RefusedError:
    failed = f"the token could not be written to stdout ({problem})"
    beside = ""
    if predecessor is not None:
        end = "is revoked" if predecessor.revoked_at else "ends as well when its grace is over"
        beside = f"; its predecessor {predecessor.id} {end}: create a new key"
    why = "its token could not be written"
    try:
        # Even if no other has admin: nobody has this one.
        guard.keys.revoke(key_id, note=why, force=True, actor=actor())
    except KeyguardError:
        return RefusedError(
            f"{failed}, and its key could not be revoked: revoke {key_id} yourself{beside}"
        )
    return RefusedError(f"{failed}, so its key {key_id} was revoked at once{beside}")


def _refuse_arguments(ctx: typer.Context) -> None:
    if ctx.args:
        raise InvalidValueError(
            "a token is never passed as an argument, where others can read it: pipe it in, or run "
            f"{ctx.command_path} on a terminal to be asked; if that was one, revoke its key"
        )


def read_token(ctx: typer.Context) -> bytes:
    """Read a token from stdin, or from a hidden prompt on a terminal.

    Raises:
        InvalidValueError: None was given, or it was given as an argument.
    """
    _refuse_arguments(ctx)
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


def _tell_active(key: Key, scopes: frozenset[str], *, as_json: bool) -> None:
    if as_json:
        emit_json(
            {
                "active": True,
                "id": key.id,
                "organization": key.organization,
                "scopes": sorted(scopes),
                "allowed_networks": list(key.allowed_networks),
            }
        )
        return
    emit(
        details(
            [
                ("Status", status("active")),
                ("Key", key.id),
                ("Organization", key.organization),
                ("Scopes", scope_list(scopes)),
                ("Networks", ", ".join(key.allowed_networks) or None),
            ]
        )
    )


def _as_error(decision: Deny) -> KeyguardError:
    if isinstance(decision.cause, KeyguardError):
        return decision.cause
    return StoreUnavailableError("the key store failed; try again later")
