"""The fields of the settings, and the parts of a guard that are built of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from keyguard.core.access.policy import Policy
from keyguard.core.identity.scopes import ScopeCatalogue
from keyguard.core.limits.limit import Limit, Limits, read_failure_limit, read_limits
from keyguard.core.limits.plans import read_plans
from keyguard.core.tokens.foreign import read_formats
from keyguard.core.tokens.format import TokenFormat
from keyguard.core.tokens.secret import Secret
from keyguard.core.values import Value
from keyguard.runtime.deadlines import Patience
from keyguard.settings.hashing import TokenHasher, read_peppers

if TYPE_CHECKING:  # only HTTP needs these
    from keyguard.core.access.answers import Responder
    from keyguard.core.access.carriers import Carriers
    from keyguard.core.http.principal_fields import PrincipalFields
    from keyguard.core.http.rule_book import RuleBook
    from keyguard.core.http.rules import Rule
    from keyguard.core.http.trusted_proxies import TrustedProxies
    from keyguard.core.http.websocket_token import TokenProtocol
    from keyguard.core.management.request_terms import ApprovalRule, RequestTerms
    from keyguard.core.usage.tags import UsageTags

BUCKETS = {"15m": 900, "1h": 3600}
"""The seconds of each ``usage_bucket``."""

_CENTURY = 3_153_600_000


@dataclass(frozen=True, init=False, kw_only=True, eq=False, repr=False)
class Fields(Value):
    """What a service decides about its keys.

    Args:
        realm: The protection space that challenges name (RFC 9110, section 11.5).
        prefix: The start of every token, such as ``aiaas_live``.
        catalogue: The scopes that the service knows, as a :class:`ScopeCatalogue` or a mapping of
            name to description; None allows any scope.
        public: Exact paths that need no key. All other paths need one.
        rules: What requests need by path and method, see :class:`~keyguard.Rule`.
        any_spelling: Let a rule that is not public cover its paths in any case, and with a format
            suffix (``/users.json``) as well, for routers that serve these.
        peppers: The pepper ring, newest first, each at least 32 random bytes.
        hasher: ``"hmac-sha256"``, ``"sha256"`` or ``"argon2id"``. None means ``"hmac-sha256"`` if
            there is a pepper, otherwise ``"sha256"``.
        require_https: Refuse keys that come over plain HTTP.
        revoke_exposed: Revoke a key that came over plain HTTP; needs ``require_https``.
        trusted_proxies: The networks, in CIDR notation, of the proxies whose ``Forwarded`` or
            ``X-Forwarded-For`` and ``X-Forwarded-Proto`` fields count; ``"unix"`` for a peer
            without an address, as behind a UNIX socket. They must set or remove all of these
            fields.
        principal_headers: Header fields that pass the principal to the application, such as
            ``{"X-Key-Id": "key_id", "X-Scopes": "scopes"}``; ``family`` and ``organization`` are
            the other values. keyguard drops fields of these names that a client sends.
        carriers: Where a request may carry its key; one request uses one carrier: ``"bearer"``,
            ``"basic"``, ``"scheme:Api-Key"``, ``"header:X-API-Key"``; see :doc:`carriers`.
        strip_credentials: Remove the fields that carry keys before the application sees a request
            with a key.
        close_on_revoke: Close a WebSocket within ``max_staleness`` once its key no longer works.
        websocket_protocol: Read the key of a WebSocket from the subprotocol
            ``<websocket_protocol>.<key>`` as well, for browsers; such as ``"keyguard.bearer"``.
        max_staleness: The most seconds until this process knows of a revocation in another
            process. From 0 to 3,600.
        cache_size: How many verified tokens a process remembers. From 0 to 10,000,000.
        read_url: The URL of a read replica that answers look-ups of requests; see
            :doc:`key stores <stores>`.
        record_addresses: Store the client's address with the time when a key was last used. Every
            request then takes a little longer.
        store_timeout: The most seconds that one store call of a request takes. From 0.001 to 60.
        management_timeout: The most seconds that one store call of a management operation takes.
            From 0.001 to 3,600.
        connect_timeout: The most seconds that opening a connection to a store's server takes.
            Requests do not wait for that longer than for a store call. From 0.1 to 60.
        connection_max_age: Seconds within which a connection to a store's server is replaced by a
            new one. From 1 to 86,400.
        durable_replicas: How many replicas of a key store in Redis must have a change before the
            call returns. If too few have it in time, the call raises
            :class:`~keyguard.NotDurableError`. From 0 to 10.
        hash_workers: How many slow hashes run at once. From 1 to 64.
        hash_timeout: The most seconds that a slow hash takes on a thread, for code on an event
            loop. Its wait for a thread counts against ``store_timeout``. From 0.01 to 60.
        default_limits: The limits of every key, as :class:`~keyguard.Limit` or rates such as
            ``"100/minute"``; a limit of the same name of its organization, or of the key, replaces
            one.
        plans: The plans that organizations may have. Each gives rates to limits by their names, the
            default ones and those of routes: ``{"pro": {"key-minute": "1000/minute"}}``; see
            :doc:`limits`.
        failure_limit: How many failed authentications a client's address may have (an IPv6 client
            is its /64). keyguard answers further requests with 429 before it looks anything up.
            None for any number.
        limiter_timeout: The most seconds that the store of the counters takes for one request.
            From 0.001 to 60.
        on_limiter_error: What happens while the store of the counters fails: ``"open"`` counts
            requests in this process, ``"closed"`` refuses requests with limits with 503.
        limiter_processes: How many processes serve the application. While the store of the counters
            fails, each counts for itself and admits its part of a limit: the limit divided by this
            number, and at least 1. From 1 to 10,000.
        legacy_headers: Send ``X-RateLimit-Limit``, ``-Remaining`` and ``-Reset`` as well.
        usage: Count who used what, if the key store keeps usage; see :doc:`usage`.
        usage_bucket: The shortest period for which usage is kept: ``"15m"``, or ``"1h"`` for a
            quarter of the rows. Then days are exact only in zones that differ from UTC by whole
            hours.
        usage_tags: The tags that group requests in reports of usage.
        requesters: Who may ask for keys: ``"anyone"``, ``"people"`` but no keys, or ``"nobody"``;
            see :doc:`requests`.
        request_lifetime: Seconds after which a request for a key expires unless it is decided. From
            60 to 31,536,000.
        claim_lifetime: Seconds after which an approved request lapses unless its key is claimed.
            From 60 to 31,536,000.
        approvals: How many approvers a key with a scope needs, such as ``{"admin": 2}``. Scopes
            that are not named need one.
        approval_rules: Rules that approve requests by themselves, see
            :class:`~keyguard.ApprovalRule`.
        keep_ended_keys: Seconds for which a key that has ended is kept, until ``keyguard purge`` or
            ``keys.delete_ended`` deletes it; None to keep them all. See :doc:`retention
            <how-to/retention>`. At least ``request_lifetime`` and twice ``claim_lifetime``
            together, which is 1,123,200 by default. From 86,400 to 3,153,600,000.
        keep_audit: Seconds for which an entry of the audit trail is kept, until ``keyguard purge``
            or ``audit.delete`` deletes it; None to keep them all. At least ``request_lifetime`` and
            twice ``claim_lifetime`` together. From 2,592,000 to 3,153,600,000.
        imported_formats: The formats of imported tokens, in the order in which keyguard tries
            them: ``"token"`` (any), ``"drf"``, ``"sanctum"``, ``"seam"`` and ``"prefix:N"``; see
            :doc:`importing keys <import>`.

    Raises:
        InvalidValueError: A value has the wrong type, form or range.
        ConfigurationError: Two values contradict each other.
    """

    realm: str = "api"
    prefix: str = "kg_live"
    catalogue: ScopeCatalogue | Mapping[str, str] | None = None
    public: Iterable[str] = ()
    rules: Iterable[Rule] = ()
    any_spelling: bool = False
    peppers: Iterable[Secret | str] = ()
    hasher: str | None = None
    require_https: bool = False
    revoke_exposed: bool = False
    trusted_proxies: Iterable[str] = ()
    principal_headers: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    carriers: Iterable[str] = ("bearer",)
    strip_credentials: bool = False
    close_on_revoke: bool = False
    websocket_protocol: str | None = None
    max_staleness: float = field(default=5.0, metadata={"range": (0, 3600, "seconds")})
    cache_size: int = field(default=10_000, metadata={"range": (0, 10_000_000, "tokens")})
    read_url: str | None = field(default=None, repr=False)  # which may hold a password
    record_addresses: bool = False
    store_timeout: float = field(default=0.25, metadata={"range": (0.001, 60, "seconds")})
    management_timeout: float = field(default=10.0, metadata={"range": (0.001, 3600, "seconds")})
    connect_timeout: float = field(default=10.0, metadata={"range": (0.1, 60, "seconds")})
    connection_max_age: float = field(default=300.0, metadata={"range": (1, 86_400, "seconds")})
    durable_replicas: int = field(default=0, metadata={"range": (0, 10, "replicas")})
    hash_workers: int = field(
        default=min(4, os.cpu_count() or 1), metadata={"range": (1, 64, "threads")}
    )
    hash_timeout: float = field(default=2.0, metadata={"range": (0.01, 60, "seconds")})
    default_limits: Limits = ()
    plans: Mapping[str, Mapping[str, str]] = field(
        default_factory=dict[str, Mapping[str, str]], hash=False
    )
    failure_limit: Limit | str | None = "30/minute"
    limiter_timeout: float = field(default=0.04, metadata={"range": (0.001, 60, "seconds")})
    on_limiter_error: str = "open"
    limiter_processes: int = field(default=1, metadata={"range": (1, 10_000, "processes")})
    legacy_headers: bool = False
    usage: bool = True
    usage_bucket: str = "15m"
    usage_tags: UsageTags | None = None
    requesters: str = "anyone"
    request_lifetime: float = field(
        default=604_800.0, metadata={"range": (60, 31_536_000, "seconds")}
    )
    claim_lifetime: float = field(
        default=259_200.0, metadata={"range": (60, 31_536_000, "seconds")}
    )
    approvals: Mapping[str, int] = field(default_factory=dict[str, int], hash=False)
    approval_rules: Iterable[ApprovalRule] = ()
    keep_ended_keys: float | None = field(
        default=None, metadata={"range": (86_400, _CENTURY, "seconds")}
    )
    keep_audit: float | None = field(
        default=None, metadata={"range": (2_592_000, _CENTURY, "seconds")}
    )
    imported_formats: Iterable[str] = ()

    @property
    def bucket(self) -> int:
        """The shortest period for which usage is kept, in seconds."""
        return BUCKETS[self.usage_bucket]

    @property
    def patience(self) -> Patience:
        """How long connecting to a server may take, and how long its connections last."""
        return Patience(self.connect_timeout, self.connection_max_age)

    # The parts of a guard that follow from its settings. Each is built once, at its first use.

    @cached_property
    def policy(self) -> Policy:
        """The settings that decisions need."""
        catalogue = self.catalogue
        if not isinstance(catalogue, ScopeCatalogue | None):
            catalogue = ScopeCatalogue(catalogue)
        return Policy(
            failure_limit=read_failure_limit(self.failure_limit),
            default_limits=read_limits(self.default_limits, "key"),
            plans=read_plans(self.plans) if self.plans != {} else {},
            tokens=TokenFormat(self.prefix),
            catalogue=catalogue,
            require_https=self.require_https,
            revoke_exposed=self.revoke_exposed,
            foreign=read_formats(self.imported_formats),
        )

    @cached_property
    def _rule_book(self) -> RuleBook:
        return self._book_of(self.rules, self.public)

    def rule_book(
        self, *, public: Iterable[str] | None = None, rules: Iterable[Rule] | None = None
    ) -> RuleBook:
        """Return the rule book, which finds what a request needs.

        Args:
            public: Paths that replace those of the settings.
            rules: Rules that replace those of the settings.

        Raises:
            InvalidValueError: A path or rule is malformed, two rules conflict, or a rule names an
                unknown scope.
        """
        if public is None and rules is None:
            return self._rule_book
        return self._book_of(
            self.rules if rules is None else rules, self.public if public is None else public
        )

    def _book_of(self, rules: Iterable[Rule], public: Iterable[str]) -> RuleBook:
        from keyguard.core.http.rule_book import RuleBook

        return RuleBook(rules, public, self.policy.catalogue, any_spelling=self.any_spelling)

    @cached_property
    def token_hasher(self) -> TokenHasher:
        """The hasher of tokens."""
        return TokenHasher(self.hasher, read_peppers(self.peppers), self.policy.foreign)

    @cached_property
    def responder(self) -> Responder:
        """The writer of answers to refused requests."""
        from keyguard.core.access.answers import Responder

        return Responder(self.realm, self.key_carriers, legacy_headers=self.legacy_headers)

    @cached_property
    def key_carriers(self) -> Carriers | None:
        """Where keys may be; None for ``Authorization: Bearer`` alone."""
        if self.carriers == ("bearer",):
            return None
        from keyguard.core.access.carriers import Carriers

        return Carriers(self.carriers)

    @cached_property
    def request_terms(self) -> RequestTerms:
        """The settings about requests for keys."""
        from keyguard.core.management.request_terms import RequestTerms

        return RequestTerms(
            requesters=self.requesters,
            pending_for=timedelta(seconds=self.request_lifetime),
            claimable_for=timedelta(seconds=self.claim_lifetime),
            approvals=self.approvals,
            rules=self.approval_rules,
        )

    @cached_property
    def principal_fields(self) -> PrincipalFields:
        """The fields that pass the principal to an application behind another server."""
        from keyguard.core.http.principal_fields import PrincipalFields

        return PrincipalFields(self.principal_headers)

    @cached_property
    def token_protocol(self) -> TokenProtocol | None:
        """The subprotocol that carries keys, or None."""
        from keyguard.core.http.websocket_token import TokenProtocol

        return None if self.websocket_protocol is None else TokenProtocol(self.websocket_protocol)

    @cached_property
    def proxies(self) -> TrustedProxies:
        """The trusted proxies."""
        from keyguard.core.http.trusted_proxies import TrustedProxies

        return TrustedProxies(self.trusted_proxies)
