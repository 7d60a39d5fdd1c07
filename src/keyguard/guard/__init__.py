"""The guards: what a service author holds.

What belongs here: :class:`Keyguard` and :class:`AsyncKeyguard`, which put the parts together, and
the ports that the core asks. The driver that runs the core for sync code is used here alone.
"""

from __future__ import annotations

from keyguard.guard.async_keyguard import AsyncKeyguard
from keyguard.guard.keyguard import Keyguard

__all__ = ["AsyncKeyguard", "Keyguard"]
