"""What a person at a terminal sees."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from keyguard import Allow
from tests.cli.conftest import Run, Store, Terminal

Terminals = Callable[..., Terminal]
CREATE = ("key", "create", "--org", "acme", "--name", "ci", "--scope", "a:b")
TOKEN = r"kg_live_[0-9A-Za-z]{16}_[0-9A-Za-z]{49}"


def test_key_create_says_that_the_token_is_shown_only_once(
    terminal: Terminals, store: Store
) -> None:
    window = terminal(*CREATE)

    assert window.finish() == 0
    assert len(re.findall(rf"^{TOKEN}$", window.shown, re.MULTILINE)) == 1
    assert window.shown.endswith("This token is shown only once: copy it now.\n")


def test_key_create_as_json_says_so_beside_its_document(terminal: Terminals, store: Store) -> None:
    window = terminal(*CREATE, "--json")

    assert window.finish() == 0
    assert re.fullmatch(r"\{.*\}\nThis token is shown only once: copy it now\.\n", window.shown)


def test_a_token_that_goes_elsewhere_is_not_on_the_terminal(
    process: Callable[..., Run], store: Store
) -> None:
    done = process(*CREATE)

    assert re.fullmatch(rf"{TOKEN}\n", done.stdout)
    assert done.stdout.strip() not in done.stderr


def test_key_verify_asks_for_the_token_and_does_not_show_it(
    terminal: Terminals, store: Store
) -> None:
    issued = store.issue(scopes=["a:b"])

    window = terminal("key", "verify")
    window.wait_for("Token (not shown): ")
    window.type(f"{issued.token.reveal()}\n")

    assert window.finish() == 0
    assert issued.token.reveal() not in window.shown
    assert re.search(rf"^Key +{issued.key.id}$", window.text, re.MULTILINE)


@pytest.mark.parametrize("answer", ["\n", "\x04"])
def test_no_answer_to_the_prompt_is_wrong_usage(
    answer: str, terminal: Terminals, store: Store
) -> None:
    window = terminal("key", "verify")
    window.wait_for("Token (not shown): ")
    window.type(answer)

    assert window.finish() == 2
    assert "keyguard: no token was given" in window.shown


def test_an_interrupt_at_the_prompt_ends_quietly(terminal: Terminals, store: Store) -> None:
    window = terminal("key", "verify")
    window.wait_for("Token (not shown): ")
    window.interrupt()

    assert window.finish() == 130
    assert "Traceback" not in window.shown


def test_a_list_is_coloured_and_fits_into_80_columns(terminal: Terminals, store: Store) -> None:
    store.issue("a name that goes on " * 3, scopes=["inference:read", "inference:write"])

    window = terminal("key", "list")

    assert window.finish() == 0
    assert "\x1b[32mactive" in window.shown
    assert max(map(len, window.text.splitlines())) <= 80


@pytest.mark.campaign("command0-40", "command1-53", "command2-72")
@pytest.mark.parametrize("width", [40, 53, 66, 72])
@pytest.mark.parametrize("command", [("key", "list"), ("org", "list"), ("audit",)])
def test_a_narrow_terminal_shows_every_id_whole(
    width: int,
    command: tuple[str, ...],
    terminal: Terminals,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = [store.issue("nightly batch job", scopes=["inference:read"]).key for _ in range(2)]
    monkeypatch.setenv("COLUMNS", str(width))

    window = terminal(*command)

    assert window.finish() == 0
    ids = {keys[0].organization} if command[0] == "org" else {key.id for key in keys}
    assert all(re.search(rf"\b{each}\b", window.text) for each in ids)
    assert max(map(len, window.text.splitlines())) <= width


@pytest.mark.campaign("20")
@pytest.mark.parametrize("width", [20, 60, 80])
def test_no_id_is_broken_wherever_it_stands(
    width: int, terminal: Terminals, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    slug = f"a-{'long-' * 12}b"
    with store.open() as guard:
        guard.organizations.create(slug)
        admin = guard.keys.issue(organization="acme", name="a", scopes=["admin"])
        decision = guard.authenticate([f"Bearer {admin.token.reveal()}"])
        assert isinstance(decision, Allow)
        other = guard.keys.issue(organization="acme", name="b", actor=decision.principal)
        new = guard.keys.rotate(other.key.id).key
        guard.keys.issue(organization=slug, name="c")
    monkeypatch.setenv("COLUMNS", str(width))

    for command, ids in {
        ("key", "list"): (admin.key.id, new.id, slug),
        ("org", "list"): (new.organization, slug),
        ("org", "show", slug): (slug,),
        ("key", "show", other.key.id): (other.key.id, new.id, new.family, new.organization),
        ("audit",): (f"key:{admin.key.id}", f"{new.id},", new.id),
    }.items():
        window = terminal(*command)
        assert window.finish() == 0
        assert [each for each in ids if each not in window.text] == []


def test_a_terminal_too_narrow_for_a_table_shows_records_below_each_other(
    terminal: Terminals, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = store.issue(scopes=["a:b"]).key
    monkeypatch.setenv("COLUMNS", "40")

    window = terminal("key", "list", "--org", "acme")

    assert window.finish() == 0
    assert [line.rstrip() for line in window.text.splitlines()] == [
        f"Key        {key.id}",
        "Name       ci",
        "Scopes     a:b",
        "Status     active",
        "Ends       never",
        "Last used  never",
    ]


def test_no_color_is_honoured(
    terminal: Terminals, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.issue(scopes=["a:b"])
    monkeypatch.setenv("NO_COLOR", "1")

    window = terminal("key", "list")

    assert window.finish() == 0
    assert "\x1b" not in window.shown


def test_off_a_terminal_nothing_is_coloured_even_where_colours_are_forced(
    process: Callable[..., Run], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.issue(scopes=["a:b"])
    monkeypatch.setenv("FORCE_COLOR", "1")

    assert "\x1b" not in process("key", "list").stdout
