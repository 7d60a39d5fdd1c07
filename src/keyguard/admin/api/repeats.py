"""Calls that are repeated: the same ``Idempotency-Key`` does nothing twice."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from hashlib import sha256

from keyguard.admin.context import Context
from keyguard.admin.exchange import Answer, Problem
from keyguard.core.access.decisions import AccessDenied
from keyguard.core.keys.audit import actor_name
from keyguard.core.keys.temporary import Temporary
from keyguard.exceptions import InvalidValueError, NotFoundError, RefusedError, StoreError

LONGEST = 200
KEPT = timedelta(hours=24)
UNDER_WAY = timedelta(minutes=1)
"""How long a call that has not ended may be waited for. Later its answer counts as lost."""

_KIND = "idempotency"
_UNKNOWN = (
    "The first call with this Idempotency-Key is still running, or its answer was lost. If it "
    "stays so, check what it did: list the keys, revoke the one whose token you lack, and send a "
    "new Idempotency-Key."
)


async def once(
    context: Context,
    do: Callable[[], Awaitable[tuple[str, Answer]]],
    repeat: Callable[[Context, str], Awaitable[Answer]],
) -> Answer:
    """Do what a call asks for, unless the same caller has begun it within 24 hours.

    A call whose end nobody noted, such as one that was cancelled, is not done again: it may have
    made a key, whose token nobody can show.

    Args:
        context: The call.
        do: Does it, and returns the id of what was made, and the answer.
        repeat: Returns the answer to a repetition, by that id.

    Raises:
        Problem: The first call is under way, its answer was lost, or it asked for something else.
    """
    name = _name(context)
    if name is None:
        return (await do())[1]
    digest = _digest(*_who(context, name))
    asked = _digest(context.body.decode())
    values, now = context.management.temporary, context.now
    begun = Temporary(_KIND, digest, json.dumps([asked, None]), now + KEPT)
    if not await values.put(begun):
        known = await values.find(_KIND, digest)
        before, made = json.loads(known.value) if known else (asked, None)
        if before != asked:
            raise Problem(422, "This Idempotency-Key was sent with another body.")
        if made is None:
            is_late = known is not None and now >= known.expires_at - KEPT + UNDER_WAY
            raise Problem(409, _UNKNOWN, () if is_late else (("Retry-After", "1"),))
        return await repeat(context, made)
    try:
        made, answer = await do()
    except (AccessDenied, InvalidValueError, NotFoundError, Problem, RefusedError):
        with suppress(StoreError):  # nothing was made
            await values.drop(_KIND, digest)
        raise
    done = Temporary(_KIND, digest, json.dumps([asked, made]), now + KEPT)
    with suppress(StoreError):  # the token is in this answer alone
        await values.replace(done)
    return answer


def name_of(context: Context) -> str | None:
    """Return a name for a call that is the same for each repetition, and for no other call."""
    name = _name(context)
    return None if name is None else _digest(*_who(context, name), context.body.decode())


def _name(context: Context) -> str | None:
    """Return what a call has as its ``Idempotency-Key``."""
    name = context.call.request.headers.get("Idempotency-Key")
    if name is not None and not 1 <= len(name) <= LONGEST:
        raise Problem(422, f"Idempotency-Key takes 1 to {LONGEST} characters.")
    return name


def _who(context: Context, name: str) -> tuple[str, ...]:
    request = context.call.request
    return actor_name(context.known), request.method, request.path, name


def _digest(*parts: str) -> str:
    return sha256(json.dumps(parts).encode()).hexdigest()
