"""What a service has settled, as far as decisions need it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from keyguard.core.access.decisions import Allow
from keyguard.core.identity.principal import Principal
from keyguard.core.identity.scopes import ScopeCatalogue, ScopeGrant, narrowed
from keyguard.core.keys.records import KeyRecord
from keyguard.core.limits.charges import AppliedLimits
from keyguard.core.limits.limit import Limit
from keyguard.core.tokens.foreign import ForeignFormat
from keyguard.core.tokens.format import TokenFormat
from keyguard.core.tokens.secret import Secret

__all__ = ["Policy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The token format, the scope catalogue and the limits of one service.

    Args:
        tokens: What its tokens look like.
        catalogue: The scopes it knows, or None where any may be used.
        require_https: Whether a key sent over plain HTTP is refused.
        revoke_exposed: Whether it is revoked as well.
        default_limits: What every key may ask for, unless its organization or it says otherwise.
        failure_limit: How many failed authentications an address may have, or None for any.
        foreign: The formats of imported tokens, in the order in which they are tried.
    """

    tokens: TokenFormat
    catalogue: ScopeCatalogue | None = None
    require_https: bool = False
    revoke_exposed: bool = False
    default_limits: tuple[Limit, ...] = ()
    failure_limit: Limit | None = None
    foreign: tuple[ForeignFormat, ...] = ()

    def allow(self, record: KeyRecord) -> Allow:
        """Return the decision for a request with this key."""
        principal = self.principal(record)
        levels = (self.default_limits, record.organization.limits, record.key.limits)
        ends_at = record.key.ends_at if record.key.successor is not None else None
        return Allow(
            principal,
            AppliedLimits.of(principal, *levels),
            record.key.allowed_networks,
            None if ends_at is None else _http_date(ends_at),
        )

    def principal(self, record: KeyRecord) -> Principal:
        """Return who a request with this key is."""
        key = record.key
        grant = self.grant(key.scopes)
        if record.organization.scopes is not None:
            ceiling = self.grant(record.organization.scopes)
            grant = self.grant(narrowed(grant, ceiling))
        return Principal(
            key_id=key.id,
            family=key.family,
            organization=key.organization,
            grant=grant,
            metadata=key.metadata,
        )

    def grant(self, scopes: frozenset[str]) -> ScopeGrant:
        """Return what these scopes allow, with what they imply."""
        implied = self.catalogue.implied_by(scopes) if self.catalogue else frozenset[str]()
        return ScopeGrant(scopes, implied)

    def candidates(self, token: Secret) -> tuple[str, ...]:
        """Return the ids of the keys that a token may be of; none where it can be no token.

        One of the service's own is of one key; one that was imported may be of one a format.
        """
        parts = self.tokens.parse(token.reveal())
        if parts is not None:
            return (parts.key_id,)
        found = (one.lookup(token.reveal()) for one in self.foreign)
        return tuple(key_id for key_id in found if key_id is not None)

    def may_name(self, token: Secret, key_id: str) -> bool:
        """Tell whether an id may be named before a key was found under it.

        One that is a fast hash of the whole token may not: if the token is a guessable one, or
        somebody's password, whoever reads the log could try guesses.
        """
        return all(
            one.keyed or one.has_public_part or one.lookup(token.reveal()) != key_id
            for one in self.foreign
        )

    @property
    def takes_bar(self) -> bool:
        """Whether tokens may hold a ``|``, which is no b64token."""
        return any(one.separator == "|" for one in self.foreign)


def _http_date(at: datetime) -> str:
    from email.utils import format_datetime  # only who rotates keys pays for it

    return format_datetime(at.replace(microsecond=0), usegmt=True)
