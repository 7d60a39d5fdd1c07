"""The user whom a proxy in front has signed in."""

from __future__ import annotations

from collections.abc import Callable

from keyguard.admin.exchange import Call
from keyguard.core.identity.person import Person


def remote_user(
    person: Callable[[str], Person | None], *, field: str = "Remote-User"
) -> Callable[[Call], Person | None]:
    """Return an ``identify`` that believes a header field, if one of ``trusted_proxies`` sent it.

    Args:
        person: Returns the person of that name, or None.
        field: The header field. The proxy must remove it from what clients send, in every
            spelling: under WSGI ``Remote_User`` is the same field.
    """

    def identify(call: Call) -> Person | None:
        names = call.request.headers.getlist(field) if call.from_proxy else []
        # Two fields, or two joined to one: a client has added its own.
        return person(names[0]) if len(names) == 1 and "," not in names[0] and names[0] else None

    return identify
