"""What a service has settled, as far as decisions need it."""

from __future__ import annotations

from dataclasses import dataclass

from keyguard.sansio.models import KeyRecord, Principal
from keyguard.sansio.scopes import ScopeCatalogue, ScopeGrant
from keyguard.sansio.tokens import TokenFormat

__all__ = ["Policy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The token format and scope catalogue of one service.

    Args:
        tokens: What its tokens look like.
        catalogue: The scopes it knows, or None where any may be used.
        require_https: Whether a key sent over plain HTTP is refused.
    """

    tokens: TokenFormat
    catalogue: ScopeCatalogue | None = None
    require_https: bool = False

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
