"""Reading the pages of the documentation, and running what they show."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import jwt

from keyguard import AsyncKeyguard

ROOT = Path(__file__).parents[2]


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run(name: str, number: int, namespace: dict[str, Any]) -> dict[str, Any]:
    """Run one Python block of a page, and return what is defined after it."""
    code = blocks(page(name), "python")[number]
    exec(compile(code, f"{name}, block {number + 1}", "exec"), namespace)
    return namespace


def keys_of(guard: AsyncKeyguard, *scopes: str) -> list[str]:
    """Make an organization with one key for each scope, and return the tokens."""

    async def make() -> list[str]:
        await guard.organizations.create("acme")
        issue = guard.keys.issue
        made = [await issue(organization="acme", name="ci", scopes=[scope]) for scope in scopes]
        return [issued.token.reveal() for issued in made]

    return asyncio.run(make())


def jwt_of(secret: str) -> str:
    """Return the token of a person who is logged in."""
    return jwt.encode({"sub": "ann", "exp": time.time() + 3600}, secret, algorithm="HS256")
