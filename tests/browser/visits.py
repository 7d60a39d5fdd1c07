"""Somebody who uses the console in a browser, with a mouse or by keyboard alone."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Locator, Page

from tests.browser.site import Site

_MOST_TABS = 120


class Visitor:
    """Somebody at a page.

    Args:
        page: The page.
        site: The site.
    """

    def __init__(self, page: Page, site: Site) -> None:
        self.page = page
        self.site = site
        self.complaints: list[str] = []
        page.set_default_timeout(60_000)
        page.on("console", self._listen)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))

    def _listen(self, message: Any) -> None:
        text = message.text
        # The browser tells of each answer with an error status; those are expected.
        if message.type in ("error", "warning") and "the server responded with" not in text:
            self.complaints.append(text)

    def be(self, who: str) -> None:
        """Become somebody else, as far as the host application knows."""
        # The worst that a host's cookie can be: sent along from every site.
        cookie = {"name": "who", "value": who, "url": self.site.url}
        self.page.context.add_cookies([cookie])  # type: ignore[list-item]  # of typed dicts

    def go(self, path: str) -> None:
        self.page.goto(f"{self.site.url}/keys{path}")

    def link(self, name: str) -> None:
        self.press(self.page.get_by_role("link", name=name, exact=True).first)

    def button(self, name: str) -> None:
        self.press(self.page.get_by_role("button", name=name, exact=True).first)

    def press(self, target: Locator) -> None:
        target.click()

    def toggle(self, name: str) -> None:
        self.page.get_by_role("checkbox", name=re.compile(f"^{name}")).first.click()

    def write(self, label: str, text: str) -> None:
        self.page.get_by_label(label).first.fill(text)

    def choose(self, label: str, option: str) -> None:
        self.page.get_by_label(label).first.select_option(label=option)

    def sees(self, text: str) -> None:
        self.page.get_by_text(text).first.wait_for()

    def heading(self, text: str) -> None:
        self.page.get_by_role("heading", level=1, name=text).wait_for()


class KeyboardVisitor(Visitor):
    """Somebody who has no mouse: reaches everything by Tab, and sees where the focus is."""

    def press(self, target: Locator) -> None:
        self._reach(target)
        self.page.keyboard.press("Enter")

    def toggle(self, name: str) -> None:
        self._reach(self.page.get_by_role("checkbox", name=re.compile(f"^{name}")).first)
        self.page.keyboard.press("Space")

    def write(self, label: str, text: str) -> None:
        self._reach(self.page.get_by_label(label).first)
        self.page.keyboard.press("ControlOrMeta+A")
        self.page.keyboard.type(text)

    def choose(self, label: str, option: str) -> None:
        self._reach(self.page.get_by_label(label).first)
        self.page.keyboard.type(option)

    def _reach(self, target: Locator) -> None:
        target.wait_for()
        for _ in range(_MOST_TABS):
            if target.evaluate("element => element === document.activeElement"):
                outline = target.evaluate("element => getComputedStyle(element).outlineStyle")
                assert outline != "none"
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not lead to {target}")


MODES: dict[str, tuple[type[Visitor], dict[str, Any]]] = {
    "script": (Visitor, {}),
    "no-script": (Visitor, {"java_script_enabled": False}),
    "keyboard": (KeyboardVisitor, {}),
    "narrow": (Visitor, {"viewport": {"width": 360, "height": 740}}),
    "dark": (Visitor, {"color_scheme": "dark"}),
    "calm": (Visitor, {"reduced_motion": "reduce", "forced_colors": "active"}),
}


@contextmanager
def visiting(browser: Browser, site: Site, mode: str = "script") -> Generator[Visitor]:
    """Visit a site; at the end the browser must have had nothing to complain about."""
    kind, options = MODES[mode]
    context = browser.new_context(**options)
    visitor = kind(context.new_page(), site)
    try:
        yield visitor
    finally:
        context.close()
    assert visitor.complaints == []
