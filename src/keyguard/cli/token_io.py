"""Tokens that leave keyguard, once, and tokens that enter it: never as an argument or in a log."""

from __future__ import annotations

import getpass
import sys

from keyguard.cli.options import Common, actor
from keyguard.cli.output import emit, emit_json, is_terminal, note
from keyguard.cli.terminal import details
from keyguard.cli.wording import Details, absolute, scope_list, when
from keyguard.core.keys.json_forms import new_key_json
from keyguard.core.keys.records import Key
from keyguard.core.keys.results import IssuedKey
from keyguard.exceptions import InvalidValueError, KeyguardError, RefusedError
from keyguard.guard import Keyguard

_LONGEST_INPUT = 4096


def hand_over(
    guard: Keyguard, issued: IssuedKey, *, as_json: bool, predecessor: Key | None = None
) -> None:
    """Write a new key's token to stdout, and what else is worth knowing to stderr.

    If the token can't be written, nobody has it, so its key is revoked at once. ``predecessor`` is
    the key that the new one succeeds.
    """
    problem = _write(issued, predecessor, as_json=as_json)
    if problem is not None:
        raise _revoke_unwritten(guard, issued.key.id, problem, predecessor)
    is_shown = is_terminal(sys.stdout)
    summary = "" if as_json else details(_summary(issued.key, predecessor), sys.stderr) + "\n"
    if is_shown:
        before = "" if as_json else f"\n{summary}"
        note(f"{before}This token is shown only once: copy it now.")
    elif not as_json:
        note(f"{summary}The token was written to stdout. It is not shown again.")


def read_token(common: Common) -> bytes:
    """Return a token that is read from stdin, or from a hidden prompt on a terminal."""
    refuse_arguments(common)
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


def refuse_arguments(common: Common) -> None:
    """Refuse a token that is passed as an argument."""
    if common.strays:
        raise InvalidValueError(
            "a token is never passed as an argument, where others can read it: pipe it in, or run "
            f"{common.command} on a terminal to be asked for it; if the argument was a token, "
            "revoke its key"
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


def _write(issued: IssuedKey, predecessor: Key | None, *, as_json: bool) -> str | None:
    """Write the token; return why that failed, as an error would carry the token in its frames."""
    try:
        if as_json:
            emit_json(new_key_json(issued.key, issued.token, predecessor))
        else:
            emit(f"{issued.token.reveal()}\n")
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
