"""A token that is passed by mistake, as whatever argument, is not repeated in the error."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from keyguard import (
    AsyncKeyguard,
    Keyguard,
    Limit,
    Rule,
    ScopeCatalogue,
    Settings,
    current_limits,
    rate_limit,
    require_organization,
    require_scopes,
)
from keyguard.adapters import asgi, wsgi
from keyguard.adapters.flask import FlaskKeyguard
from keyguard.core.tokens.format import TokenFormat, TokenParts
from tests.world import World

OWN = TokenFormat("aiaas_live").mint(TokenParts.draw(bytes(range(48)))).reveal()
OTHER = "sk-proj-Zq7mLw2VtX9rKb4NcYs8HdPf3GjRa6TeUi5oQy1BkW0nEuAxDvMhJpCs"
SHORTEST_LEAK = 24  # characters of a token; its prefix and its id may show


def forms_of(token: str) -> Iterator[object]:
    """Give the forms in which a token may be passed."""
    yield from (token, [token], {token: "words"}, {"name": token}, {"realm": token}, token.encode())


def leaks(text: str, token: str) -> bool:
    """Tell whether a text holds a part of a token beyond its id."""
    secret = token[len("aiaas_live_") + 17 :] if token == OWN else token
    parts = (secret[n : n + SHORTEST_LEAK] for n in range(len(secret) - SHORTEST_LEAK + 1))
    return any(part in text for part in parts)


def said_by(failure: BaseException) -> str:
    """Return the messages that a traceback shows: of an error and of what it comes of."""
    found: list[str] = []
    pending: list[BaseException | None] = [failure]
    while pending:
        problem = pending.pop()
        if problem is not None and not found.count(str(problem)):
            found.append(str(problem))
            is_hidden = problem.__suppress_context__  # by "from None"
            pending += [problem.__cause__, None if is_hidden else problem.__context__]
    return "\n".join(found)


def words_of(function: Callable[..., Any], *positional: object, **named: object) -> str:
    """Return what the error of a call says; nothing if it takes the arguments."""
    try:
        function(*positional, **named)
    except Exception as failure:  # noqa: BLE001 - whatever it is, it shows nothing
        return said_by(failure)
    return ""


async def asgi_app(scope: Any, receive: Any, send: Any) -> None: ...


def wsgi_app(environ: Any, start_response: Any) -> Any: ...


def calls(world: World) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Return the public functions, each with arguments that it takes."""
    issued = world.issue("inference:read")
    key, guard = {"key_id": issued.key.id}, world.guard
    keys, organizations = guard.keys, guard.organizations
    acme: dict[str, Any] = {"organization": "acme"}
    return {
        "Settings": (Settings, {}),
        "Settings.from_env": (Settings.from_env, {"environ": {}, "realm": "x"}),
        "Settings.from_file": (Settings.from_file, {"path": "none", "environ": {}}),
        "Keyguard": (Keyguard, {"store": "memory://"}),
        "AsyncKeyguard": (AsyncKeyguard, {"store": "memory://"}),
        "Rule": (Rule, {"path": "/a"}),
        "Limit": (Limit, {"name": "a", "rate": "1/minute"}),
        "ScopeCatalogue": (ScopeCatalogue, {"scopes": {"a:b": ""}}),
        "require_scopes": (require_scopes, {}),
        "rate_limit": (rate_limit, {"rate": "1/minute"}),
        "require_organization": (require_organization, acme),
        "current_limits": (current_limits, {}),
        "asgi": (asgi.KeyguardMiddleware, {"app": asgi_app, "guard": world.async_guard}),
        "wsgi": (wsgi.KeyguardMiddleware, {"app": wsgi_app, "guard": guard}),
        "flask": (FlaskKeyguard, {"app": None, "guard": guard}),
        "authenticate": (guard.authenticate, {"fields": []}),
        "keys.issue": (keys.issue, {**acme, "name": "test"}),
        "keys.get": (keys.get, key),
        "keys.limits": (keys.limits, key),
        "keys.list": (keys.list, {}),
        "keys.update": (keys.update, {**key, "name": "test"}),
        "keys.rotate": (keys.rotate, {**key, "grace": timedelta(hours=1)}),
        "keys.revoke": (keys.revoke, key),
        "keys.revoke_family": (keys.revoke_family, key),
        "keys.import_tokens": (keys.import_tokens, {"rows": []}),
        "organizations.create": (organizations.create, {"slug": "third"}),
        "organizations.get": (organizations.get, {"name": "acme"}),
        "organizations.list": (organizations.list, {}),
        "organizations.update": (organizations.update, {"organization_id": "acme"}),
        "organizations.disable": (organizations.disable, {"organization_id": "acme"}),
        "organizations.enable": (organizations.enable, {"organization_id": "acme"}),
        "audit.list": (guard.audit.list, {}),
    }


@pytest.mark.parametrize("token", [OWN, OTHER], ids=["own", "other"])
@pytest.mark.parametrize("name", calls(World()))
def test_no_public_function_repeats_a_token(name: str, token: str) -> None:
    function, given = calls(World())[name]
    parameters = inspect.signature(function).parameters.values()
    names = [each.name for each in parameters if each.kind is not each.VAR_POSITIONAL]
    for parameter in [*names, "typo"]:
        for form in forms_of(token):
            function, given = calls(World())[name]
            signature = inspect.signature(function)
            values = {**given, parameter: form}
            first = [
                values.pop(each.name)
                for each in signature.parameters.values()
                if each.kind is each.POSITIONAL_ONLY and each.name in values
            ]
            words = words_of(function, *first, **values)
            assert not leaks(words, token), (parameter, form)


@pytest.mark.parametrize("token", [OWN, OTHER], ids=["own", "other"])
def test_no_variable_s_value_is_repeated(token: str) -> None:
    for setting in Settings.__dataclass_fields__:
        for variable in (
            f"KEYGUARD_{setting.upper()}",
            "KEYGUARD_PEPPER_FILE",
            "KEYGUARD_CONFIG",
        ):
            assert not leaks(words_of(Settings.from_env, {variable: token}), token), variable
