"""``Keyguard``: the guard for sync code."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Self, Unpack, final

from keyguard.core.access.decisions import Decision
from keyguard.core.identity.addresses import Client
from keyguard.guard.base import Guard
from keyguard.guard.sync_ports import SyncPorts
from keyguard.runtime.events import Hook, log_event
from keyguard.runtime.frames import hides_arguments
from keyguard.runtime.lazy import Lazy, once
from keyguard.runtime.process import Clock
from keyguard.runtime.sync import run_sync
from keyguard.settings.config import Settings
from keyguard.stores.base import RateLimiter, Store
from keyguard.stores.opening import open_replica, open_store

# Management, which most processes never ask for: they only check requests.
if TYPE_CHECKING:
    from keyguard.guard import (
        admission,
        audit_trail,
        health,
        keys,
        organizations,
        requests,
        usage,
        verdict,
    )
    from keyguard.guard.verdict import Verdict
    from keyguard.settings.options import Options
else:
    audit_trail = Lazy("keyguard.guard.audit_trail")
    health = Lazy("keyguard.guard.health")
    keys = Lazy("keyguard.guard.keys")
    organizations = Lazy("keyguard.guard.organizations")
    requests = Lazy("keyguard.guard.requests")
    # For services without an adapter.
    admission = Lazy("keyguard.guard.admission")
    verdict = Lazy("keyguard.guard.verdict")
    usage = Lazy("keyguard.guard.usage")


_logger = logging.getLogger("keyguard")


@final
class Keyguard(Guard[SyncPorts], flavour=True):
    """An API-key system for sync code.

    ::

        guard = Keyguard("sqlite:///keys.db", realm="AIaaS", prefix="aiaas_live")
        guard.migrate()

    Nothing is opened, started or read before the first use.

    Args:
        store: Where keys live: a URL (``memory://``, ``sqlite:///``, ``postgresql://``,
            ``mysql://``, ``redis://``), a SQLAlchemy ``Engine``, a Redis client, or a
            :class:`~keyguard.stores.base.Store`.
        limiter: Where counters live: None for the key store, a URL (also any that the package
            ``limits`` knows), or a :class:`~keyguard.stores.base.RateLimiter`.
        read: A read replica that answers look-ups of requests: a URL, an engine or a client as for
            ``store``. By default the setting ``read_url``.
        settings: The settings of the service. The defaults are safe.
        clock: Where time comes from. Tests pass their own.
        hooks: Functions that are called with every event; by default events are logged.
        options: Fields of :class:`~keyguard.Settings`, instead of or on top of ``settings``.

    Raises:
        ConfigurationError: The store can't be used, or a driver is not installed.
        InvalidValueError: The value of a setting is not valid.
    """

    @hides_arguments
    def __init__(
        self,
        store: str | Store | object,
        *,
        limiter: str | RateLimiter | None = None,
        read: object = None,
        settings: Settings | None = None,
        clock: Clock = time,
        hooks: Iterable[Hook] = (log_event,),
        **options: Unpack[Options],
    ) -> None:
        _warn_of_threads()
        super().__init__(settings, options, hooks)
        self._store = open_store(
            store,
            durable_replicas=self.settings.durable_replicas,
            patience=self.settings.patience,
        )
        self._owned = self._store is not store
        self._replica = None
        read = self.settings.read_url if read is None else read
        if read is not None:
            self._replica = open_replica(read, self._store, patience=self.settings.patience)
        self._ports = SyncPorts(
            self.settings, clock, self._store, self._tell, limiter, self._replica
        )

    @once
    def limiter(self) -> RateLimiter:
        """The counters of limits."""
        return self._ports.limiter

    @once
    def stated(self) -> admission.Admission:
        """The admission of requests that are described by their values, for :meth:`admit`."""
        return admission.Admission(self, self.settings.rule_book())

    @once
    def organizations(self) -> organizations.Organizations:
        """The organizations of this guard."""
        return organizations.Organizations(self._ports)

    @once
    def keys(self) -> keys.Keys:
        """The keys of this guard."""
        return keys.Keys(self._ports)

    @once
    def requests(self) -> requests.Requests:
        """The requests for keys of this guard."""
        return requests.Requests(self._ports)

    @once
    def audit(self) -> audit_trail.AuditTrail:
        """The audit trail of this guard's key store."""
        return audit_trail.AuditTrail(self._ports)

    @once
    def usage(self) -> usage.Usage:
        """The usage that this guard's key store keeps."""
        return usage.Usage(self._ports)

    def authenticate(
        self,
        fields: Sequence[str | bytes],
        *,
        scopes: Iterable[str] = (),
        any_of: Iterable[str] | None = None,
        secure: bool = False,
        address: str | None = None,
        fresh: bool = False,
    ) -> Decision:
        """Decide whether a request may pass, by its key alone.

        This applies no :class:`~keyguard.Rule` and charges no limit. :meth:`admit` does all that an
        adapter does for a request.

        Args:
            fields: Its ``Authorization`` field values as received, one item a field line.
            scopes: Scopes that are all needed.
            any_of: Scopes of which at least one is needed.
            secure: Whether the client's connection is encrypted. It matters with
                ``require_https``.
            address: The client's address. It is used in events, to count the client's failures, and
                for keys that are bound to networks.
            fresh: Whether to look the key up even if it is remembered. The decision then respects
                every change that any process acknowledged before.

        Returns:
            ``Allow`` with the principal, or ``Deny`` with the reason. No input of a client and no
            failure of a store raises. Let a request pass only on ``isinstance(decision, Allow)``.

        Raises:
            InvalidValueError: ``fields`` is not a list of strings or bytes, a required scope is
                malformed or not in the catalogue, or ``any_of`` is an empty list.
        """
        authenticating = self._authenticate(
            fields, scopes, any_of, secure=secure, address=address, fresh=fresh
        )
        del fields  # a traceback that passes here must not show the token
        return run_sync(authenticating)

    def admit(
        self,
        fields: Sequence[str | bytes],
        *,
        method: str = "GET",
        path: str = "/",
        query: str = "",
        headers: Iterable[tuple[str, str]] = (),
        secure: bool = False,
        address: str | None = None,
        cost: int | None = None,
    ) -> Verdict:
        """Let a request of any protocol in as an adapter does: by its rule, key and limits.

        ::

            verdict = guard.admit([field], method="POST", path="/v1/inference", address=peer)
            if not verdict:
                answer = verdict.response()
                return send(answer.status, answer.headers, answer.body)
            serve(verdict.principal)

        The order of the checks, the events and the counts are those of every adapter. The rules are
        those of the guard's settings. Two things that only an adapter knows are left out: the
        decorators of a route, and the path as it was sent, which shows encoded slashes.

        Args:
            fields: Its ``Authorization`` field values as received, one item a field line.
            method: The request method.
            path: The path, decoded and without the query, as the service reads it.
            query: The query string, for functions of limits.
            headers: Names and values of its other fields: for trusted proxies, for rules whose
                methods are public, and for functions of limits.
            secure: Whether the connection is encrypted.
            address: The address of the connection's other end.
            cost: The units that the request counts for, at least 1. They are charged in the limits
                of its rule, or in all its limits if the rule has none. None for the cost that the
                rule sets, or 1.

        Returns:
            The verdict. Let a request pass only if it is true.

        Raises:
            InvalidValueError: ``fields`` is not a list of strings or bytes, the cost is not a whole
                number of at least 1, or a limit's function returned something that is not a cost or
                a name.
            ConfigurationError: The limit of a rule can't be counted where the guard counts.
        """
        admitting = verdict.admit(
            self,
            fields,
            method=method,
            path=path,
            query=query,
            headers=headers,
            client=Client(address, secure),
            cost=cost,
        )
        del fields, headers  # a traceback that passes here must not show the token
        return run_sync(admitting)

    def flush(self) -> None:
        """Write pending uses and usage to the store now.

        Otherwise the guard writes once a minute when keys were last used, and usage every 10
        seconds.
        """
        self._ports.background.flush()

    def migrate(self) -> None:
        """Create the store's tables or bring them up to date. It is safe to call at every start.

        Raises:
            StoreError: The key store failed, or was made by a newer keyguard.
        """
        self._store.migrate()
        self.limiter.migrate()

    def check(self) -> health.Health:
        """Find out whether the guard could serve a request now, for the start and for readiness.

        It asks the key store and the counters, and changes nothing. It waits for
        ``management_timeout`` at most.

        Returns:
            The state of the stores, with the difference of the clocks.

        Raises:
            SchemaError: The tables are missing, or older or newer than this keyguard.
            StoreError: The key store does not answer, or returns invalid data. With
                ``on_limiter_error="closed"``, the counters too.
        """
        return run_sync(health.check(self._ports))

    def close(self) -> None:
        """Write what is pending to the store, and close what the guard opened itself."""
        self._ports.close()
        if self._replica is not None:
            self._replica.close()
        if self._owned:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _warn_of_threads() -> None:
    """Log a warning where the server lets no thread run, or where eventlet has patched them."""
    if not getattr(sys.modules.get("uwsgi"), "has_threads", True):
        _logger.warning(
            "uWSGI runs no threads: keyguard can't follow changes or write usage in the "
            "background. Start it with --enable-threads"
        )
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and patcher.is_monkey_patched("thread"):
        _logger.warning(
            "eventlet has patched the threads, with which keyguard is not tested: requests may "
            "wait for ever. Use workers with threads, or gevent"
        )
