"""The user of Starlette's ``AuthenticationMiddleware``, and of frameworks that do the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keyguard.admin.exchange import Call
from keyguard.core.identity.person import Person


def request_user(person: Callable[[Any], Person | None]) -> Callable[[Call], Person | None]:
    """Return an ``identify`` that asks for ``request.user``, which FastAPI and Litestar have too.

    Args:
        person: Returns the person that a user is, or None. It gets whatever some middleware has
            put there, so it must look at the type: of a request with a key, keyguard's own
            middleware puts the key's user there.
    """

    def identify(call: Call) -> Person | None:
        user = call.host.get("user")
        return None if user is None else person(user)

    return identify
