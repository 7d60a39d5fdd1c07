"""AIaaS: what the service does, in any framework.

It is an "AI as a service" whose model repeats the prompt. The functions take the content of a
request and return the content of the answer, so both applications give the same bytes.
"""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, date, datetime
from typing import Any, NoReturn
from urllib.parse import parse_qs

from keyguard import Key, OwnUsage, Page, Principal, Settings, UsageItem, UsageReport

CATALOGUE = {
    "inference:read": "Read inference capabilities",
    "inference:write": "Make inference requests",
    "analytics:read": "Access usage analytics",
    "admin": "Administrative operations",
}
MODELS = {"models": [{"id": "gpt-4", "description": "Repeats the prompt"}]}
HEALTH = {"status": "ok"}
ORIGIN = "https://app.example"  # of the pages that may call the service from a browser
EXPOSED = ["RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate"]  # to those pages

METRICS = "/metrics"  # public here, where only this machine can ask; see docs/metrics.md

JSON = "application/json"
PROBLEM_JSON = "application/problem+json"

_LIMIT = re.compile(r"[1-9][0-9]?|100")


class UnprocessableError(ValueError):
    """The content of a request is wrong: 422, and the message says why."""


def settings() -> Settings:
    return Settings.from_env(
        realm="AIaaS", prefix="aiaas_live", catalogue=CATALOGUE, public=["/healthz", METRICS]
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
    asked = _parameters(query)
    limit = asked.get("limit", "100")
    if not _LIMIT.fullmatch(limit):
        raise UnprocessableError("The parameter 'limit' is not a whole number from 1 to 100.")
    return {"limit": int(limit), "after": asked.get("after")}


def report_asked_for(query: bytes) -> dict[str, Any]:
    """Read ``start=`` and ``end=`` (days or times), ``step=``, ``zone=``, ``group_by=`` and a page.

    The guard refuses what is wrong with the others.
    """
    asked = _parameters(query)
    wanted = page_asked_for(query)
    for name in ("start", "end"):
        if name in asked:
            wanted[name] = _time(name, asked[name])
    for name in ("step", "zone", "group_by"):
        if name in asked:
            wanted[name] = asked[name]
    return wanted


def usage_of(organization: str, report: UsageReport) -> dict[str, Any]:
    return {
        "organization": organization,
        "items": [_counted(item) for item in report.items],
        "as_of": report.as_of.isoformat(),
        "complete": report.complete,
        "next": report.next,
    }


def own_usage(principal: Principal, own: OwnUsage) -> dict[str, Any]:
    return {
        "key": principal.key_id,
        "today": [_counted(item) for item in own.day],
        "this_month": [_counted(item) for item in own.month],
        "limits": [
            {"name": limit.name, "quota": limit.quota, "remaining": limit.remaining}
            for limit in own.limits
        ],
        "as_of": own.as_of.isoformat(),
    }


def _counted(item: UsageItem) -> dict[str, Any]:
    period = {"start": item.start.isoformat(), "end": item.end.isoformat()}
    return {**period, "group": item.group, "n": item.n, "units": item.units}


def _parameters(query: bytes) -> dict[str, str]:
    asked = parse_qs(query.decode("latin-1"), keep_blank_values=True)
    return {name: values[-1] for name, values in asked.items()}


def _time(name: str, text: str) -> date:
    try:
        is_day = len(text) == len("2030-01-31")
        return date.fromisoformat(text) if is_day else datetime.fromisoformat(text)
    except ValueError:
        raise UnprocessableError(
            f"The parameter '{name}' is not a time such as 2030-01-31 or 2030-01-31T09:00:00Z."
        ) from None


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
