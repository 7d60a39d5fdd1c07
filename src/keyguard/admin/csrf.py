"""Forged calls: what a browser sends along without the person's wish changes nothing.

A call that a cookie vouches for must come from a page of the same origin, as the browser says
itself. A form of the console carries a token besides, which fits one person, one browser and one
action.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from hashlib import sha256
from typing import TYPE_CHECKING

from itsdangerous import Signer

from keyguard.admin.exchange import Call, Problem
from keyguard.admin.sessions import LIFETIME, cookie_field
from keyguard.core.keys.audit import actor_name
from keyguard.exceptions import ConfigurationError, shown

if TYPE_CHECKING:
    from keyguard.admin.context import Context

COOKIE = "__Host-keyguard-form"
_HOST = re.compile(r"[0-9a-z._-]+\Z|\[[0-9a-f:.]+\]\Z")
_PORT = re.compile(r":[0-9]*\Z")


def check_origin(call: Call) -> None:
    """Refuse a call that may change something and does not come from a page of the same origin.

    Raises:
        Problem: It does not, or the browser does not say.
    """
    if call.is_safe:
        return
    headers, host = call.request.headers, call.request.host
    site = headers.get("Sec-Fetch-Site")
    if site is None:
        origin = f"{call.request.scheme}://{host}"
        trusted = bool(host) and headers.get("Origin") == origin
    else:
        trusted = site == "same-origin"
    if not trusted:
        raise Problem(403, "This was sent from another site, or by a browser that does not say.")


def host_names(names: Iterable[str]) -> frozenset[str]:
    """Return the names of hosts that are allowed.

    Raises:
        ConfigurationError: They are a single text, or one of them is no name without a port.
    """
    if isinstance(names, str):
        raise ConfigurationError("allowed_hosts takes several names, as a list")
    found = frozenset(str(name).lower() for name in names)
    for name in found:
        if not _HOST.match(name):
            raise ConfigurationError(
                f"allowed_hosts takes names without scheme and port, such as keys.example.com, "
                f"not {shown(name)}"
            )
    return found


def check_host(call: Call, allowed: frozenset[str] | None) -> None:
    """Refuse a call to a name of the host that is not one's own (DNS rebinding).

    Args:
        call: The call.
        allowed: The names in lower case, without ports; None for any.

    Raises:
        Problem: It is another, with the status of RFC 9110, section 15.5.20.
    """
    name = _PORT.sub("", call.request.headers.get("Host", "")).lower()
    if allowed is not None and name not in allowed:
        raise Problem(421, "The console does not answer to this name. See its allowed_hosts.")


def form_token(context: Context, action: str) -> str:
    """Return the token that a form carries; the answer gives the browser what it is checked by.

    Args:
        context: The call that shows the form.
        action: The path that takes it.
    """
    secret = _secret(context)
    if not secret:
        secret = secrets.token_urlsafe(32)
        context.form_secret = secret
        context.fields.append(cookie_field(COOKIE, secret, LIFETIME))
    return _signer(secret, action).get_signature(_who(context)).decode()


def check_form(context: Context, action: str, token: str) -> None:
    """Refuse a form whose token is not of this person, this browser and this action.

    Args:
        context: The call that brought it.
        action: The path that takes it.
        token: The token.

    Raises:
        Problem: It is not.
    """
    secret = _secret(context)
    if not secret or not _signer(secret, action).verify_signature(_who(context), token):
        raise Problem(403, "The form is too old, or was not made here. Load the page again.")


def _secret(context: Context) -> str:
    """Return what only this browser holds."""
    if context.session is not None:
        return context.session.secret
    return context.form_secret or context.call.request.cookies.get(COOKIE, "")


def _who(context: Context) -> str:
    return "" if context.known is None else actor_name(context.known)


def _signer(secret: str, action: str) -> Signer:
    return Signer(
        secret, salt=f"keyguard form {action}", key_derivation="hmac", digest_method=sha256
    )
