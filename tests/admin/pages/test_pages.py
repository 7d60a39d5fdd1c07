"""Each page, with ordinary, empty and hostile data."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from keyguard.admin.console.render import changed, environment, span
from keyguard.admin.console.static import static_files
from keyguard.core.keys.audit import Action, AuditEntry
from keyguard.core.texts import csv_cell
from tests.admin.pages.samples import HOSTILE, KINDS, page, samples

VOID = {"input", "link", "meta", "br", "rect", "circle", "path", "hr", "img"}
PAGES = [(name, kind) for kind in KINDS for name in samples(kind)]


class Outline(HTMLParser):
    """Which elements a page has, and whether each is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.mark.parametrize(("name", "kind"), PAGES)
def test_a_page_is_well_formed_and_has_what_each_page_needs(name: str, kind: str) -> None:
    text = page(name, kind)
    outline = Outline(text)
    assert not outline.open
    assert len(outline.all("h1")) == text.count("<title>", 0, 600) == len(outline.all("main")) == 1
    assert 'class="skip" href="#main"' in text
    assert outline.all("html") == [{"lang": "en"}]
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert len(text.encode()) < 60_000


@pytest.mark.parametrize(("name", "kind"), PAGES)
def test_a_page_holds_nothing_that_its_policy_refuses(name: str, kind: str) -> None:
    outline = Outline(page(name, kind))
    for tag, attributes in outline.elements:
        assert tag not in {"style", "iframe", "object", "base"}
        assert not [a for a in attributes if a == "style" or a.startswith("on")], (tag, attributes)
        assert not re.match(r"\s*javascript:", attributes.get("href") or "", re.I)
    assert len(outline.all("script")) == 1


@pytest.mark.parametrize(("name", "kind"), PAGES)
def test_every_form_that_changes_something_carries_a_form_token(name: str, kind: str) -> None:
    for form in re.findall(r"<form[^>]*method=\"post\".*?</form>", page(name, kind), re.S):
        assert 'name="csrf"' in form


@pytest.mark.parametrize("name", samples("hostile"))
def test_no_page_prints_characters_that_deceive(name: str) -> None:
    text = page(name, "hostile")
    assert "\u202e" not in text
    assert "<script>alert" not in text
    assert "49" not in re.findall(r"egnp\.exe (\S+)", text)


@pytest.mark.parametrize(("name", "kind"), [case for case in PAGES if case[1] != "empty"])
def test_a_field_names_what_describes_it(name: str, kind: str) -> None:
    outline = Outline(page(name, kind))
    ids = {attributes.get("id") for _, attributes in outline.elements}
    labelled = {attributes.get("for") for attributes in outline.all("label")}
    assert labelled - {None} <= ids
    for tag, attributes in outline.elements:
        for other in (attributes.get("aria-describedby") or "").split():
            assert other in ids, (tag, attributes)


def test_the_empty_pages_say_what_to_do() -> None:
    for name in (
        "overview",
        "keys",
        "mine",
        "requests",
        "usage",
        "audit",
        "limits",
        "members",
        "organizations",
    ):
        assert 'class="card empty"' in page(name, "empty") or 'class="empty"' in page(name, "empty")


def test_a_page_without_rights_has_no_form_that_changes_something() -> None:
    for name in ("overview", "keys", "mine", "key", "requests", "request", "organization"):
        text = page(name, "ordinary", can=set())
        assert re.findall(r"<form[^>]*method=\"post\"[^>]*", text) == [
            '<form method="post" action="/keys/sign-out"'
        ]


def test_a_missing_value_is_an_error_and_no_gap() -> None:
    assert environment().undefined.__name__ == "StrictUndefined"


def test_the_static_files_are_small_and_named_by_their_content() -> None:
    sheet, module = static_files()["console.css"], static_files()["console.js"]
    assert len(sheet.content) < 10_000
    assert len(module.content) < 4_000
    assert re.fullmatch(r"console-[0-9a-f]{12}\.css", sheet.name)
    assert b"{" in sheet.content
    assert sheet.content.count(b"{") == sheet.content.count(b"}")


@pytest.mark.parametrize(
    "text",
    [
        *("=1+1", "+1", "-1", "@sum(a)", "\t=1", "\r=1", "\n=1", "\n1", " =1"),
        *("\uff1d1", "\uff0b1", "\uff0d1", "\uff20a", "\ufe661", "\u3000=1"),
    ],
)
def test_a_cell_of_a_csv_file_is_no_formula(text: str) -> None:
    assert csv_cell(text) == f"'{text}"
    assert csv_cell(HOSTILE) == HOSTILE
    assert csv_cell("") == ""
    assert csv_cell(-1) == -1


def test_values_are_written_for_people() -> None:
    assert [span(seconds) for seconds in (1, 60, 90, 7200, 86400, 0.5)] == [
        *("1 second", "1 minute", "90 seconds", "2 hours", "1 day", "0.5 seconds")
    ]


def test_a_change_is_told_in_words_by_the_clock_of_the_organization() -> None:
    entry = AuditEntry(
        id="aud_1",
        at=datetime(2026, 3, 1, tzinfo=UTC),
        actor="ann",
        action=Action.KEY_UPDATED,
        subject="key_1",
        organization="org_1",
        before={"expires_at": None, "scopes": [], "limits": []},
        after={
            "expires_at": "2026-03-01T12:00:00Z",
            "scopes": ["b", "a"],
            "limits": "é, which keyguard did not write",
        },
    )

    assert changed(entry, "Europe/Berlin") == [
        ("expires", "1 Mar 2026, 13:00", "never"),
        ("scopes", "a, b", "none"),
        ("limits", '"é, which keyguard did not write"', "none"),
    ]
    assert [old for _, _, old in changed(replace(entry, before=None), "UTC")] == ["", "", ""]
