"""The settings of a guard: frozen, validated once, before anything is opened."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from keyguard.exceptions import ConfigurationError, InvalidValueError
from keyguard.hashing import TokenHasher
from keyguard.peppers import parse_peppers
from keyguard.sansio.foreign import read_formats
from keyguard.sansio.limits import Limit, Limits, parse_limit, read_limits
from keyguard.sansio.policy import Policy
from keyguard.sansio.responses import Responder
from keyguard.sansio.rules import PublicPaths
from keyguard.sansio.scopes import ScopeCatalogue
from keyguard.sansio.secret import Secret
from keyguard.sansio.tokens import TokenFormat

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
        peppers: The pepper ring, newest first, each at least 32 random bytes.
        hasher: ``"hmac-sha256"``, ``"sha256"`` or ``"argon2id"``; None for the first where there is
            a pepper, else the second.
        require_https: Refuse keys that come over plain HTTP.
        max_staleness: Seconds after which another process's revocation is felt here at the latest.
        cache_size: How many verified tokens are remembered.
        record_addresses: Note the client's address beside the time when a key was last used. Every
            request then takes a little longer.
        backend_timeout: Seconds that one backend call of a request may take.
        management_timeout: Seconds that one backend call of a management operation may take.
        hash_workers: How many slow hashes run at once.
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
    peppers: Iterable[Secret | str] = ()
    hasher: str | None = None
    require_https: bool = False
    max_staleness: float = 5.0
    cache_size: int = 10_000
    record_addresses: bool = False
    backend_timeout: float = 0.25
    management_timeout: float = 10.0
    hash_workers: int = field(default_factory=lambda: min(4, os.cpu_count() or 1))
    default_limits: Limits = ()
    failure_limit: Limit | str | None = "30/minute"
    limiter_timeout: float = 0.05
    on_limiter_error: str = "open"
    legacy_headers: bool = False
    imported_formats: Iterable[str] = ()

    def __post_init__(self) -> None:
        for name, least, most in (
            ("max_staleness", 0.0, 3600.0),
            ("cache_size", 0, 10_000_000),
            ("backend_timeout", 0.001, 60.0),
            ("management_timeout", 0.001, 3600.0),
            ("hash_workers", 1, 64),
            ("limiter_timeout", 0.001, 60.0),
        ):
            _check_number(name, getattr(self, name), least, most)
        for name in ("require_https", "legacy_headers", "record_addresses"):
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
            "public": tuple(sorted(PublicPaths(self.public).paths)),
            "peppers": tuple(_as_secret(pepper) for pepper in self.peppers),
            "default_limits": read_limits(self.default_limits, "key"),
            "failure_limit": _as_failure_limit(self.failure_limit),
            "imported_formats": tuple(one.name for one in read_formats(self.imported_formats)),
        }
        for name, value in frozen.items():
            object.__setattr__(self, name, value)
        self.policy()
        self.token_hasher()
        self.responder()

    def policy(self) -> Policy:
        """Return what decisions need of the settings."""
        frozen: Any = self  # whose fields are read and checked by now
        return Policy(
            tokens=TokenFormat(self.prefix),
            catalogue=frozen.catalogue,
            require_https=self.require_https,
            default_limits=frozen.default_limits,
            failure_limit=frozen.failure_limit,
            foreign=read_formats(self.imported_formats, keys=self._lookup_keys()),
        )

    def _lookup_keys(self) -> tuple[Secret, ...]:
        return self.token_hasher().lookup_keys if "token" in self.imported_formats else ()

    def responder(self) -> Responder:
        """Return who spells the answers."""
        return Responder(self.realm, legacy_headers=self.legacy_headers)

    def token_hasher(self) -> TokenHasher:
        """Return the hasher of the settings."""
        return TokenHasher(self.hasher, tuple(self.peppers))  # type: ignore[arg-type]  # frozen above

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, /, **overrides: Any) -> Settings:
        """Read settings from the environment.

        ``KEYGUARD_REALM``, ``KEYGUARD_PREFIX``, ``KEYGUARD_HASHER``, ``KEYGUARD_REQUIRE_HTTPS``
        (``true`` or ``false``), ``KEYGUARD_MAX_STALENESS``, ``KEYGUARD_CACHE_SIZE``,
        ``KEYGUARD_RECORD_ADDRESSES``,
        ``KEYGUARD_BACKEND_TIMEOUT``, ``KEYGUARD_MANAGEMENT_TIMEOUT`` and ``KEYGUARD_HASH_WORKERS``
        set the field of that name, and so do ``KEYGUARD_FAILURE_LIMIT`` (a rate, or ``none``),
        ``KEYGUARD_LIMITER_TIMEOUT``, ``KEYGUARD_ON_LIMITER_ERROR`` and ``KEYGUARD_LEGACY_HEADERS``.
        ``KEYGUARD_DEFAULT_LIMITS`` takes rates separated by ``;``, each with or without a name:
        ``100/minute; daily=5000/day``. ``KEYGUARD_PUBLIC``, ``KEYGUARD_IMPORTED_FORMATS`` and
        ``KEYGUARD_SCOPES`` (the catalogue's names) take a list separated by white space or commas,
        ``KEYGUARD_PEPPER`` the pepper ring likewise; ``KEYGUARD_PEPPER_FILE`` names a file that
        holds it instead. ``KEYGUARD_URL`` and ``KEYGUARD_LIMITER`` are for who opens the stores.
        Any other ``KEYGUARD_`` name is refused: it may be a misspelt one.

        Args:
            environ: Where to read; the process's environment by default.
            overrides: Fields set here, whatever the environment says.

        Raises:
            InvalidValueError: A value is not as said.
            ConfigurationError: A variable is unknown, the pepper file can't be read, or values do
                not go together.
        """
        environ = os.environ if environ is None else environ
        for name in environ:
            if (
                name.startswith(_VARIABLES)
                and name not in _known_variables()
                and not _OF_KUBERNETES.match(name)
            ):
                known = ", ".join(sorted(_known_variables()))
                raise ConfigurationError(f"{name} is no setting of keyguard's; there are: {known}")
        found: dict[str, Any] = {}
        for setting in fields(cls):
            text = environ.get(f"{_VARIABLES}{setting.name.upper()}", "").strip()
            if text and setting.name in _READERS:
                found[setting.name] = _read(setting.name, text)
        if scopes := _read_list(environ, "KEYGUARD_SCOPES"):
            found["catalogue"] = dict.fromkeys(scopes, "")
        if "peppers" not in overrides and (ring := _read_peppers(environ)):
            found["peppers"] = ring
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


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def _flag(text: str) -> bool:
    return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
        text.lower()
    ]


def _failure_limit(text: str) -> str | None:
    return None if text.lower() == "none" else text


def _limits(text: str) -> tuple[Limit, ...]:
    return read_limits([parse_limit(part, "key") for part in text.split(";")], "key")


_ON_LIMITER_ERROR = ("open", "closed")
_VARIABLES = "KEYGUARD_"
_OTHER_VARIABLES = (
    "KEYGUARD_URL",
    "KEYGUARD_LIMITER",
    "KEYGUARD_SCOPES",
    "KEYGUARD_PEPPER",
    "KEYGUARD_PEPPER_FILE",
)
# What Kubernetes gives every pod beside a service that is called keyguard.
_OF_KUBERNETES = re.compile(r"KEYGUARD_(SERVICE_(HOST|PORT(_.*)?)|PORT(_\d+_.*)?)\Z")
_READERS: dict[str, tuple[Any, str]] = {
    "realm": (str, "text"),
    "prefix": (str, "text"),
    "hasher": (str, "text"),
    "public": (_words, "a list of paths"),
    "require_https": (_flag, "true or false"),
    "max_staleness": (float, "a number of seconds"),
    "cache_size": (int, "a whole number"),
    "record_addresses": (_flag, "true or false"),
    "backend_timeout": (float, "a number of seconds"),
    "management_timeout": (float, "a number of seconds"),
    "hash_workers": (int, "a whole number"),
    "default_limits": (_limits, "rates such as '100/minute; daily=5000/day'"),
    "failure_limit": (_failure_limit, "a rate such as '30/minute', or none"),
    "limiter_timeout": (float, "a number of seconds"),
    "on_limiter_error": (str, "open or closed"),
    "legacy_headers": (_flag, "true or false"),
    "imported_formats": (_words, "a list of formats"),
}


def _known_variables() -> set[str]:
    return {*_OTHER_VARIABLES, *(f"{_VARIABLES}{name.upper()}" for name in _READERS)}


def _read_list(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    text = environ.get(name, "")
    if text and not _words(text):
        raise ConfigurationError(f"{name} is set and holds nothing; unset it, or give it a value")
    return _words(text)


def _read(name: str, text: str) -> Any:
    read, kind = _READERS[name]
    try:
        return read(text)
    except (ValueError, KeyError):
        raise InvalidValueError(f"KEYGUARD_{name.upper()} takes {kind}, not {text!r}") from None


def _read_peppers(environ: Mapping[str, str]) -> tuple[Secret, ...]:
    path = environ.get("KEYGUARD_PEPPER_FILE", "")
    given = _read_list(environ, "KEYGUARD_PEPPER")
    if given and path:
        raise ConfigurationError("set KEYGUARD_PEPPER or KEYGUARD_PEPPER_FILE, not both")
    if not path:
        return tuple(Secret(pepper) for pepper in given)
    try:
        ring = parse_peppers(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as problem:
        kind = type(problem).__name__
        raise ConfigurationError(f"the pepper file {path!r} can't be read ({kind})") from None
    if not ring:
        raise ConfigurationError(f"the pepper file {path!r} holds no pepper")
    return ring
