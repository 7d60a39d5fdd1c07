"""The packaged Alembic migrations.

What belongs here: in ``versions/``, one module for each revision, never changed once released, with
an ``upgrade`` that takes the operations as its argument; and below, the list of them, which a test
compares with Alembic's own. There is no ``env.py``: Alembic's ``op`` and ``context`` are variables
of the process, and a host may be using them for migrations of its own.
"""

from __future__ import annotations

__all__ = ["HEAD", "REVISIONS"]

REVISIONS = ("0001", "0002", "0003")
"""All revisions, oldest first."""

HEAD = REVISIONS[-1]
"""The revision that this version of keyguard works with."""
