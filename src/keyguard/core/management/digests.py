"""Which schemes and peppers the stored digests need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from keyguard.core.management.common import LARGEST_PAGE
from keyguard.core.management.ports import ManagementPorts


async def digest_report(ports: ManagementPorts) -> Mapping[str, int]:
    """Count the keys that are not revoked by the scheme and pepper of their digests.

    See :meth:`~keyguard.guard.keys.Keys.digests`.
    """
    found: Counter[str] = Counter()
    after: str | None = None
    while True:
        page = await ports.store.list_digests(after=after, limit=LARGEST_PAGE)
        for key in page.items:
            found[ports.scheme_of(key.digest)] += 1
        if page.next is None:
            return dict(found)
        after = page.next
