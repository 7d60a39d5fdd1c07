"""For the tests of applications: guards in memory, keys, a clock, and principals without requests.

What belongs here: what a test of an application needs. Nothing else of keyguard imports it. The
fixtures of pytest that rest on it are in the module ``pytest_keyguard``, so that pytest does not
import keyguard before a test asks for it.
"""

from __future__ import annotations

from keyguard.testing.acting import acting_as, make_principal
from keyguard.testing.clock import MovingClock
from keyguard.testing.guards import ApiKey, MemoryGuards

__all__ = ["ApiKey", "MemoryGuards", "MovingClock", "acting_as", "make_principal"]
