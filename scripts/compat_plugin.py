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


def _guard_httpbin() -> None:
    from flask import Flask

    from keyguard import Settings
    from keyguard.adapters.wsgi import KeyguardMiddleware
    from keyguard.testing import MemoryGuards

    path = Path(__file__).parent / "compat_apps" / "httpbin.toml"
    guards = MemoryGuards(settings=Settings.from_file(path))
    token = guards.issue(scopes=["admin"]).token.reveal()

    def guarded(self: Flask, environ: Any, start_response: Any) -> Any:
        environ["HTTP_X_API_KEY"] = token
        return KeyguardMiddleware(self.wsgi_app, guards.guard)(environ, start_response)

    Flask.__call__ = guarded  # type: ignore[method-assign]  # as `keyguard.wsgi` serves it
