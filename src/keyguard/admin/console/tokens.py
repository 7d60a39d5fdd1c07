"""The page that shows a token, once."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from hashlib import sha256

from keyguard.admin.console.page import View
from keyguard.admin.exchange import Answer
from keyguard.core.keys.records import Key
from keyguard.core.keys.results import IssuedKey
from keyguard.core.keys.temporary import Temporary
from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import InvalidValueError, RefusedError

_LOST = (
    "The token was shown once, right after the key was made. If you did not store it, rotate the "
    "key: that makes a new token, and the old one ends."
)
_REPEATED = timedelta(days=1)

CLEARED = ("Clear-Site-Data", '"cache"')
"""Makes a browser forget the page that it would go back to."""


async def made_once(
    view: View,
    once: str,
    make: Callable[[], Awaitable[IssuedKey]],
    *,
    version: int | None = None,
) -> IssuedKey | None:
    """Make the key that a form asks for; None if the form made it before, as on a reload.

    A form that was refused can be sent again.

    Args:
        view: The page.
        once: A mark by which a second sending of the same form is recognized.
        make: Makes the key.
        version: The version of the record that this changes, if there is one: while it has that
            version, nothing was made.
    """
    temporary, text = view.context.management.temporary, str(version or "")
    digest = sha256(f"{view.context.call.request.path} {once}".encode()).hexdigest()
    record = Temporary("form", digest, text, view.now + _REPEATED)
    if not await temporary.put(record):
        before = await temporary.find(record.kind, digest)
        if version is None or before is None or before.value != text:
            return None
    try:
        return await make()
    except (InvalidValueError, RefusedError):
        if version is None:
            await temporary.drop(record.kind, digest)
        raise


def show_token(
    view: View,
    token: Secret | None,
    key: Key | None = None,
    *,
    back: str = "",
    back_text: str = "Go to the key",
    lost: str = _LOST,
) -> Answer:
    """Show the token of a new key; None if it was shown already.

    Args:
        view: The page.
        token: The token.
        key: The key, where it is known.
        back: The path to go on to; by default that of the key.
        back_text: What leads there.
        lost: What to do if the token was not stored.
    """
    path = back if key is None else f"/keys/{key.id}"
    lines: list[tuple[str, str]] = []
    text = None if token is None else token.reveal()
    if text is not None:
        realm = view.context.guard.settings.realm
        name = re.sub(r"[^A-Z0-9]+", "_", realm.upper()).strip("_") or "API"
        lines = [
            ("For curl", f"curl -H 'Authorization: Bearer {text}' https://…"),
            ("For a .env file", f"{name}_KEY={text}"),
        ]
    return view.show(
        "token.html",
        "Your new key" if text else "No token to show",
        section="Keys",
        status=200 if text else 410,
        token_text=text,
        lines=lines,
        stored=f"{path}/stored",
        lost=lost,
        back=path,
        back_text=back_text,
    )
