"""What a service has settled, as far as decisions need it."""

from __future__ import annotations

from dataclasses import dataclass

from keyguard.sansio.charges import AppliedLimits
from keyguard.sansio.decisions import Allow
from keyguard.sansio.limits import Limit
from keyguard.sansio.models import KeyRecord
from keyguard.sansio.requests import Principal
from keyguard.sansio.scopes import ScopeCatalogue, ScopeGrant
from keyguard.sansio.tokens import TokenFormat

__all__ = ["Policy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The token format, the scope catalogue and the limits of one service.

    Args:
        tokens: What its tokens look like.
        catalogue: The scopes it knows, or None where any may be used.
        require_https: Whether a key sent over plain HTTP is refused.
        default_limits: What every key may ask for, unless its organization or it says otherwise.
        failure_limit: How many failed authentications an address may have, or None for any.
    """

    tokens: TokenFormat
    catalogue: ScopeCatalogue | None = None
    require_https: bool = False
    default_limits: tuple[Limit, ...] = ()
    failure_limit: Limit | None = None

    def allow(self, record: KeyRecord) -> Allow:
        """Return the decision for a request with this key."""
        principal = self.principal(record)
        levels = (self.default_limits, record.organization.limits, record.key.limits)
        return Allow(principal, AppliedLimits.of(principal, *levels))

    def principal(self, record: KeyRecord) -> Principal:
        """Return who a request with this key is."""
        key = record.key
        implied = self.catalogue.implied_by(key.scopes) if self.catalogue else frozenset[str]()
        return Principal(
            key_id=key.id,
            family=key.family,
            organization=key.organization,
            grant=ScopeGrant(key.scopes, implied),
            metadata=key.metadata,
        )
