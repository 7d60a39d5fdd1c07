"""The settings of a guard: frozen, validated once, before anything is opened."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keyguard.core.access.answers import Responder
from keyguard.core.access.policy import Policy
from keyguard.core.http.principal_fields import PrincipalFields
from keyguard.core.http.rules import Rule, RuleBook
from keyguard.core.http.trusted_proxies import TrustedProxies
from keyguard.core.http.websocket_token import TokenProtocol
from keyguard.core.identity.scopes import ScopeCatalogue
from keyguard.core.limits.limit import Limit, Limits, read_limits
from keyguard.core.tokens.foreign import read_formats
from keyguard.core.tokens.format import TokenFormat
from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import ConfigurationError, InvalidValueError
from keyguard.settings.environment import read_environ
from keyguard.settings.hashing import TokenHasher

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a service settles about its keys.

    Args:
        realm: The protection space named in challenges (RFC 9110, section 11.5).
        prefix: What every token of the service starts with, such as ``aiaas_live``.
        catalogue: The scopes the service knows, as a :class:`ScopeCatalogue` or a mapping of name
            to description; None allows any scope.
        public: Exact paths that need no key. Everything else needs one.
        rules: What requests need by path and method, see :class:`~keyguard.Rule`.
        allow_preflight: Let a browser's CORS preflight through to the application, without a key.
        peppers: The pepper ring, newest first, each at least 32 random bytes.
        hasher: ``"hmac-sha256"``, ``"sha256"`` or ``"argon2id"``; None for the first where there is
            a pepper, else the second.
        require_https: Refuse keys that come over plain HTTP.
        revoke_exposed: Revoke a key that came over plain HTTP where that is refused.
        trusted_proxies: The networks of the proxies whose ``Forwarded`` or ``X-Forwarded-For`` and
            ``X-Forwarded-Proto`` are believed, in CIDR notation; ``"unix"`` for a peer without an
            address, as behind a UNIX socket. They must set or remove all of these fields.
        principal_headers: Fields that tell the application who the principal is, such as
            ``{"X-Key-Id": "key_id", "X-Scopes": "scopes"}``; ``family`` and ``organization`` are
            the other values. Whatever a client sends under these names is dropped.
        close_on_revoke: End a WebSocket within ``max_staleness`` once its key is good for nothing
            any more.
        websocket_protocol: Read the key of a WebSocket from the subprotocol
            ``<websocket_protocol>.<key>`` as well, for browsers; such as ``"keyguard.bearer"``.
        max_staleness: Seconds after which another process's revocation is felt here at the latest.
        cache_size: How many verified tokens are remembered.
        record_addresses: Note the client's address beside the time when a key was last used. Every
            request then takes a little longer.
        store_timeout: Seconds that one store call of a request may take.
        management_timeout: Seconds that one store call of a management operation may take.
        hash_workers: How many slow hashes run at once.
        hash_timeout: Seconds that one may take on an event loop's worker thread, once its turn has
            come; for that it waits as long as for a store call.
        default_limits: What every key may ask for, as :class:`~keyguard.Limit` or rates such as
            ``"100/minute"``; a limit of the same name of its organization, or of the key, takes its
            place.
        failure_limit: How many failed authentications a client's address may have (an IPv6 client
            is its /64); more get 429 before anything is looked up. None for any number.
        limiter_timeout: Seconds that the store of the counters may take for one request.
        on_limiter_error: What becomes of requests while it fails: ``"open"`` counts them in this
            process, ``"closed"`` refuses those with limits with 503.
        legacy_headers: Send ``X-RateLimit-Limit``, ``-Remaining`` and ``-Reset`` as well.
        imported_formats: Which tokens of other systems are looked up, in this order: ``"token"``
            (any), ``"drf"``, ``"sanctum"``, ``"seam"`` and ``"prefix:N"``; see
            :doc:`importing keys <import>`.

    Raises:
        InvalidValueError: A value is not as said.
        ConfigurationError: Values do not go together.
    """

    realm: str = "api"
    prefix: str = "kg_live"
    catalogue: ScopeCatalogue | Mapping[str, str] | None = None
    public: Iterable[str] = ()
    rules: Iterable[Rule] = ()
    allow_preflight: bool = True
    peppers: Iterable[Secret | str] = ()
    hasher: str | None = None
    require_https: bool = False
    revoke_exposed: bool = False
    trusted_proxies: Iterable[str] = ()
    principal_headers: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    close_on_revoke: bool = False
    websocket_protocol: str | None = None
    max_staleness: float = 5.0
    cache_size: int = 10_000
    record_addresses: bool = False
    store_timeout: float = 0.25
    management_timeout: float = 10.0
    hash_workers: int = field(default_factory=lambda: min(4, os.cpu_count() or 1))
    hash_timeout: float = 2.0
    default_limits: Limits = ()
    failure_limit: Limit | str | None = "30/minute"
    limiter_timeout: float = 0.04
    on_limiter_error: str = "open"
    legacy_headers: bool = False
    imported_formats: Iterable[str] = ()

    def __post_init__(self) -> None:
        for name, least, most in (
            ("max_staleness", 0.0, 3600.0),
            ("cache_size", 0, 10_000_000),
            ("store_timeout", 0.001, 60.0),
            ("management_timeout", 0.001, 3600.0),
            ("hash_workers", 1, 64),
            ("hash_timeout", 0.01, 60.0),
            ("limiter_timeout", 0.001, 60.0),
        ):
            _check_number(name, getattr(self, name), least, most)
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise InvalidValueError(f"{name} takes True or False, not {getattr(self, name)!r}")
        if self.on_limiter_error not in _ON_LIMITER_ERROR:
            raise InvalidValueError(
                f"on_limiter_error takes 'open' or 'closed', not {self.on_limiter_error!r}"
            )
        if isinstance(self.peppers, str | Secret) or not isinstance(self.peppers, Iterable):
            raise InvalidValueError("peppers are a list, the newest first")
        catalogue = self.catalogue
        if catalogue is not None and not isinstance(catalogue, ScopeCatalogue):
            catalogue = ScopeCatalogue(catalogue)
        frozen = {
            "catalogue": catalogue,
            "public": tuple(sorted(RuleBook(public=self.public).paths)),
            "rules": RuleBook(self.rules).rules,
            "trusted_proxies": TrustedProxies(self.trusted_proxies).names,
            "peppers": tuple(_as_secret(pepper) for pepper in self.peppers),
            "default_limits": read_limits(self.default_limits, "key"),
            "failure_limit": _as_failure_limit(self.failure_limit),
            "imported_formats": tuple(one.name for one in read_formats(self.imported_formats)),
        }
        for name, value in frozen.items():
            object.__setattr__(self, name, value)
        if self.revoke_exposed and not self.require_https:
            raise ConfigurationError("revoke_exposed goes with require_https=True")
        self.policy()
        self.token_hasher()
        self.responder()
        self.rule_book()
        self.principal_fields()
        object.__setattr__(self, "principal_headers", {**self.principal_headers})
        self.token_protocol()

    def policy(self) -> Policy:
        """Return what decisions need of the settings."""
        frozen: Any = self  # whose fields are read and checked by now
        return Policy(
            tokens=TokenFormat(self.prefix),
            catalogue=frozen.catalogue,
            require_https=self.require_https,
            revoke_exposed=self.revoke_exposed,
            default_limits=frozen.default_limits,
            failure_limit=frozen.failure_limit,
            foreign=read_formats(self.imported_formats, keys=self._lookup_keys()),
        )

    def _lookup_keys(self) -> tuple[Secret, ...]:
        return self.token_hasher().lookup_keys if "token" in self.imported_formats else ()

    def responder(self) -> Responder:
        """Return who spells the answers."""
        return Responder(self.realm, legacy_headers=self.legacy_headers)

    def rule_book(
        self, *, public: Iterable[str] | None = None, rules: Iterable[Rule] | None = None
    ) -> RuleBook:
        """Return who says what a request needs.

        Args:
            public: Paths in the place of the settings'.
            rules: Rules in the place of the settings'.

        Raises:
            InvalidValueError: One is none, they conflict, or a scope is unknown.
        """
        frozen: Any = self
        return RuleBook(
            self.rules if rules is None else rules,
            self.public if public is None else public,
            frozen.catalogue,
        )

    def principal_fields(self) -> PrincipalFields:
        """Return who tells an application behind another server who the principal is."""
        return PrincipalFields(self.principal_headers)

    def token_protocol(self) -> TokenProtocol | None:
        """Return who reads keys from subprotocols, or None."""
        return None if self.websocket_protocol is None else TokenProtocol(self.websocket_protocol)

    def proxies(self) -> TrustedProxies:
        """Return who tells a client from its proxies."""
        return TrustedProxies(self.trusted_proxies)

    def token_hasher(self) -> TokenHasher:
        """Return the hasher of the settings."""
        return TokenHasher(self.hasher, tuple(self.peppers))  # type: ignore[arg-type]  # frozen above

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, /, **overrides: Any) -> Settings:
        """Read settings from the environment.

        ``KEYGUARD_`` and the field's name in upper case sets a field: ``KEYGUARD_REALM``,
        ``KEYGUARD_REQUIRE_HTTPS`` (``true`` or ``false``), ``KEYGUARD_MAX_STALENESS`` and so on.
        Lists are separated by white space or commas (``KEYGUARD_PUBLIC``,
        ``KEYGUARD_TRUSTED_PROXIES``, ``KEYGUARD_IMPORTED_FORMATS``); ``KEYGUARD_FAILURE_LIMIT``
        takes a rate or ``none``; ``KEYGUARD_DEFAULT_LIMITS`` rates separated by ``;``, each with or
        without a name: ``100/minute; daily=5000/day``. ``KEYGUARD_SCOPES`` lists the catalogue's
        names, ``KEYGUARD_PEPPER`` is the pepper ring, and ``KEYGUARD_PEPPER_FILE`` names a file
        that holds it instead. ``KEYGUARD_SETTINGS`` names a file for the rest, see
        :meth:`from_file`. ``KEYGUARD_URL`` and ``KEYGUARD_LIMITER`` are for who opens the stores.
        Any other ``KEYGUARD_`` name is refused: it may be a misspelt one.

        Args:
            environ: Where to read; the process's environment by default.
            overrides: Fields set here, whatever the environment says.

        Raises:
            InvalidValueError: A value is not as said.
            ConfigurationError: A variable is unknown, a file can't be read, or values do not go
                together.
        """
        environ = os.environ if environ is None else environ
        found = read_environ(environ, peppers="peppers" not in overrides)
        return cls(**(found | overrides))

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        environ: Mapping[str, str] | None = None,
        /,
        **overrides: Any,
    ) -> Settings:
        """Read settings from a TOML file, so that an application is guarded by configuration alone.

        ::

            realm = "AIaaS"
            public = ["/healthz"]

            [[rules]]
            path = "/v1/models/{model_id}"
            methods = ["GET"]
            scopes = ["inference:read"]
            limits = ["60/minute"]

        The fields have their names here. ``rules`` are tables with the arguments of
        :class:`~keyguard.Rule`, ``catalogue`` is a table of scope and description, and a limit is a
        rate or a table with the arguments of :class:`~keyguard.Limit`. Where the environment sets a
        field (see :meth:`from_env`), it takes the place of the file's. Peppers are only ever read
        from there.

        Args:
            path: The file.
            environ: The environment; that of the process by default.
            overrides: Fields set here, whatever file and environment say.

        Raises:
            InvalidValueError: A value is not as said.
            ConfigurationError: The file can't be read, is no TOML or has a name that is no setting;
                or as :meth:`from_env`.
        """
        environ = os.environ if environ is None else environ
        found = read_environ(
            {**environ, "KEYGUARD_SETTINGS": str(path)}, peppers="peppers" not in overrides
        )
        return cls(**(found | overrides))


def _check_number(name: str, value: Any, least: float, most: float) -> None:
    kind = int if isinstance(least, int) else float
    if isinstance(value, bool) or not isinstance(value, int | kind):
        wanted = "a whole number" if kind is int else "a number"
        raise InvalidValueError(f"{name} takes {wanted}, not {value!r}")
    if not least <= value <= most:
        raise InvalidValueError(f"{name} takes {least} to {most}, not {value!r}")


def _as_failure_limit(limit: Any) -> Limit | None:
    if limit is None:
        return None
    if isinstance(limit, str):
        return Limit("failures", limit, per="address")
    if not isinstance(limit, Limit) or limit.per != "address":
        raise InvalidValueError(
            "failure_limit takes a rate such as '30/minute', a Limit per 'address', or None, not "
            f"{limit!r}"
        )
    return limit


def _as_secret(pepper: Any) -> Secret:
    if not isinstance(pepper, Secret | str):
        raise InvalidValueError(f"a pepper is a Secret or a string, not a {type(pepper).__name__}")
    return pepper if isinstance(pepper, Secret) else Secret(pepper)


_FLAGS = (
    "allow_preflight",
    "close_on_revoke",
    "legacy_headers",
    "record_addresses",
    "require_https",
    "revoke_exposed",
)
_ON_LIMITER_ERROR = ("open", "closed")
