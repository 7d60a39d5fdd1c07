"""Guards over a store in memory, and keys for them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, Unpack

from keyguard.core.access.carriers import Carriers
from keyguard.core.keys.records import Key
from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import ConfigurationError, InvalidValueError, NotFoundError, shown
from keyguard.guard import AsyncKeyguard, Keyguard
from keyguard.runtime.events import Event, log_event
from keyguard.runtime.process import Clock
from keyguard.settings.config import Settings
from keyguard.stores.memory.keys import AsyncMemoryStore, MemoryStore
from keyguard.testing.clock import MovingClock

if TYPE_CHECKING:
    from keyguard.settings.options import Options

__all__ = ["ApiKey", "MemoryGuards"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key that a test sends.

    Args:
        key: Its record, as it was issued.
        token: Its token.
        carrier: How it is sent, as the setting ``carriers`` names it.

    Raises:
        InvalidValueError: A value has the wrong type, or there is no such carrier.
    """

    key: Key
    token: Secret
    carrier: str = "bearer"

    def __post_init__(self) -> None:
        if not isinstance(self.key, Key) or not isinstance(self.token, Secret):
            raise InvalidValueError("an ApiKey has a Key and its token as a Secret")
        Carriers([self.carrier])

    @property
    def id(self) -> str:
        """The key's id."""
        return self.key.id

    @property
    def headers(self) -> dict[str, str]:
        """The header field that carries the key, for any test client."""
        token, (kind, _, name) = self.token.reveal(), self.carrier.partition(":")
        if kind == "header":
            return {name: token}
        if kind == "basic":
            token = b64encode(f":{token}".encode()).decode()
        return {"Authorization": f"{name or kind.title()} {token}"}


@dataclass(kw_only=True, eq=False)
class MemoryGuards:
    """A guard of either flavour over one new store in memory, with a clock that the test moves.

    ::

        with MemoryGuards(settings=service.settings) as guards:
            client = create_app(guards.guard).test_client()
            writer = guards.issue(scopes=["inference:write"])
            assert client.post("/v1/inference", headers=writer.headers).status_code == 200

    Tokens are hashed fast, whatever hasher the settings name, and no read replica is asked. All
    other settings apply. Nothing outlives the guards, so one test can't change the next.

    Args:
        settings: The settings of the service; by default the default settings.
        clock: Where time comes from.
        store: Where the keys are.
        events: Every event of the guards, in order.

    Raises:
        InvalidValueError: A value has the wrong type.
    """

    settings: Settings = field(default_factory=Settings)
    clock: Clock = field(default_factory=MovingClock)
    store: MemoryStore = field(default_factory=MemoryStore, repr=False)
    events: list[Event] = field(default_factory=list[Event])

    def __post_init__(self) -> None:
        for name, value, kind in (
            ("settings", self.settings, Settings),
            ("store", self.store, MemoryStore),
            ("events", self.events, list),
        ):
            if not isinstance(value, kind):
                raise InvalidValueError(f"{name} takes a {kind.__name__}, not {shown(value)}")
        if not all(callable(getattr(self.clock, name, None)) for name in ("time", "monotonic")):
            raise InvalidValueError(f"clock takes a clock, not {shown(self.clock)}")
        self.settings = replace(self.settings, hasher="sha256", read_url=None)

    @classmethod
    def of(cls, guard: Keyguard | AsyncKeyguard) -> Self:
        """Return the guards that share the store, the settings and the clock of a given one.

        For an application whose guard is made when its module is imported.

        Args:
            guard: A guard whose keys are in memory, as with the URL ``memory://``.

        Raises:
            ConfigurationError: The guard keeps its keys elsewhere.
            InvalidValueError: The object is no guard.
        """
        if not isinstance(guard, Keyguard | AsyncKeyguard):
            raise InvalidValueError(f"MemoryGuards.of takes a guard, not {shown(guard)}")
        store: object = guard._store
        if isinstance(store, AsyncMemoryStore):
            store = store._store
        if not isinstance(store, MemoryStore):
            raise ConfigurationError(
                f"this guard keeps its keys in {type(store).__name__}, where a test would leave "
                "some: give it the URL memory:// in tests"
            )
        guards = cls(settings=guard.settings, clock=guard._ports.clock, store=store)
        name = "guard" if isinstance(guard, Keyguard) else "async_guard"
        vars(guards)[name] = guard
        return guards

    def with_settings(self, **changes: Unpack[Options]) -> Self:
        """Return guards over the same store and clock with other settings; these do not change.

        Args:
            changes: Fields of :class:`~keyguard.Settings`.

        Raises:
            InvalidValueError: The value of a setting is not valid.
            ConfigurationError: Two settings contradict each other.
        """
        return type(self)(
            settings=replace(self.settings, **changes),
            clock=self.clock,
            store=self.store,
            events=self.events,
        )

    @cached_property
    def guard(self) -> Keyguard:
        """The guard for WSGI, Flask, Django and other sync code."""
        hooks = (self.events.append, log_event)
        return Keyguard(self.store, settings=self.settings, clock=self.clock, hooks=hooks)

    @cached_property
    def async_guard(self) -> AsyncKeyguard:
        """The guard for ASGI, Starlette, FastAPI and other async code."""
        store, hooks = AsyncMemoryStore(self.store), (self.events.append, log_event)
        return AsyncKeyguard(store, settings=self.settings, clock=self.clock, hooks=hooks)

    def issue(
        self, *, scopes: Iterable[str] = (), organization: str = "acme", **terms: Any
    ) -> ApiKey:
        """Issue a key, and make its organization if that does not exist yet.

        Args:
            scopes: The scopes that the key is granted.
            organization: The slug of the organization that owns it.
            terms: Other arguments of ``guard.keys.issue``, such as ``expires_in`` and ``limits``.

        Returns:
            The key, with the header field that carries it: the first of the setting ``carriers``.

        Raises:
            InvalidValueError: A value is not valid, or a scope is not in the catalogue.
            RefusedError: The organization's bounds do not allow the key.
        """
        try:
            self.guard.organizations.get(organization)
        except NotFoundError:
            self.guard.organizations.create(organization)
        terms = {"name": "test"} | terms
        issued = self.guard.keys.issue(organization=organization, scopes=scopes, **terms)
        carrier = next(iter(self.settings.carriers))
        return ApiKey(key=issued.key, token=issued.token, carrier=carrier)

    def close(self) -> None:
        """Close the guard for sync code. Code on an event loop closes ``async_guard`` there."""
        if "guard" in vars(self):
            self.guard.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
