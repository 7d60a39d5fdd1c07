"""The user of Flask-Login."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask
from flask_login import (  # type: ignore[import-untyped]  # it has no types
    current_user,  # pyright: ignore[reportMissingTypeStubs]
)

from keyguard.admin.exchange import Call
from keyguard.core.identity.person import Person


def flask_login_user(
    app: Flask, person: Callable[[Any], Person | None]
) -> Callable[[Call], Person | None]:
    """Return an ``identify`` that asks for the ``current_user`` of Flask-Login.

    Args:
        app: The application that has the login manager.
        person: Returns the person that a user is, or None. Anonymous and inactive users are not
            asked about.
    """

    def identify(call: Call) -> Person | None:
        with app.request_context({**call.host}):
            user: Any = current_user._get_current_object()
            return person(user) if user.is_authenticated and user.is_active else None

    return identify
