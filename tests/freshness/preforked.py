"""A WSGI application whose guard is made, and used, before its server forks."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from keyguard import Keyguard
from keyguard.adapters.wsgi import KeyguardMiddleware

guard = Keyguard(
    os.environ["KEYGUARD_URL"], max_staleness=2.0, store_timeout=30.0, failure_limit=None
)
guard.authenticate([f"Bearer {os.environ['WARM_TOKEN']}"])  # so that its worker thread runs


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]


app = KeyguardMiddleware(application, guard=guard)
