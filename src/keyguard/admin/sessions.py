"""Sessions of the console, and links that begin one.

A browser holds a random text in a cookie; the store keeps its SHA-256 digest with who signed in.
The key of a session is read again on each call, so the end of the key ends the session.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import TypeAlias

from keyguard.admin.exchange import Call, Problem
from keyguard.core.access.decisions import AccessDenied, Allow, Deny, Reason
from keyguard.core.identity.person import Person
from keyguard.core.identity.principal import Principal
from keyguard.core.keys.temporary import Temporary
from keyguard.core.management.administrators import ADMIN
from keyguard.core.tokens.secret import Secret
from keyguard.guard import AsyncKeyguard, Keyguard

Caller: TypeAlias = Person | Principal

COOKIE = "__Host-keyguard"
LIFETIME = timedelta(hours=12)
PERSON_LIFETIME = timedelta(hours=1)
"""How long a session by a person's link lasts: what the link said of roles is not asked again."""

LINK_LIFETIME = timedelta(minutes=5)
_SESSION = "session"
_LINK = "link"
_DRAWN = re.compile(r"[0-9A-Za-z_-]{43}\Z")
_LOOPBACK = re.compile(r"((.+\.)?localhost|127\.0\.0\.1|\[::1\])(:\d+)?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleSession:
    """A session as a call brought it.

    Args:
        caller: Who signed in, as it stands now.
        began_at: When.
        secret: What the cookie holds.
    """

    caller: Caller
    began_at: datetime
    secret: str = field(repr=False)


class Sessions:
    """The sessions of one guard's console.

    Args:
        guard: The guard whose key store keeps them.
    """

    def __init__(self, guard: Keyguard | AsyncKeyguard) -> None:
        self._guard = guard

    async def find(self, call: Call) -> ConsoleSession | None:
        """Return the session that a call's cookie names, or None if it has ended.

        Raises:
            StoreError: The key store failed.
        """
        secret = call.request.cookies.get(COOKIE, "")
        if not _DRAWN.match(secret):
            return None
        found = await self._guard.management.temporary.find(_SESSION, _digest(secret))
        if found is None:
            return None
        who: dict[str, str] = json.loads(found.value)
        began_at = datetime.fromisoformat(who["at"])
        caller: Caller | None
        if "key" in who:
            caller = await self._administrator(who["key"], call.client.address)
        else:
            caller = Person(**json.loads(who["person"]), authenticated_at=began_at)
        if caller is None:
            return None
        return ConsoleSession(caller=caller, began_at=began_at, secret=secret)

    async def sign_in(self, call: Call, token: Secret) -> tuple[str, str]:
        """Begin a session with the token of a key that has ``admin``.

        Returns:
            The header field that hands the cookie to the browser.

        Raises:
            AccessDenied: The key is not valid, or does not have the scope.
            Problem: The browser would not keep the cookie.
            StoreError: The key store failed.
        """
        _check_transport(call)
        decision = await self._guard.decide(
            [f"Bearer {token.reveal()}"], secure=call.client.secure, address=call.client.address
        )
        if not isinstance(decision, Allow):
            raise AccessDenied(decision)
        principal = decision.principal
        if ADMIN not in principal.grant:
            denied = Deny(
                Reason.SCOPE_MISSING, principal.key_id, principal.organization, scopes=(ADMIN,)
            )
            self._guard.report(denied, address=call.client.address, request=call.request)
            raise AccessDenied(denied)
        return await self._begin(call, {"key": principal.key_id})

    async def follow(self, call: Call, code: str) -> tuple[str, str]:
        """Begin the session that a link is for; each link begins one.

        Returns:
            The header field that hands the cookie to the browser.

        Raises:
            Problem: The link was used or has expired, or the browser would not keep the cookie.
            StoreError: The key store failed.
        """
        _check_transport(call)
        taken = None
        if _DRAWN.match(code):
            taken = await self._guard.management.temporary.take(_LINK, _digest(code))
        if taken is None:
            raise Problem(
                404,
                "This link was used or has expired. Ask for a new one.",
                title="This link no longer works",
            )
        return await self._begin(call, json.loads(taken.value))

    async def sign_out(self, call: Call) -> tuple[str, str]:
        """End the session of a call, and return the header field that removes the cookie.

        Raises:
            StoreError: The key store failed.
        """
        await self._end(call)
        return cookie_field(COOKIE, "", timedelta(0))

    async def make_link(self, who: Person | str) -> str:
        """Return the code of a link that signs in once, within five minutes.

        Args:
            who: A person, or the id of a key.

        Raises:
            StoreError: The key store failed.
        """
        if isinstance(who, Person):
            fields = {"id": who.id, "name": who.name, "operator": who.operator}
            value = {"person": json.dumps(fields | {"roles": dict(who.roles)})}
        else:
            value = {"key": who}
        code = secrets.token_urlsafe(32)
        await self._put(_LINK, code, value, LINK_LIFETIME)
        return code

    async def _begin(self, call: Call, who: dict[str, str]) -> tuple[str, str]:
        await self._end(call)  # a browser has one session
        secret = secrets.token_urlsafe(32)
        span = LIFETIME if "key" in who else PERSON_LIFETIME
        await self._put(_SESSION, secret, who | {"at": self._guard.now().isoformat()}, span)
        return cookie_field(COOKIE, secret, span)

    async def _end(self, call: Call) -> None:
        secret = call.request.cookies.get(COOKIE, "")
        if _DRAWN.match(secret):
            await self._guard.management.temporary.drop(_SESSION, _digest(secret))

    async def _put(self, kind: str, secret: str, value: dict[str, str], span: timedelta) -> None:
        record = Temporary(kind, _digest(secret), json.dumps(value), self._guard.now() + span)
        await self._guard.management.temporary.put(record)

    async def _administrator(self, key_id: str, address: str | None) -> Principal | None:
        decision = await self._guard.management.decide_by_id(key_id, address=address)
        if isinstance(decision, Allow) and ADMIN in decision.principal.grant:
            return decision.principal
        return None


def cookie_field(name: str, value: str, span: timedelta) -> tuple[str, str]:
    """Return the header field that sets a cookie, which no script and no other host can read."""
    seconds = int(span.total_seconds())
    return (
        "Set-Cookie",
        f"{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; Secure; SameSite=Lax",
    )


def _check_transport(call: Call) -> None:
    """Refuse to sign in where a browser would drop the cookie."""
    if not call.client.secure and not _LOOPBACK.match(call.request.host):
        raise Problem(
            400, "Signing in needs HTTPS, or the address http://localhost on your own machine."
        )


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
