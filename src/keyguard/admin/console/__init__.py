"""The console: server-rendered pages under the mount, and the API below them.

A page is an endpoint with ``media_types=HTML``; :data:`PAGES` joins them, as the API joins its own.
"""

from __future__ import annotations

from dataclasses import replace

from keyguard.admin.api import ENDPOINTS
from keyguard.admin.application import Application
from keyguard.admin.callers import Callers
from keyguard.admin.endpoints import Endpoint
from keyguard.guard import AsyncKeyguard, Keyguard

API = "/api/v1"
"""Where the API is below the console's mount."""

PAGES: tuple[Endpoint, ...] = ()


class ConsoleApplication(Application):
    """Answers calls of pages with pages, and those of the API with JSON.

    Args:
        guard: The guard whose keys are managed.
        callers: Finds who calls.
    """

    def __init__(self, guard: Keyguard | AsyncKeyguard, callers: Callers) -> None:
        api = (replace(endpoint, path=API + endpoint.path) for endpoint in ENDPOINTS)
        super().__init__(guard, (*PAGES, *api), callers)
