"""A browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from typing import NoReturn

import pytest
from playwright.sync_api import Browser, Error, sync_playwright

from tests.browser.site import Site

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


# Of a module, not of the session: while Playwright runs, no other test can run an event loop.
@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        _without_browser("no Chromium is installed; Debian has it in the package chromium")
    # As root, Chromium refuses to start with its sandbox.
    args = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=program, args=args)
        except Error as failure:
            _without_browser(f"{program} does not start: {failure}")
        yield started
        started.close()


def _without_browser(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def site() -> Generator[Site]:
    served = Site()
    yield served
    served.close()
