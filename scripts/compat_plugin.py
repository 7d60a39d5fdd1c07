"""A plugin of pytest: record the outcome of each test, and put keyguard around every application.

``COMPAT_OUTCOMES`` names the file for the outcomes. With ``COMPAT_GUARDED``, the applications of
a framework's tests are wrapped in keyguard's middleware with everything public: a transparent
layer. An application that can't be edited needs a key everywhere, which its test client sends.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

_outcomes: dict[str, str] = {}


def pytest_configure() -> None:
    """Patch the functions that take the tests' applications, before any test module is imported."""
    if os.environ.get("COMPAT_GUARDED"):
        suite = os.environ["COMPAT_SUITE"]
        guards = {
            "starlette": _guard_starlette,
            "flask": _guard_flask,
            "werkzeug": _guard_werkzeug,
            "flaskr": _edited,
            "httpbin": _guard_httpbin,
            "datasette": _guard_datasette,
            "pypiserver": _guard_pypiserver,
        }
        guards[suite]()


def pytest_runtest_logreport(report: Any) -> None:
    """Note the outcome of a test; a failure of its set-up or tear-down counts as well."""
    worse = report.failed or (report.skipped and report.nodeid not in _outcomes)
    if worse or report.when == "call":
        _outcomes[report.nodeid] = report.outcome


def pytest_sessionfinish() -> None:
    """Write the outcomes down."""
    Path(os.environ["COMPAT_OUTCOMES"]).write_text(json.dumps(_outcomes))


def _options() -> dict[str, Any]:
    from keyguard import Rule

    return {"rules": [Rule("/{path:path}", public=True)], "failure_limit": None}


def _guard_starlette() -> None:
    from starlette.testclient import TestClient, _is_asgi3

    from keyguard import AsyncKeyguard
    from keyguard.adapters.asgi import KeyguardMiddleware

    guard = AsyncKeyguard("memory://", **_options())
    init = TestClient.__init__

    def guarded(self: Any, app: Any, *args: Any, **kwargs: Any) -> None:
        init(self, KeyguardMiddleware(app, guard) if _is_asgi3(app) else app, *args, **kwargs)

    TestClient.__init__ = guarded  # type: ignore[method-assign]  # every application must go through it


def _sync_guard() -> Any:
    from keyguard import Keyguard

    return Keyguard("memory://", **_options())


def _guard_flask() -> None:
    from flask import Flask

    from keyguard.adapters.wsgi import KeyguardMiddleware

    guard = _sync_guard()

    def guarded(self: Flask, environ: Any, start_response: Any) -> Any:
        return KeyguardMiddleware(self.wsgi_app, guard)(environ, start_response)

    Flask.__call__ = guarded  # type: ignore[method-assign]  # every application must go through it


def _guard_werkzeug() -> None:
    import werkzeug.test

    from keyguard.adapters.wsgi import KeyguardMiddleware

    guard = _sync_guard()
    run = werkzeug.test.run_wsgi_app

    # Some tests pass an empty environ, which no server does (PEP 3333).
    required = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "http"}

    def guarded(app: Any, environ: Any, *args: Any, **kwargs: Any) -> Any:
        return run(KeyguardMiddleware(app, guard), required | environ, *args, **kwargs)

    werkzeug.test.run_wsgi_app = guarded


def _edited() -> None:
    """Do nothing: the application has keyguard in its own code."""


def _key_everywhere() -> tuple[Any, str]:
    """Return guards with the settings for an application that is not edited, and a token."""
    from keyguard import Settings
    from keyguard.testing import MemoryGuards

    path = Path(__file__).parent / "compat_apps" / "unedited.toml"
    guards = MemoryGuards(settings=Settings.from_file(path))
    return guards, guards.issue(scopes=["admin"]).token.reveal()


def _wsgi_with_key() -> Any:
    """Return a function that guards a WSGI application and calls it with a key."""
    from keyguard.adapters.wsgi import KeyguardMiddleware

    guards, token = _key_everywhere()

    def with_key(app: Any) -> Any:
        def called(environ: Any, start_response: Any) -> Any:
            environ["HTTP_X_API_KEY"] = token
            return KeyguardMiddleware(app, guards.guard)(environ, start_response)

        return called

    return with_key


def _guard_httpbin() -> None:
    from flask import Flask

    with_key = _wsgi_with_key()

    def guarded(self: Flask, environ: Any, start_response: Any) -> Any:
        return with_key(self.wsgi_app)(environ, start_response)

    Flask.__call__ = guarded  # type: ignore[method-assign]  # as `keyguard.wsgi` serves it


def _guard_pypiserver() -> None:
    import webtest.lint

    with_key = _wsgi_with_key()
    checked = webtest.lint.middleware

    # Not in TestApp itself: the tests read attributes of its application.
    def guarded(app: Any, *args: Any) -> Any:
        return checked(with_key(app), *args)

    webtest.lint.middleware = guarded


def _guard_datasette() -> None:
    from datasette.app import Datasette

    from keyguard.adapters.asgi import KeyguardMiddleware

    guards, token = _key_everywhere()
    field = (b"x-api-key", token.encode())
    make = Datasette.app

    def app(self: Any) -> Any:
        guarded = KeyguardMiddleware(make(self), guards.async_guard)

        async def sent(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                scope = {**scope, "headers": [*scope["headers"], field]}
            await guarded(scope, receive, send)

        return sent

    Datasette.app = app
