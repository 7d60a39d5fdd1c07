"""AIaaS: what the service does, in any framework.

It is an "AI as a service" whose model repeats the prompt. The functions take the content of a
request and return the content of the answer, so both applications give the same bytes.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections import Counter
from datetime import UTC, datetime
from typing import Any, NoReturn
from urllib.parse import parse_qs

from keyguard import Key, Page, Settings

CATALOGUE = {
    "inference:read": "Read inference capabilities",
    "inference:write": "Make inference requests",
    "analytics:read": "Access usage analytics",
    "admin": "Administrative operations",
}
MODELS = {"models": [{"id": "gpt-4", "description": "Repeats the prompt"}]}
HEALTH = {"status": "ok"}
ORIGIN = "https://app.example"  # of the pages that may call the service from a browser

JSON = "application/json"
PROBLEM_JSON = "application/problem+json"

_LIMIT = re.compile(r"[1-9][0-9]?|100")


class UnprocessableError(ValueError):
    """The content of a request is wrong: 422, and the message says why."""


def settings() -> Settings:
    return Settings.from_env(
        realm="AIaaS", prefix="aiaas_live", catalogue=CATALOGUE, public=["/healthz"]
    )


def store_url() -> str:
    return os.environ.get("KEYGUARD_URL") or "sqlite:///aiaas.db"


def dump(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode()


def problem(error: Exception) -> bytes:
    title = "Unprocessable Content"
    return dump({"type": "about:blank", "title": title, "status": 422, "detail": str(error)})


def infer(body: bytes) -> dict[str, Any]:
    """Answer a prompt: ``{"model": ..., "prompt": ...}``, both strings."""
    try:
        question = json.loads(body.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise UnprocessableError("The body is not JSON.") from None
    if not isinstance(question, dict):
        raise UnprocessableError("The body is not a JSON object.")
    for field in ("model", "prompt"):
        if field not in question:
            raise UnprocessableError(f"The field '{field}' is missing.")
        if not isinstance(question[field], str):
            raise UnprocessableError(f"The field '{field}' is not a string.")
    return {"model": question["model"], "output": question["prompt"]}


def page_asked_for(query: bytes) -> dict[str, Any]:
    """Read ``limit=`` (1 to 100) and ``after=`` (the ``next`` of the previous page)."""
    asked = parse_qs(query.decode("latin-1"), keep_blank_values=True)
    limit = asked.get("limit", ["100"])[-1]
    if not _LIMIT.fullmatch(limit):
        raise UnprocessableError("The parameter 'limit' is not a whole number from 1 to 100.")
    return {"limit": int(limit), "after": asked.get("after", [None])[-1]}


def list_of(page: Page[Key]) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {"keys": [_describe(key, now) for key in page], "next": page.next}


def _describe(key: Key, now: datetime) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "status": key.status(now),
        "created_at": key.created_at.isoformat(),
        "not_before": key.not_before and key.not_before.isoformat(),
        "expires_at": key.expires_at and key.expires_at.isoformat(),
        "revoked_at": key.revoked_at and key.revoked_at.isoformat(),
    }


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


class Usage:
    """Counts inferences by organization, in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inferences = Counter[str]()

    def count(self, organization: str) -> None:
        with self._lock:
            self._inferences[organization] += 1

    def of(self, organization: str) -> dict[str, Any]:
        return {"organization": organization, "inferences": self._inferences[organization]}
