"""The whole story in a browser: ask, approve with less, claim, use, watch, rotate, revoke."""

from __future__ import annotations

from contextlib import suppress

import pytest
from playwright.sync_api import Browser, Error, expect

from keyguard import Allow
from tests.browser.site import Site
from tests.browser.visits import MODES, Visitor, visiting


@pytest.mark.campaign("script", "no-script")
@pytest.mark.parametrize("mode", MODES)
def test_a_key_is_asked_for_approved_claimed_used_watched_rotated_and_revoked(
    browser: Browser, site: Site, mode: str
) -> None:
    with visiting(browser, site, mode) as visitor:
        _story(visitor, site)


def _story(visitor: Visitor, site: Site) -> None:
    visitor.be("developer")
    visitor.go("/")
    visitor.link("Request a key")
    visitor.write("Name", "Crawler")
    visitor.toggle("inference:read")
    visitor.toggle("inference:write")
    visitor.write("Reason", "To index the docs")
    visitor.button("Send the request")
    visitor.sees("The request was sent.")
    visitor.sees("Pending")

    visitor.be("approver")
    visitor.go("/")
    visitor.link("Crawler")
    visitor.toggle("inference:write")
    visitor.choose("Works for", "30 days")
    visitor.write("Note", "Read only")
    visitor.button("Approve")
    visitor.sees("The request was approved.")

    visitor.be("developer")
    visitor.go("/")
    visitor.link("Crawler")
    visitor.sees("Read only")
    assert not site.guard.keys.list(organization="acme", owner="developer").items
    visitor.link("Claim the key…")
    visitor.button("Make the key")
    visitor.heading("Your new key")
    token = visitor.page.locator("#token").text_content()
    visitor.button("I have stored it")
    visitor.sees("The token will not be shown again.")
    _does_not_come_back(visitor, token)

    assert isinstance(_authenticated(site, token), Allow)
    assert not isinstance(_authenticated(site, token, "inference:write"), Allow)
    site.guard.flush()
    visitor.go("/")
    visitor.link("Crawler")
    told = visitor.page.get_by_role("img", name="1 accepted and 1 refused")
    expect(told.first).to_be_visible()
    visitor.link("Rotate…")
    visitor.choose("How long the old token goes on working", "not at all")
    visitor.button("Rotate the key")
    visitor.heading("Your new key")
    successor = visitor.page.locator("#token").text_content()
    visitor.button("I have stored it")
    visitor.sees("The token will not be shown again.")
    assert not isinstance(_authenticated(site, token), Allow)
    assert isinstance(_authenticated(site, successor), Allow)

    visitor.link("Revoke…")
    visitor.choose("Reason", "Superseded")
    visitor.write("Note", "not needed")
    visitor.button("Revoke the key")
    visitor.sees("It was revoked.")
    assert not isinstance(_authenticated(site, successor), Allow)


def _authenticated(site: Site, token: str | None, *scopes: str) -> object:
    return site.guard.authenticate([f"Bearer {token}"], scopes=scopes)


def _does_not_come_back(visitor: Visitor, token: str | None) -> None:
    """Go back to the page that showed a token: it is gone from the browser's history."""
    assert token is not None
    here = visitor.page.url
    with suppress(Error):  # ERR_CACHE_MISS: the browser has to send the form again
        visitor.page.go_back()
    expect(visitor.page.get_by_text(token)).to_have_count(0)
    visitor.page.goto(here)


def test_a_token_does_not_come_back_when_its_page_was_left_otherwise(
    browser: Browser, site: Site
) -> None:
    for mode in ("script", "no-script"):
        with visiting(browser, site, mode) as visitor:
            visitor.be("administrator")
            visitor.go("/organizations/acme/keys/new")
            visitor.write("Name", "Left")
            visitor.toggle("inference:read")
            visitor.button("Issue the key")
            visitor.heading("Your new key")
            token = visitor.page.locator("#token").text_content()
            visitor.link("Audit")
            visitor.heading("Audit")
            _does_not_come_back(visitor, token)


def test_a_dialog_closes_and_gives_the_focus_back(browser: Browser, site: Site) -> None:
    key = site.fill()
    with visiting(browser, site, "keyboard") as visitor:
        visitor.be("administrator")
        visitor.go(f"/keys/{key}")
        visitor.link("Revoke…")
        visitor.page.get_by_role("dialog", name="Revoke this key?").wait_for()
        visitor.page.keyboard.press("Escape")
        visitor.page.get_by_role("dialog").wait_for(state="detached")
        focused = visitor.page.evaluate("document.activeElement.textContent")
        assert focused == "Revoke…"
    assert site.guard.keys.get(key).revoked_at is None


def test_the_list_of_keys_is_filtered_while_somebody_types(browser: Browser, site: Site) -> None:
    site.fill("Crawler")
    with visiting(browser, site) as visitor:
        visitor.be("auditor")
        visitor.go("/organizations/acme/keys")
        rows = visitor.page.locator("tbody tr")
        before = rows.count()
        visitor.write("Name or id begins with", "Root")
        visitor.page.wait_for_url("**/keys?q=Root")
        assert (rows.count(), before) == (1, 6)


def test_the_preview_follows_the_scopes(browser: Browser, site: Site) -> None:
    with visiting(browser, site) as visitor:
        visitor.be("administrator")
        visitor.go("/organizations/acme/keys/new")
        visitor.toggle("admin")
        visitor.sees("With these scopes the key")
        preview = visitor.page.locator("#preview")
        may = preview.locator("div > div").first
        assert "analytics:read" in (may.text_content() or "")
