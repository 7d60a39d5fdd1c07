"""A WSGI application with metrics, whose guard is made before its server forks."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from keyguard import Keyguard
from keyguard.adapters.wsgi import KeyguardMiddleware
from keyguard.telemetry.prometheus import instrument

guard = Keyguard(os.environ["KEYGUARD_URL"], failure_limit=None, store_timeout=60.0)
instrument(guard)
guard.authenticate(["Bearer before the fork"])  # which is counted once, and in no worker


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]


app = KeyguardMiddleware(application, guard=guard)
