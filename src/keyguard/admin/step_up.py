"""Step-up: a critical action needs a person who has just signed in."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from keyguard.admin.exchange import Problem
from keyguard.core.identity.scopes import parse_granted
from keyguard.core.keys.requests import KeyRequest
from keyguard.exceptions import InvalidValueError, NotFoundError

if TYPE_CHECKING:
    from keyguard.admin.context import Context

RECENT = timedelta(minutes=10)


class StaleSignIn(Problem):
    """The person must sign in again.

    Args:
        url: Where; a page of the host application, or the console's own; None where neither has a
            page, as for a person who came by a link.
    """

    def __init__(self, url: str | None) -> None:
        super().__init__(
            403, "This needs a sign-in within the last ten minutes. Sign in again, then repeat it."
        )
        if url is not None:
            self.members["reauthenticate"] = url
        self.url = url


def sign_in_link(url: str, page: str) -> str:
    """Return the address of a sign-in that leads on to a page.

    Args:
        url: Where people sign in.
        page: The path of the page, from the root of the site on.
    """
    return f"{url}{'&' if '?' in url else '?'}{urlencode({'next': page})}"


async def check_step_up(context: Context) -> None:
    """Refuse a critical call of a person or a session that signed in too long ago.

    A call with a key needs no sign-in, because it carries the key.

    Raises:
        StaleSignIn: The sign-in is older than ten minutes, or it is not known when it was.
        AccessDenied: The caller may not make the call at all.
        Problem: The caller may do other things there, but not this.
    """
    endpoint = context.endpoint
    reaches_far = endpoint.reaches_far
    if reaches_far is None or not _is_stale(context) or not await reaches_far(context):
        return
    url = context.reauthenticate
    if url is not None and endpoint.page:
        page = endpoint.page.format_map(context.parameters)
        url = sign_in_link(url, f"{context.call.request.root_path}{page}")
    raise StaleSignIn(url)


def _is_stale(context: Context) -> bool:
    at: datetime | None
    if context.session is not None:
        at = context.session.began_at
    elif context.person is not None:
        at = context.person.authenticated_at
    else:
        return False
    return at is None or abs(context.now - at) > RECENT


async def disables(context: Context) -> bool:
    """Return True: disabling an organization always needs a recent sign-in."""
    await context.organization()
    return True


def grants_admin(context: Context, scopes: Iterable[str]) -> bool:
    """Return whether ``admin`` is granted.

    Args:
        context: The call.
        scopes: What is granted, and what the key has that is changed or rotated: it would pass to
            another holder, last longer, or get a new token.
    """
    try:
        return "admin" in context.guard.policy.grant(parse_granted(scopes))
    except InvalidValueError:
        return False  # the guard grants no malformed scope


async def rotates_admin(context: Context) -> bool:
    """Return whether the key of the path, which would get a new token, has ``admin``."""
    return grants_admin(context, (await context.key()).scopes)


async def claims_admin(context: Context, request: KeyRequest) -> bool:
    """Return whether the key of a request has ``admin``.

    Args:
        context: The call.
        request: The request. Its key, if it was claimed, is made anew with what it has now.
    """
    scopes = {*(request.granted or request.asked).scopes}
    if request.key is not None:
        with suppress(NotFoundError):
            scopes |= (await context.management.keys.get(request.key)).scopes
    return grants_admin(context, scopes)
