"""The packaged Alembic migrations.

What belongs here: in ``versions/``, one module for each revision, which is never changed once it is
released and has an ``upgrade`` that takes the operations as its argument; and below, the list of
the revisions, which a test compares with Alembic's own. There is no ``env.py``: Alembic's ``op``
and ``context`` are variables of the process, and a host may use them for its own migrations.
"""

from __future__ import annotations

REVISIONS = ("0001",)
"""All revisions, oldest first."""

HEAD = REVISIONS[-1]
"""The revision that this version of keyguard works with."""
