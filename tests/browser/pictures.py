"""Takes the pictures of docs/console.md; it needs Pillow, which nothing else here does.

::

    .venv/bin/pip install pillow && .venv/bin/python -m tests.browser.pictures
"""

from __future__ import annotations

import random
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.browser.site import Site
from tests.world import StandingClock

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
SIZES = {"": (1120, 740), "-narrow": (360, 740)}


def main() -> None:
    clock = StandingClock(datetime.fromtimestamp(time.time(), UTC) - timedelta(days=29))
    site = Site(clock)
    key = _month(site, clock)
    asked = site.guard.requests.create(
        organization="acme",
        name="Crawler",
        scopes=["inference:read", "inference:write"],
        expires_in=timedelta(days=90),
        reason="To index the documentation every night.",
        actor="grace",
    ).request.id
    pictures = {
        "console-overview": ("/organizations/acme", "light", ""),
        "console-overview-dark": ("/organizations/acme", "dark", ""),
        "console-key-dark": (f"/keys/{key}", "dark", ""),
        "console-request": (f"/requests/{asked}", "light", ""),
        "console-keys-narrow": ("/organizations/acme/keys", "light", "-narrow"),
    }
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for name, (path, scheme, size) in pictures.items():
            width, height = SIZES[size]
            page = browser.new_page(
                viewport={"width": width, "height": height},
                color_scheme="dark" if scheme == "dark" else "light",
            )
            page.context.add_cookies([{"name": "who", "value": "administrator", "url": site.url}])
            page.goto(f"{site.url}/keys{path}")
            file = FOLDER / f"{name}.png"
            page.screenshot(path=file)
            Image.open(file).convert("RGB").quantize(48).save(file, optimize=True)
            page.close()
        browser.close()
    site.close()


def _month(site: Site, clock: StandingClock) -> str:
    """Let a month of use pass, and return the id of a key."""
    guard, draw = site.guard, random.Random(1)
    issued = [
        guard.keys.issue(
            organization="acme",
            name=name,
            scopes=scopes,
            owner=owner,
            limits=["120/minute"],
            expires_in=timedelta(days=days),
        )
        for name, scopes, owner, days in (
            ("Nightly batch", ["inference:read", "inference:write"], "grace", 90),
            ("Sales dashboard", ["analytics:read"], "linus", 40),
            ("Old exporter", ["inference:read"], "grace", 60),
        )
    ]
    for hour in range(29 * 24):
        clock.advance(timedelta(hours=1))
        for number, key in enumerate(issued):
            fields = [f"Bearer {key.token.reveal()}"]
            for _ in range(draw.randint(0, 4) * (3 - number)):
                guard.authenticate(fields)
            if draw.random() < 0.1:
                guard.authenticate(fields, scopes=["admin"])
        guard.flush()
        if hour == 20 * 24:
            guard.keys.revoke(issued[2].key.id, reason="superseded", actor="ada")
        if hour == 26 * 24:
            guard.keys.rotate(issued[0].key.id, grace=timedelta(days=7), actor="grace")
    return issued[0].key.id


if __name__ == "__main__":
    main()
