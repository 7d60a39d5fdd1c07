"""Step-up: what reaches far takes a person who has just proved who it is."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from keyguard.admin.exchange import Problem, settled
from keyguard.core.identity.scopes import parse_granted
from keyguard.core.keys.requests import KeyRequest
from keyguard.exceptions import NotFoundError

if TYPE_CHECKING:
    from keyguard.admin.context import Context

RECENT = timedelta(minutes=10)


class StaleSignIn(Problem):
    """The person must prove again who it is.

    Args:
        url: Where; a page of the host application, or the console's own; None where neither has a
            page, as for a person who came by a link.
    """

    def __init__(self, url: str | None) -> None:
        super().__init__(
            403, "This takes a sign-in of the last ten minutes. Sign in again, then repeat it."
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


def check_recent(context: Context, page: str = "") -> None:
    """Refuse a person or a session whose sign-in is older than ten minutes.

    A call with a key has just shown the key. Ask it before ``admin`` is granted, before what an
    organization may have is raised, and before an organization is disabled.

    Args:
        context: The call.
        page: The path below the mount of the page with the form, to which the sign-in leads back;
            "" for a call that no page sent.

    Raises:
        StaleSignIn: The sign-in is older, or it is not known when it was.
    """
    at: datetime | None
    if context.session is not None:
        at = context.session.began_at
    elif context.person is not None:
        at = context.person.authenticated_at
    else:
        return
    if at is None or abs(context.guard.now() - at) > RECENT:
        request = context.call.request
        url = context.reauthenticate
        if url is not None and page:
            url = sign_in_link(url, f"{request.root_path}{page}")
        raise StaleSignIn(url)


def check_granting(context: Context, scopes: Iterable[str], page: str = "") -> None:
    """Refuse to hand on ``admin`` after a sign-in that is older than ten minutes.

    Args:
        context: The call.
        scopes: What is granted, and what the key has that is changed or rotated: it would pass to
            another holder, last longer, or get a new token.
        page: As :func:`check_recent` takes it.

    Raises:
        StaleSignIn: As :func:`check_recent` says.
        InvalidValueError: A scope is malformed.
    """
    if "admin" in context.guard.policy.grant(parse_granted(scopes)):
        check_recent(context, page)


async def check_claiming(context: Context, request: KeyRequest, page: str = "") -> None:
    """Refuse to make the key of a request, if it has ``admin``, after such an older sign-in.

    Args:
        context: The call.
        request: The request. Its key, if it was claimed, is made anew with what it has now.
        page: As :func:`check_recent` takes it.

    Raises:
        StaleSignIn: As :func:`check_recent` says.
    """
    scopes = {*(request.granted or request.asked).scopes}
    if request.key is not None:
        with suppress(NotFoundError):
            scopes |= (await settled(context.guard.keys.get(request.key))).scopes
    check_granting(context, scopes, page)
