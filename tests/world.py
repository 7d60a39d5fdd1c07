"""A small world for tests: a clock that stands, two organizations, a key for every fate."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from keyguard import AsyncKeyguard, IssuedKey, Keyguard, ScopeCatalogue
from keyguard.runtime.events import Event
from keyguard.stores.memory.keys import AsyncMemoryStore, MemoryStore

CATALOGUE = ScopeCatalogue(
    {
        "inference:read": "Read inference capabilities",
        "inference:write": "Make inference requests",
        "analytics:read": "Access usage analytics",
        "admin": "Administrative operations",
    }
)


class StandingClock:
    """A clock that moves only when it is told to."""

    def __init__(self, now: datetime = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)) -> None:
        self.now = now
        self.uptime = 1000.0

    def time(self) -> float:
        return self.now.timestamp()

    def monotonic(self) -> float:
        return self.uptime

    def advance(self, span: timedelta) -> None:
        self.now += span
        self.uptime += span.total_seconds()


@dataclass
class World:
    """One store with a guard of either flavour in front of it, as two processes would be."""

    options: dict[str, Any] = field(default_factory=dict)
    clock: StandingClock = field(default_factory=StandingClock)
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = MemoryStore()
        options = {
            "realm": "AIaaS",
            "prefix": "aiaas_live",
            "catalogue": CATALOGUE,
            "public": ["/open", "/open/write", "/open/limited"],
            "clock": self.clock,
            "hooks": [self.events.append],
            "failure_limit": None,  # one world sees more refusals than an address may have
        } | self.options
        self.guard = Keyguard(self.store, **options)
        self.async_guard = AsyncKeyguard(AsyncMemoryStore(self.store), **options)
        self.acme = self.guard.organizations.create("acme", name="Acme Inc.")
        self.clock.advance(timedelta(seconds=1))
        self.other = self.guard.organizations.create("other")

    def issue(self, *scopes: str, organization: str = "acme", **options: Any) -> IssuedKey:
        return self.guard.keys.issue(
            organization=organization, name="test", scopes=scopes, **options
        )

    def token(self, *scopes: str, **options: Any) -> str:
        return self.issue(*scopes, **options).token.reveal()
