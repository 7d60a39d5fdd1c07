"""Every page with ordinary, empty and hostile data, without a guard."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from keyguard.admin.console.members import OrganizationMember
from keyguard.admin.console.render import rendered
from keyguard.admin.console.static import static_files

NOW = datetime(2026, 11, 29, 18, 0, tzinfo=UTC)
DAY = timedelta(days=1)
TOKEN = "aiaas_live_k0000000000000010123456789abcdefghijklmnopqrstuvwxyzABCDEF012"
HOSTILE = "<script>alert(1)</script>\" onx='1' \u202egnp.exe {{ 7*7 }} =1+1 " + "W" * 140
KINDS = ("ordinary", "empty", "hostile")


def _key(number: int, name: str, state: str = "active", **fields: Any) -> SimpleNamespace:
    return SimpleNamespace(
        **{
            "id": f"k{number:015d}",
            "name": name,
            "scopes": {"inference:read", "inference:write"},
            "owner": "grace",
            "created_at": NOW - 90 * DAY,
            "not_before": None,
            "ends_at": NOW + 12 * DAY,
            "stops_at": NOW + 12 * DAY,
            "last_used_at": NOW - timedelta(minutes=4),
            "last_used_address": "203.0.113.7",
            "allowed_networks": ("203.0.113.0/24",),
            "revoked_at": None,
            "successor": None,
            "metadata": {"team": "search"},
            "status": lambda now: state,
        }
        | fields
    )


def _request(text: str, state: str, **fields: Any) -> SimpleNamespace:
    return SimpleNamespace(
        **{
            "id": "req_0000000000000001",
            "name": text,
            "requester": text if text == HOSTILE else "grace",
            "asked": SimpleNamespace(scopes={"inference:read", "admin"}),
            "created_at": NOW - DAY,
            "reason": text,
            "decided_by": (),
            "decided_at": None,
            "note": None,
            "key": None,
            "claim_by": NOW + 3 * DAY,
            "version": 1,
            "status": lambda now: state,
        }
        | fields
    )


def _bars(split: bool = True) -> SimpleNamespace:
    bars = [
        SimpleNamespace(
            name=f"{n}:00",
            yes=(n * 37 % 100) * 9 if n > 6 else 0,
            no=n * 7 % 90 if n % 4 == 0 else 0,
        )
        for n in range(24)
    ]
    most = max(bar.yes + bar.no for bar in bars)
    return SimpleNamespace(bars=bars, most=most, split=split, label="Requests", yes=12345, no=12)


def samples(kind: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the pages by name: the template and its data."""
    full = kind != "empty"
    text = HOSTILE if kind == "hostile" else "Nightly batch"
    organization = SimpleNamespace(
        id="org_0000000000000001",
        slug="acme",
        name=text if kind == "hostile" else "Acme Labs",
        created_at=NOW - 400 * DAY,
        disabled_at=None,
        time_zone="Europe/Berlin",
        scopes={"inference:read", "inference:write", "analytics:read"} if full else None,
        max_key_lifetime=90 * DAY if full else None,
        max_keys=50 if full else None,
        plan="pro" if full else None,
        limits=(SimpleNamespace(name="burst", rates=("100/minute",), per="key"),) if full else (),
    )
    common: dict[str, Any] = {
        "base": "/keys",
        "realm": "AIaaS",
        "organization": organization,
        "home": "/organizations/acme",
        "caller": SimpleNamespace(
            name=text if kind == "hostile" else "Ada", role="administrator", signs_out=True
        ),
        "places": [
            (name, f"/organizations/acme{path}")
            for name, path in (
                ("Overview", ""),
                ("Keys", "/keys"),
                ("Key requests", "/requests"),
                ("Usage", "/usage"),
                ("Audit", "/audit"),
                ("Limits", "/limits"),
                ("Members", "/members"),
                ("Organization", "/settings"),
                ("My keys", "/mine"),
            )
        ],
        "several": True,
        "section": "",
        "notice": "",
        "problem": "",
        "now": NOW,
        "parties": {},
        "zone": "Europe/Berlin",
        "can": {
            "issue",
            "ask",
            "revoke",
            "rotate",
            "edit",
            "check",
            "approve",
            "deny",
            "disable",
            "create",
        },
        "static": lambda name: f"/static/{static_files()[name].name}",
        "token": lambda action: "0" * 43,
    }
    keys = [
        _key(1, text),
        _key(
            2, "Dashboard of the sales team", "rotated", stops_at=NOW - DAY, successor=f"k{1:015d}"
        ),
        _key(3, "Reporting", "not yet valid", last_used_at=None, stops_at=None, owner=None),
        _key(4, "Old exporter", "revoked", scopes={"admin"}),
        _key(5, "Trial", "expired", owner=text if kind == "hostile" else "linus"),
    ]
    counts = [(n * 53 % 47) * (n % 7 != 0) for n in range(30)]
    rows = [(key, [0] * 30 if n == 2 else counts) for n, key in enumerate(keys)] if full else []
    waiting = [_request(text, "pending")] if full else []
    decided = [_request("Crawler", state) for state in ("approved", "denied", "claimed", "lapsed")]
    limits = [
        SimpleNamespace(name="burst", quota=100, remaining=63, window=60, enforce=True),
        SimpleNamespace(name="daily", quota=5000, remaining=0, window=86400, enforce=False),
    ]
    entries = [
        SimpleNamespace(
            at=NOW - timedelta(hours=n),
            actor=text if kind == "hostile" else "person:ada",
            action=action,
            subject="k000000000000001",
            before=before,
            after=after,
        )
        for n, (action, before, after) in enumerate(
            (
                (
                    "key.updated",
                    {"name": "Nightly"},
                    {"name": text, "scopes": ["inference:read"]} | {},
                ),
                ("key.issued", None, {"name": text, "expires_at": "2026-12-24T12:00:00Z"}),
                ("organization.enabled", {"disabled_at": "2026-11-01"}, {"disabled_at": None}),
                ("key.revoked", None, {}),
            )
        )
    ]
    entries[0].before["scopes"] = []
    form = SimpleNamespace(
        name=text if full else "",
        scopes={"inference:read"} if full else set(),
        lifetime="90",
        networks="",
        owner="grace",
        limits="",
        reason=None,
        expires=None,
        note="",
        once="1",
        version="",
    )
    choices = [
        ("inference:read", "Read inference capabilities", ()),
        ("inference:write", "Make inference requests", ()),
        ("analytics:read", "Access usage analytics", ()),
        (
            "admin",
            text if kind == "hostile" else "Administrative operations",
            ("analytics:read", "keys:read"),
        ),
    ]
    lifetimes = [("30", "30 days"), ("90", "90 days"), ("365", "a year"), ("", "no end")]
    preview = SimpleNamespace(
        may=[("inference:read", "Read inference capabilities")],
        may_not=[
            ("inference:write", "Make inference requests"),
            ("admin", "Administrative operations"),
        ],
    )
    timeline = [
        SimpleNamespace(text="Issued", key=keys[1].id, at=NOW - 90 * DAY),
        SimpleNamespace(
            text="Rotated: works on beside its successor until 28 Nov",
            key=keys[1].id,
            at=NOW - 8 * DAY,
        ),
        SimpleNamespace(text="Issued", key=keys[0].id, at=NOW - 8 * DAY),
        SimpleNamespace(text="Ends", key=keys[0].id, at=NOW + 12 * DAY),
    ]
    requests = {
        name: _request(text, state, **fields)
        for name, state, fields in (
            ("pending", "pending", {}),
            ("approved", "approved", {"decided_by": ("ada",), "decided_at": NOW, "note": text}),
        )
    }
    action = {
        "title": "Revoke this key?",
        "action": "/keys/k1/revoke",
        "hidden": [("version", 1)],
        "lead": "Requests with it are refused from now on, everywhere. This can't be undone.",
        "listed": [text],
        "fields": [
            {
                "name": "reason",
                "label": "Why",
                "value": "superseded",
                "kind": "select",
                "choices": [("unspecified", "unspecified"), ("superseded", "superseded")],
            },
            {"name": "note", "label": "Note", "value": text if kind == "hostile" else ""},
        ],
        "harmful": True,
        "submit": "Revoke the key",
        "back": "/keys/k1",
    }
    pages: dict[str, tuple[str, dict[str, Any]]] = {
        "overview": (
            "overview.html",
            {
                "title": "Overview",
                "section": "Overview",
                "cut": False,
                "states": [("active", 12), ("not yet valid", 1), ("rotated", 3), ("revoked", 7)]
                if full
                else [],
                "day": _bars(),
                "hints": [
                    (
                        SimpleNamespace(
                            kind="ends_soon",
                            text="The key ends on 11 Dec 2026 at 18:00 UTC, and has no successor.",
                        ),
                        keys[0],
                    ),
                    (
                        SimpleNamespace(
                            kind="ended_key_presented",
                            text="The key is revoked, and was still presented 14 times in 7 days.",
                        ),
                        keys[3],
                    ),
                ],
                "ending": keys[:2],
                "waiting": waiting,
            },
        ),
        "keys": (
            "keys.html",
            {
                "title": "Keys",
                "section": "Keys",
                "rows": rows,
                "next": "?after=x" if full else None,
                "filter": SimpleNamespace(q=text if kind == "hostile" else "", status="", owner=""),
                "statuses": ["active", "revoked"],
                "filtered": False,
                "damaged": ("k9",) if kind == "hostile" else (),
            },
        ),
        "mine": (
            "mine.html",
            {
                "title": "My keys",
                "section": "My keys",
                "rows": rows[:2],
                "requests": waiting,
                "next": None,
            },
        ),
        "key": (
            "key.html",
            {
                "title": text,
                "section": "Keys",
                "key": keys[0],
                "timeline": timeline,
                "chart": _bars(),
                "outcomes": [("allowed", 12345), ("limited", 12)] if full else [],
                "limits": limits if full else [],
                "check": SimpleNamespace(
                    method="POST",
                    path=text if kind == "hostile" else "/v1/inference",
                    tried=SimpleNamespace(
                        reason="scope_missing",
                        steps=[
                            SimpleNamespace(name="status", passed=True, detail="It is active."),
                            SimpleNamespace(name="scopes", passed=False, detail=text),
                            SimpleNamespace(name="limits", passed=None, detail=""),
                        ],
                    )
                    if full
                    else None,
                    problem="" if full else "A path begins with a slash.",
                ),
                "entries": entries if full else [],
                "next": None,
            },
        ),
        "issue": (
            "key_form.html",
            {
                "title": "Issue a key",
                "section": "Keys",
                "lead": "",
                "action": "/organizations/acme/keys",
                "form": form,
                "choices": choices,
                "lifetimes": lifetimes,
                "lifetime_hint": "At most 90 days here.",
                "preview": preview if full else None,
                "submit": "Issue the key",
                "back": "/organizations/acme/keys",
            },
        ),
        "revoke": ("action.html", action),
        "token": (
            "token.html",
            {
                "title": "Your new key",
                "token_text": TOKEN if full else None,
                "kept": "Only a hash of it is kept, so nobody can show it again.",
                "what": "Token",
                "lines": [
                    (
                        "Try it",
                        "curl -H 'Authorization: Bearer aiaas_live_…' https://api.example.com/v1/models",
                    ),
                    (
                        ".env",
                        f"AIAAS_KEY={TOKEN}",
                    ),
                ],
                "stored": "/keys/k1/stored",
                "lost": "The token was shown once. If you did not store it, rotate the key.",
                "back": "/keys/k1",
                "back_text": "Go to the key",
            },
        ),
        "requests": (
            "requests.html",
            {
                "title": "Key requests",
                "section": "Key requests",
                "waiting": waiting,
                "decided": decided if full else [],
                "next": None,
            },
        ),
        "request": (
            "request.html",
            {
                "title": text,
                "section": "Key requests",
                "request": requests["pending"],
                "missing": 0,
                "compared": [
                    ("Scopes", {"inference:read", "admin"}, None),
                    ("Works for", "365 days", None),
                    ("Networks", "any", None),
                ],
                "form": form,
                "choices": choices,
                "lifetimes": lifetimes,
                "lifetime_hint": "",
            },
        ),
        "approved": (
            "request.html",
            {
                "title": text,
                "section": "Key requests",
                "can": {"claim", "withdraw"},
                "request": requests["approved"],
                "missing": 0,
                "compared": [
                    ("Scopes", {"inference:read", "admin"}, {"inference:read"}),
                    ("Works for", "365 days", "90 days"),
                    ("Networks", "any", "any"),
                ],
            },
        ),
        "usage": (
            "usage.html",
            {
                "title": "Usage",
                "section": "Usage",
                "csv": "?csv",
                "total": 123768,
                "as_of": NOW,
                "complete": full,
                "filter": SimpleNamespace(
                    start="2026-11-28",
                    end="2026-11-29",
                    step="hour",
                    group="outcome",
                    zone="Europe/Berlin",
                    key="",
                ),
                "chart": _bars(),
                "groups": ["allowed", "limited", text if kind == "hostile" else "unknown_token"],
                "table": [(f"28 Nov, {n:02}:00", (n * 37, n, 0), n * 38) for n in range(24)]
                if full
                else [],
            },
        ),
        "audit": (
            "audit.html",
            {
                "title": "Audit",
                "section": "Audit",
                "entries": entries if full else [],
                "next": "?after=1" if full else None,
            },
        ),
        "limits": (
            "limits.html",
            {
                "title": "Limits",
                "section": "Limits",
                "own": organization.limits,
                "next": None,
                "rows": [(keys[0], limits), (keys[1], [])] if full else [],
            },
        ),
        "organization": (
            "organization.html",
            {
                "title": "Organization",
                "section": "Organization",
            },
        ),
        "members": (
            "members.html",
            {
                "title": "Members",
                "section": "Members",
                "members": [
                    OrganizationMember("ada", text, "administrator", 0, 2),
                    OrganizationMember(text, "", "", 3, 0),
                ]
                if full
                else [],
                "told": kind != "empty",
                "cut": 1000 if kind == "hostile" else 0,
                "next": None,
            },
        ),
        "organizations": (
            "organizations.html",
            {
                "title": "Organizations",
                "organization": None,
                "places": [],
                "next": None,
                "items": [(organization, "administrator")] if full else [],
            },
        ),
        "sign-in": (
            "sign_in.html",
            {
                "title": "Sign in",
                "caller": None,
                "organization": None,
                "lead": "Manage the API keys of AIaaS.",
                "action": "/sign-in",
                "query": "",
                "asks": True,
                "problem": "The key is not valid." if kind == "hostile" else "",
            },
        ),
        "error": (
            "error.html",
            {
                "title": "Not found",
                "caller": None,
                "organization": None,
                "text": "There is no such page, or you may not see it.",
                "link": "/keys/",
                "link_text": "Go to the start",
            },
        ),
    }
    return {name: (template, common | data) for name, (template, data) in pages.items()}


def page(name: str, kind: str, **data: object) -> str:
    """Return one page as HTML."""
    template, values = samples(kind)[name]
    given: Mapping[str, object] = values | data
    return rendered(template, given)
