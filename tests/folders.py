"""Where tests keep what they throw away: in memory, where there is room."""

from __future__ import annotations

import shutil
from pathlib import Path

__all__ = ["SCRATCH"]

_IN_MEMORY = Path("/dev/shm")
_ENOUGH = 4 << 30
"""Bytes; a run writes less than half of it. A container has 64 MB there, or what it asks for."""


def _has_room() -> bool:
    return _IN_MEMORY.is_dir() and shutil.disk_usage(_IN_MEMORY).free >= _ENOUGH


# What a test commits shall outlive its process, never the machine: no disk needs to be waited for.
# Short as well, for a socket's path may have no more than 107 characters.
SCRATCH = _IN_MEMORY if _has_room() else Path("/tmp")
