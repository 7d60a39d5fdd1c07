"""How long it takes to import the keys of another system."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from time import perf_counter

from keyguard import Keyguard
from tests.services import PostgreSQL, RedisServer, running

__all__ = ["ROWS", "measure"]

ROWS = 100_000


def measure() -> dict[str, tuple[float, float]]:
    """Import hashes into an empty store of each kind, and then the same rows again.

    Returns:
        By store, seconds for the first run and for the second.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        postgresql, _ = stack.enter_context(running(PostgreSQL)).create_database()
        redis, _ = stack.enter_context(running(RedisServer)).create_database()
        urls = {"SQLite": f"sqlite:///{folder}/keys.db", "PostgreSQL": postgresql, "Redis": redis}
        return {name: _imported(url) for name, url in urls.items()}


def _imported(url: str) -> tuple[float, float]:
    with Keyguard(url, imported_formats=["drf"]) as guard:
        guard.migrate()
        guard.organizations.create("acme")
        took: list[float] = []
        for expected in ((ROWS, 0), (0, ROWS)):
            begin = perf_counter()
            report = guard.keys.import_tokens(_rows())
            took.append(perf_counter() - begin)
            if (report.imported, report.present) != expected:
                raise RuntimeError(f"the import did not do what was expected: {report}")
    return took[0], took[1]


def _rows() -> Iterator[str]:
    """Yield rows as an export of djangorestframework-api-key has them."""
    for number in range(ROWS):
        prefix = f"{number:08}"
        token = f"{prefix}.{hashlib.sha256(prefix.encode()).hexdigest()[:32]}"
        row = {
            "organization": "acme",
            "name": f"key {number}",
            "scopes": ["inference:read"],
            "format": "drf",
            "lookup": prefix,
            "hash": "sha512$$" + hashlib.sha512(token.encode()).hexdigest(),
            "created_at": "2025-01-31T09:00:00Z",
        }
        yield json.dumps(row)
