"""Whether a guard could serve requests now."""

from __future__ import annotations

from dataclasses import dataclass

from keyguard.core.limits.charges import Charge
from keyguard.core.limits.limit import Strategy
from keyguard.exceptions import SchemaError, StoreError
from keyguard.guard.async_ports import AsyncPorts
from keyguard.guard.replica import NO_KEY
from keyguard.guard.sync_ports import SyncPorts
from keyguard.stores.memory.counters import MemoryRateLimiter

_WINDOW = 1
# This bucket is only read, never charged. The tally of a moving window ends one window after the
# counters' own time.
_PROBE = Charge(
    "keyguard:{health}:probe", "probe", 1, _WINDOW, Strategy.MOVING_WINDOW, enforce=False, cost=1
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The state of the stores of a guard that can serve requests.

    Args:
        limiter_is_up: Whether the store of the counters answers. It is False only with
            ``on_limiter_error="open"``: each process then counts for itself.
        clocks_apart: The least number of seconds by which the clocks of this machine and of the
            counters differ; None where this process counts, or the counters report no time. Keys
            begin and expire at the wrong time if it is this machine's clock that is wrong.
    """

    limiter_is_up: bool
    clocks_apart: float | None


async def check(ports: SyncPorts | AsyncPorts) -> Health:
    """Check as :meth:`~keyguard.Keyguard.check` describes. Ports for sync code never suspend."""
    await ports.store.find_key(NO_KEY)
    if isinstance(ports.limiter, MemoryRateLimiter):
        return Health(limiter_is_up=True, clocks_apart=None)
    before = ports.clock.time()
    try:
        [tally] = (await ports.read_limits([_PROBE])).tallies
    except SchemaError:
        raise  # waiting does not help
    except StoreError:
        if ports.settings.on_limiter_error == "closed":
            raise
        return Health(limiter_is_up=False, clocks_apart=None)
    after = ports.clock.time()
    if not tally.ends_at:
        return Health(limiter_is_up=True, clocks_apart=None)
    theirs = tally.ends_at - _WINDOW
    return Health(limiter_is_up=True, clocks_apart=max(before - theirs, theirs - after, 0.0))
