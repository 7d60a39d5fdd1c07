"""The token in a form of the console. It is valid for one person, one browser and one action.

Without it, another site could make a browser send a form that the person did not see.
"""

from __future__ import annotations

import secrets
from hashlib import sha256

from itsdangerous import Signer

from keyguard.admin.context import Context
from keyguard.admin.exchange import Problem
from keyguard.admin.sessions import LIFETIME, cookie_field
from keyguard.core.keys.audit import actor_name

COOKIE = "__Host-keyguard-form"


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
    """Refuse a form whose token is not for this person, this browser and this action.

    Args:
        context: The call that brought it.
        action: The path that takes it.
        token: The token.

    Raises:
        Problem: The token is missing, or is for another person, browser or action.
    """
    secret = _secret(context)
    if not secret or not _signer(secret, action).verify_signature(_who(context), token):
        raise Problem(403, "This form is too old, or comes from another site. Load the page again.")


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
