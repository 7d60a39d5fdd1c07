"""The fields of ``Settings`` as keyword arguments, so that a type checker knows their names.

The class in :mod:`keyguard.settings.config` declares each; a test holds this list to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypedDict

from keyguard.core.http.rules import Rule
from keyguard.core.identity.scopes import ScopeCatalogue
from keyguard.core.limits.limit import Limit, Limits
from keyguard.core.management.request_terms import ApprovalRule
from keyguard.core.tokens.secret import Secret
from keyguard.core.usage.tags import UsageTags


class Options(TypedDict, total=False):
    """Settings by their names, each of which may be left out."""

    realm: str
    prefix: str
    catalogue: ScopeCatalogue | Mapping[str, str] | None
    public: Iterable[str]
    rules: Iterable[Rule]
    any_spelling: bool
    peppers: Iterable[Secret | str]
    hasher: str | None
    require_https: bool
    revoke_exposed: bool
    trusted_proxies: Iterable[str]
    principal_headers: Mapping[str, str]
    carriers: Iterable[str]
    strip_credentials: bool
    close_on_revoke: bool
    websocket_protocol: str | None
    max_staleness: float
    cache_size: int
    read_url: str | None
    record_addresses: bool
    store_timeout: float
    management_timeout: float
    connect_timeout: float
    connection_max_age: float
    durable_replicas: int
    hash_workers: int
    hash_timeout: float
    default_limits: Limits
    plans: Mapping[str, Mapping[str, str]]
    failure_limit: Limit | str | None
    limiter_timeout: float
    on_limiter_error: str
    limiter_processes: int
    legacy_headers: bool
    usage: bool
    usage_bucket: str
    usage_tags: UsageTags | None
    requesters: str
    request_lifetime: float
    claim_lifetime: float
    approvals: Mapping[str, int]
    approval_rules: Iterable[ApprovalRule]
    keep_ended_keys: float | None
    keep_audit: float | None
    imported_formats: Iterable[str]
