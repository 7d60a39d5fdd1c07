"""Every page in a browser: accessible, light, within its policy, and not to be forged."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Error, Response

from tests.browser.site import HOSTILE, Site
from tests.browser.visits import visiting


@pytest.mark.campaign("narrow")
@pytest.mark.parametrize("mode", ["script", "narrow", "dark"])
def test_axe_finds_nothing_on_any_page(browser: Browser, site: Site, mode: str) -> None:
    key = site.fill()
    axe = Axe()
    with visiting(browser, site, mode) as visitor:
        for path, who in site.paths(key).items():
            visitor.be(who)
            visitor.go(path)
            found = axe.run(visitor.page)
            assert found.violations_count == 0, f"{path}: {found.generate_report()}"
            width = visitor.page.evaluate("document.documentElement.scrollWidth")
            assert width <= visitor.page.viewport_size["width"], path  # type: ignore[index]


def test_axe_finds_nothing_on_the_page_of_a_token_and_in_a_dialog(
    browser: Browser, site: Site
) -> None:
    key = site.fill()
    with visiting(browser, site) as visitor:
        visitor.be("administrator")
        visitor.go(f"/keys/{key}")
        visitor.link("Rotate…")
        visitor.page.get_by_role("dialog").wait_for()
        found = Axe().run(visitor.page)
        assert found.violations_count == 0, found.generate_report()
        visitor.button("Rotate the key")
        visitor.heading("Your new key")
        found = Axe().run(visitor.page)
        assert found.violations_count == 0, found.generate_report()


def test_axe_finds_nothing_where_there_is_nothing_yet(browser: Browser, site: Site) -> None:
    with visiting(browser, site) as visitor:
        visitor.be("operator")
        site.guard.organizations.create("new", name="New")
        for page in (
            "",
            "/keys",
            "/requests",
            "/usage",
            "/audit",
            "/limits",
            "/settings",
            "/members",
        ):
            visitor.go(f"/organizations/new{page}")
            found = Axe().run(visitor.page)
            assert found.violations_count == 0, f"{page}: {found.generate_report()}"


def test_stored_text_is_text_on_every_page(browser: Browser, site: Site) -> None:
    key = site.fill(HOSTILE)
    site.guard.organizations.update("acme", name=HOSTILE)
    with visiting(browser, site) as visitor:
        for path, who in site.paths(key).items():
            visitor.be(who)
            visitor.go(path)
            assert visitor.page.evaluate("window.pwned") is None
            assert visitor.page.locator("img").count() == 0
            links = visitor.page.locator("a").evaluate_all(
                "links => links.map(link => link.protocol)"
            )
            assert set(links) <= {"http:"}


def test_a_page_is_light_and_its_style_and_module_are_loaded_once(
    browser: Browser, site: Site
) -> None:
    key = site.fill()
    loaded: list[Response] = []

    def keep(response: Response) -> None:
        loaded.append(response)

    with visiting(browser, site) as visitor:
        visitor.page.on("response", keep)
        for path, who in site.paths(key).items():
            visitor.be(who)
            del loaded[:]
            visitor.go(path)
            bodies = [response.body() for response in loaded if response.status < 300]
            assert sum(map(len, bodies)) < 60_000
            assert len(loaded) <= 3, [response.url for response in loaded]
    assert sum(path.startswith("/keys/static/") for path in site.served) == 2


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (timedelta(hours=23, minutes=50), "in 1 day"),
        (timedelta(hours=40), "in 2 days"),
        (timedelta(days=90), "in 90 days"),
        (timedelta(days=3 * 365), "in 3 years"),
    ],
)
def test_the_distance_of_a_time_is_rounded_as_on_the_command_line(
    browser: Browser, site: Site, span: timedelta, words: str
) -> None:
    key = site.guard.keys.issue(organization="acme", name="Batch", expires_in=span).key
    with visiting(browser, site) as visitor:
        visitor.be("administrator")
        visitor.go(f"/keys/{key.id}")
        ends = visitor.page.locator("dt", has_text="Ends").locator("+ dd")
        issued = visitor.page.locator("dt", has_text="Issued").locator("+ dd")

        assert ends.inner_text().endswith(f"({words})")
        assert issued.inner_text().endswith(("(just now)", "seconds ago)", "(1 second ago)"))


def test_forced_colours_keep_the_legend_and_the_place_in_the_navigation(
    browser: Browser, site: Site
) -> None:
    site.fill()
    with visiting(browser, site, "calm") as visitor:
        visitor.be("administrator")
        visitor.go("/organizations/acme")
        style = "(element, pseudo) => getComputedStyle(element, pseudo)"
        current = visitor.page.locator("nav [aria-current]")
        assert current.evaluate(f"element => ({style})(element).outlineStyle") == "solid"
        colours = {
            visitor.page.locator(key).evaluate(
                f"element => ({style})(element, '::before').backgroundColor"
            )
            for key in (".key:not(.no)", ".key.no", "body")
        }
        assert len(colours) == 3


_FORM = (
    '<form method="post" action="{url}"><input name="reason" value="superseded">'
    '<input name="csrf" value="x"></form><script>document.forms[0].submit()</script>'
)
_FETCH = (
    '<script>fetch("{url}", {{method: "POST", mode: "no-cors", credentials: "include", '
    'headers: {{"Content-Type": "application/x-www-form-urlencoded"}}, '
    'body: "reason=superseded"}}).finally(() => document.title = "done")</script>'
)
_FRAME = (
    '<iframe sandbox="allow-scripts allow-forms" srcdoc="{form}"></iframe>'
    '<script>setTimeout(() => document.title = "done", 1500)</script>'
)


@pytest.mark.parametrize("attack", ["form", "fetch", "sandboxed frame", "navigation", "frame"])
def test_another_site_changes_nothing(browser: Browser, site: Site, attack: str) -> None:
    key = site.fill()
    url = f"{site.url}/keys/keys/{key}/revoke"
    form = _FORM.format(url=url)
    page = {
        "form": form,
        "fetch": _FETCH.format(url=url),
        "sandboxed frame": _FRAME.format(form=form.replace('"', "&quot;")),
        "navigation": f'<script>location = "{url}?reason=superseded"</script>',
        "frame": f'<iframe src="{url}"></iframe><script>onload = () => document.title = "done"'
        "</script>",
    }[attack]
    context = browser.new_context()
    context.add_cookies(
        [{"name": "who", "value": "administrator", "url": site.url}]  # sent from every site
    )
    tab = context.new_page()
    tab.goto(f"{site.url}/keys/keys/{key}")
    assert tab.get_by_role("link", name="Revoke…").count() == 1
    del site.served[:]
    tab.goto(f"{site.other_url}/evil?page={quote(page)}")
    if attack in ("form", "navigation"):
        tab.wait_for_url(f"{url}**")
    else:
        tab.wait_for_function("document.title == 'done'")
    if attack == "form":
        assert "another site" in tab.content() or "Sign in" in tab.content()
    if attack == "frame":
        for frame in tab.frames[1:]:
            assert "Revoke the key" not in _content(frame)
    assert f"/keys/keys/{key}/revoke" in site.served
    assert site.guard.keys.get(key).revoked_at is None
    context.close()


def _content(frame: object) -> str:
    try:
        return str(frame.content())  # type: ignore[attr-defined]
    except Error:
        return ""


def test_a_session_by_key_works_in_a_browser_over_plain_http_on_the_own_machine(
    browser: Browser, site: Site
) -> None:
    from keyguard.admin import Console

    site._console = Console(site.guard, key_sign_in=True)
    token = site.guard.keys.issue(organization="acme", name="Mine", scopes=["admin"]).token
    with visiting(browser, site) as visitor:
        visitor.go("/organizations/acme/keys")
        visitor.heading("Sign in")
        found = Axe().run(visitor.page)
        assert found.violations_count == 0, found.generate_report()
        visitor.write("API key", token.reveal())
        visitor.button("Sign in")
        visitor.heading("Keys")
        cookies = {item["name"]: item for item in visitor.page.context.cookies()}  # type: ignore[typeddict-item]
        assert cookies["__Host-keyguard"]["httpOnly"]  # type: ignore[typeddict-item]
        visitor.button("Sign out")
        visitor.heading("You are signed out")
        visitor.go("/organizations/acme/keys")
        visitor.heading("Sign in")
