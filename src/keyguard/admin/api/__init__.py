"""The endpoints of the management API: a module for each subject, and all of them joined."""

from __future__ import annotations

from keyguard.admin.api import (
    audit,
    bulk,
    check,
    document,
    keys,
    me,
    organizations,
    requests,
    usage,
)
from keyguard.admin.endpoints import Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (
    *me.ENDPOINTS,
    *organizations.ENDPOINTS,
    *keys.ENDPOINTS,
    *bulk.ENDPOINTS,
    *audit.ENDPOINTS,
    *usage.ENDPOINTS,
    *check.ENDPOINTS,
    *requests.ENDPOINTS,
    *document.ENDPOINTS,
)
