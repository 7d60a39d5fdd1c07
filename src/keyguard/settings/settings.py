"""The settings of a guard: frozen, and checked once, before anything is opened."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from keyguard.core.access.answers import Responder, check_realm
from keyguard.core.access.policy import Policy
from keyguard.core.http.principal_fields import PrincipalFields
from keyguard.core.http.rules import Rule, RuleBook
from keyguard.core.http.trusted_proxies import TrustedProxies
from keyguard.core.http.websocket_token import TokenProtocol
from keyguard.core.identity.scopes import ScopeCatalogue
from keyguard.core.limits.limit import Limit, Limits, read_limits
from keyguard.core.tokens.foreign import ForeignFormat, read_formats
from keyguard.core.tokens.format import TokenFormat
from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import ConfigurationError, InvalidValueError
from keyguard.settings.declaring import Setting, as_it_is, describe, setting
from keyguard.settings.hashing import TokenHasher
from keyguard.settings.reading import (
    FAILURE_LIMIT,
    LIMITS,
    TEXT,
    read_catalogue,
    read_rules,
    read_table_limits,
    words,
)
from keyguard.settings.sources import read_environ

LONGEST_STORE_TIMEOUT = 60.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a service decides about its keys.

    {settings}

    Raises:
        InvalidValueError: A value has the wrong type, form or range.
        ConfigurationError: Two values contradict each other.
    """

    realm: str = setting(
        "api", "The protection space that challenges name (RFC 9110, section 11.5)."
    )
    prefix: str = setting("kg_live", "The start of every token, such as ``aiaas_live``.")
    catalogue: ScopeCatalogue | Mapping[str, str] | None = setting(
        None,
        "The scopes that the service knows, as a :class:`ScopeCatalogue` or a mapping of name to "
        "description; None allows any scope.",
        table=read_catalogue,
    )
    public: Iterable[str] = setting(
        (),
        "Exact paths that need no key. All other paths need one.",
        text=words("a list of paths"),
    )
    rules: Iterable[Rule] = setting(
        (),
        "What requests need by path and method, see :class:`~keyguard.Rule`.",
        table=read_rules,
    )
    allow_preflight: bool = setting(
        True, "Let a browser's CORS preflight through to the application without a key."
    )
    peppers: Iterable[Secret | str] = setting(
        (), "The pepper ring, newest first, each at least 32 random bytes."
    )
    hasher: str | None = setting(
        None,
        '``"hmac-sha256"``, ``"sha256"`` or ``"argon2id"``; None for the first if there is '
        "a pepper, else the second.",
        text=TEXT,
    )
    require_https: bool = setting(False, "Refuse keys that come over plain HTTP.")
    revoke_exposed: bool = setting(
        False, "Revoke a key that came over plain HTTP; needs ``require_https``."
    )
    trusted_proxies: Iterable[str] = setting(
        (),
        "The networks, in CIDR notation, of the proxies whose ``Forwarded`` or "
        '``X-Forwarded-For`` and ``X-Forwarded-Proto`` fields count; ``"unix"`` for a peer '
        "without an address, as behind a UNIX socket. They must set or remove all of these fields.",
        text=words("a list of networks"),
    )
    principal_headers: Mapping[str, str] = setting(
        dict[str, str](),
        'Header fields that tell the application the principal, such as ``{"X-Key-Id": '
        '"key_id", "X-Scopes": "scopes"}``; ``family`` and ``organization`` are the other '
        "values. keyguard drops fields of these names that a client sends.",
        table=as_it_is,
    )
    close_on_revoke: bool = setting(
        False, "Close a WebSocket within ``max_staleness`` once its key no longer works."
    )
    websocket_protocol: str | None = setting(
        None,
        "Read the key of a WebSocket from the subprotocol ``<websocket_protocol>.<key>`` as well, "
        'for browsers; such as ``"keyguard.bearer"``.',
        text=TEXT,
    )
    max_staleness: float = setting(
        5.0,
        "The most seconds until this process knows of a revocation in another process.",
        most=3600.0,
    )
    cache_size: int = setting(
        10_000, "How many verified tokens a process remembers.", most=10_000_000
    )
    record_addresses: bool = setting(
        False,
        "Store the client's address with the time when a key was last used. Every request then "
        "takes a little longer.",
    )
    store_timeout: float = setting(
        0.25,
        "The most seconds that one store call of a request takes.",
        least=0.001,
        most=LONGEST_STORE_TIMEOUT,
    )
    management_timeout: float = setting(
        10.0,
        "The most seconds that one store call of a management operation takes.",
        least=0.001,
        most=3600.0,
    )
    hash_workers: int = setting(
        min(4, os.cpu_count() or 1), "How many slow hashes run at once.", least=1, most=64
    )
    hash_timeout: float = setting(
        2.0,
        "The most seconds that a slow hash takes on a thread, for code on an event loop. Its wait "
        "for a thread counts against ``store_timeout``.",
        least=0.01,
        most=60.0,
    )
    default_limits: Limits = setting(
        (),
        "The limits of every key, as :class:`~keyguard.Limit` or rates such as "
        '``"100/minute"``; a limit of the same name of its organization, or of the key, '
        "replaces one.",
        text=LIMITS,
        table=read_table_limits,
    )
    failure_limit: Limit | str | None = setting(
        "30/minute",
        "How many failed authentications a client's address may have (an IPv6 client is its /64); "
        "keyguard answers more with 429 before it looks anything up. None for any number.",
        text=FAILURE_LIMIT,
    )
    limiter_timeout: float = setting(
        0.04,
        "The most seconds that the store of the counters takes for one request.",
        least=0.001,
        most=60.0,
    )
    on_limiter_error: str = setting(
        "open",
        'What happens while the store of the counters fails: ``"open"`` counts requests in this '
        'process, ``"closed"`` refuses requests with limits with 503.',
        choices=("open", "closed"),
    )
    legacy_headers: bool = setting(
        False, "Send ``X-RateLimit-Limit``, ``-Remaining`` and ``-Reset`` as well."
    )
    imported_formats: Iterable[str] = setting(
        (),
        "The formats of imported tokens, in the order in which keyguard tries them: "
        '``"token"`` (any), ``"drf"``, ``"sanctum"``, ``"seam"`` and ``"prefix:N"``; '
        "see :doc:`importing keys <import>`.",
        text=words("a list of formats"),
    )

    def __post_init__(self) -> None:
        for name, declared in _SETTINGS.items():
            declared.check(name, getattr(self, name))
        check_realm(self.realm)
        self._fix("catalogue", self._catalogue)
        book = self._rule_book
        self._fix("public", tuple(sorted(book.paths)))
        self._fix("rules", book.rules[len(book.paths) :])
        self._fix("trusted_proxies", self._proxies.names)
        self._fix("peppers", _read_peppers(self.peppers))
        self._fix("imported_formats", tuple(form.name for form in self._formats))
        self._fix("default_limits", self._policy.default_limits)
        self._fix("failure_limit", self._policy.failure_limit)
        self._fix("principal_headers", {**self.principal_headers} if self._fields else {})
        self.token_hasher()
        self.token_protocol()
        if self.revoke_exposed and not self.require_https:
            raise ConfigurationError("revoke_exposed goes with require_https=True")

    def _fix(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    # Each part is built once. The first use checks its fields, and so is in __post_init__.

    @cached_property
    def _catalogue(self) -> ScopeCatalogue | None:
        catalogue = self.catalogue
        if catalogue is None or isinstance(catalogue, ScopeCatalogue):
            return catalogue
        return ScopeCatalogue(catalogue)

    @cached_property
    def _rule_book(self) -> RuleBook:
        return RuleBook(self.rules, self.public, self._catalogue)

    @cached_property
    def _proxies(self) -> TrustedProxies:
        return TrustedProxies(self.trusted_proxies)

    @cached_property
    def _fields(self) -> PrincipalFields:
        return PrincipalFields(self.principal_headers)

    @cached_property
    def _formats(self) -> tuple[ForeignFormat, ...]:
        return read_formats(self.imported_formats)

    @cached_property
    def _policy(self) -> Policy:
        return Policy(
            tokens=TokenFormat(self.prefix),
            catalogue=self._catalogue,
            require_https=self.require_https,
            revoke_exposed=self.revoke_exposed,
            default_limits=read_limits(self.default_limits, "key"),
            failure_limit=_read_failure_limit(self.failure_limit),
            foreign=self._formats,
        )

    @cached_property
    def _hasher(self) -> TokenHasher:
        return TokenHasher(self.hasher, _read_peppers(self.peppers), self._formats)

    @cached_property
    def _responder(self) -> Responder:
        return Responder(self.realm, legacy_headers=self.legacy_headers)

    @cached_property
    def _token_protocol(self) -> TokenProtocol | None:
        return None if self.websocket_protocol is None else TokenProtocol(self.websocket_protocol)

    def policy(self) -> Policy:
        """Return the settings that decisions need."""
        return self._policy

    def responder(self) -> Responder:
        """Return the responder, which writes the answers."""
        return self._responder

    def rule_book(
        self, *, public: Iterable[str] | None = None, rules: Iterable[Rule] | None = None
    ) -> RuleBook:
        """Return the rule book, which tells what a request needs.

        Args:
            public: Paths that replace those of the settings.
            rules: Rules that replace those of the settings.

        Raises:
            InvalidValueError: A path or rule is malformed, two rules conflict, or a rule names an
                unknown scope.
        """
        if public is None and rules is None:
            return self._rule_book
        return RuleBook(
            self.rules if rules is None else rules,
            self.public if public is None else public,
            self._catalogue,
        )

    def principal_fields(self) -> PrincipalFields:
        """Return the fields that tell the principal to an application behind another server."""
        return self._fields

    def token_protocol(self) -> TokenProtocol | None:
        """Return the subprotocol that carries keys, or None if there is none."""
        return self._token_protocol

    def proxies(self) -> TrustedProxies:
        """Return the trusted proxies."""
        return self._proxies

    def token_hasher(self) -> TokenHasher:
        """Return the hasher of tokens."""
        return self._hasher

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, /, **overrides: Any) -> Settings:
        """Read settings from the environment.

        ``KEYGUARD_`` and the field's name in upper case sets a field: ``KEYGUARD_REALM``,
        ``KEYGUARD_REQUIRE_HTTPS`` (``true`` or ``false``), ``KEYGUARD_MAX_STALENESS`` and so on.
        White space or commas separate the items of a list (``KEYGUARD_PUBLIC``,
        ``KEYGUARD_TRUSTED_PROXIES``, ``KEYGUARD_IMPORTED_FORMATS``). ``KEYGUARD_FAILURE_LIMIT``
        takes a rate or ``none``. ``KEYGUARD_DEFAULT_LIMITS`` takes rates separated by ``;``, each
        with or without a name: ``100/minute; daily=5000/day``. ``KEYGUARD_SCOPES`` lists the names
        of the catalogue. ``KEYGUARD_PEPPER`` is the pepper ring; ``KEYGUARD_PEPPER_FILE`` names a
        file that holds it instead. ``KEYGUARD_SETTINGS`` names a file for other settings, see
        :meth:`from_file`. The command line and the recipes read ``KEYGUARD_URL`` and
        ``KEYGUARD_LIMITER`` to open the stores. Any other ``KEYGUARD_`` name is refused: it may be
        a typing error.

        Args:
            environ: The variables; the process's environment by default.
            overrides: Fields that are set here, whatever the environment says.

        Raises:
            InvalidValueError: A value has the wrong type, form or range.
            ConfigurationError: A variable is unknown, a file can't be read, or two values
                contradict each other.
        """
        environ = os.environ if environ is None else environ
        found = read_environ(environ, _SETTINGS, peppers="peppers" not in overrides)
        return cls(**(found | overrides))

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        environ: Mapping[str, str] | None = None,
        /,
        **overrides: Any,
    ) -> Settings:
        """Read settings from a TOML file, so that configuration alone guards an application.

        ::

            realm = "AIaaS"
            public = ["/healthz"]

            [[rules]]
            path = "/v1/models/{model_id}"
            methods = ["GET"]
            scopes = ["inference:read"]
            limits = ["60/minute"]

        The fields have the names of this class. ``rules`` are tables with the arguments of
        :class:`~keyguard.Rule`, ``catalogue`` is a table of scope and description, and a limit is a
        rate or a table with the arguments of :class:`~keyguard.Limit`. The environment (see
        :meth:`from_env`) overrides the file. Peppers come from the environment only.

        Args:
            path: The file.
            environ: The variables; the process's environment by default.
            overrides: Fields that are set here, whatever the file and the environment say.

        Raises:
            InvalidValueError: A value has the wrong type, form or range.
            ConfigurationError: The file can't be read, is not TOML or names an unknown setting; or
                as for :meth:`from_env`.
        """
        environ = os.environ if environ is None else environ
        return cls.from_env({**environ, "KEYGUARD_SETTINGS": str(path)}, **overrides)


_SETTINGS: dict[str, Setting] = {
    field.name: field.metadata["setting"] for field in fields(Settings)
}
Settings.__doc__ = (Settings.__doc__ or "").replace("{settings}", describe(_SETTINGS))


def _read_failure_limit(limit: object) -> Limit | None:
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


def _read_peppers(peppers: object) -> tuple[Secret, ...]:
    if isinstance(peppers, str | Secret) or not isinstance(peppers, Iterable):
        raise InvalidValueError("peppers are a list, the newest first")
    return tuple(map(_as_secret, cast("Iterable[object]", peppers)))


def _as_secret(pepper: object) -> Secret:
    if not isinstance(pepper, Secret | str):
        raise InvalidValueError(f"a pepper is a Secret or a string, not a {type(pepper).__name__}")
    return pepper if isinstance(pepper, Secret) else Secret(pepper)
