"""What the stored forms of tokens hang on: which peppers are still needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from keyguard.core.access.effects import Flow
from keyguard.core.management.common import LARGEST_PAGE
from keyguard.core.management.effects import DescribeDigest, ListDigests

__all__ = ["digest_report"]


def digest_report() -> Flow[Mapping[str, int]]:
    """Count the keys that are not revoked by what the stored forms of their tokens hang on.

    Returns:
        Numbers of keys by scheme, with the id of the pepper where it takes one, such as
        ``hmac-sha256:1a2b3c4d``; ``unknown`` for what keyguard did not store.

    Raises:
        StoreError: The key store failed.
    """
    found: Counter[str] = Counter()
    after: str | None = None
    while True:
        page = yield from ListDigests(after, LARGEST_PAGE)
        for one in page.items:
            found[(yield from DescribeDigest(one.digest))] += 1
        if page.next is None:
            return dict(found)
        after = page.next
