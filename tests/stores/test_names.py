"""Methods that are made by one function have names of their own, which observers are told."""

from __future__ import annotations

import pytest

from keyguard.stores import facade
from keyguard.stores.base import AsyncStore, RateLimiter, Replica, Store, SyncUsageStore
from keyguard.stores.memory.keys import AsyncMemoryStore


@pytest.mark.parametrize(
    ("made", "protocol"),
    [
        (facade.SyncStore, Store),
        (facade.SyncReplica, Replica),
        (facade.SyncRateLimiter, RateLimiter),
        (facade.SyncUsage, SyncUsageStore),
        (AsyncMemoryStore, AsyncStore),
    ],
)
def test_a_method_has_the_name_under_which_the_protocol_declares_it(
    made: type, protocol: type
) -> None:
    names = {name for name in vars(protocol) if not name.startswith("_")} - {"close", "aclose"}

    assert len(names) > 1
    assert {name: getattr(made, name).__name__ for name in names} == {name: name for name in names}
