"""`keyguard init` and `keyguard migrate`."""

import os
import re
import sqlite3
import stat
from dataclasses import fields
from pathlib import Path

import pytest

from keyguard import Rule, Settings
from keyguard.settings.hashing import TokenHasher
from keyguard.settings.sources import parse_peppers
from tests.cli.conftest import Program, Store

URL = "sqlite:///keys.db"  # in the folder of the test

ONLY_IN_THE_REFERENCE = {
    *("any_spelling", "peppers", "hasher", "revoke_exposed", "principal_headers", "carriers"),
    *("strip_credentials", "close_on_revoke", "websocket_protocol", "max_staleness", "cache_size"),
    *("read_url", "record_addresses", "store_timeout", "management_timeout", "connect_timeout"),
    *("connection_max_age", "durable_replicas", "hash_workers", "hash_timeout", "plans"),
    *("failure_limit", "limiter_timeout", "on_limiter_error", "limiter_processes"),
    *("legacy_headers", "usage", "usage_bucket", "usage_tags", "requesters", "request_lifetime"),
    *("claim_lifetime", "approvals", "approval_rules", "imported_formats"),
}
"""The settings that the file of `init --config` does not show: most services need none of them."""


def test_init_makes_the_tables(keyguard: Program) -> None:
    done = keyguard("init", "--url", URL)

    assert done.status == 0
    assert keyguard("org", "list", "--url", URL).status == 0


def test_init_says_what_to_set_next(keyguard: Program, tmp_path: Path) -> None:
    done = keyguard("init", "--url", URL, "--pepper-file", "my pepper")

    assert f"  export KEYGUARD_URL={URL}\n" in done.stdout
    assert f"  export KEYGUARD_PEPPER_FILE='{tmp_path}/my pepper'\n" in done.stdout
    assert done.stderr == ""


def test_init_does_not_ask_for_what_is_set_already(keyguard: Program, store: Store) -> None:
    assert "export" not in keyguard("init").stdout


def test_init_says_what_tokens_begin_with_until_a_prefix_is_set(
    keyguard: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "tokens will begin with kg_live."

    assert said in keyguard("init", "--url", URL).stdout
    monkeypatch.setenv("KEYGUARD_PREFIX", "aiaas_live")
    assert "KEYGUARD_PREFIX" not in keyguard("init", "--url", URL).stdout


def test_white_space_around_what_names_a_file_is_no_part_of_its_name(
    keyguard: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYGUARD_URL", f"{URL}\n")
    monkeypatch.setenv("KEYGUARD_LIMITER", " memory://\n")

    assert keyguard("init", "--pepper-file", "pepper\n").status == 0
    monkeypatch.setenv("KEYGUARD_PEPPER_FILE", f"{tmp_path}/pepper\n")
    assert "export" not in keyguard("init").stdout
    assert keyguard("org", "create", "acme", "--url", f" {URL}").status == 0

    assert {path.name for path in tmp_path.iterdir()} <= {"keys.db", "pepper", "keys.db-journal"}
    assert "acme" in keyguard("org", "list").stdout


@pytest.mark.parametrize("name", ["KEYGUARD_URL", "KEYGUARD_LIMITER"])
def test_a_control_character_in_the_name_of_a_store_is_refused(
    keyguard: Program, store: Store, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "sqlite:///keys\x1b.db")

    done = keyguard("org", "list")

    assert done.status == 2
    assert done.sentence == f"{name} holds a control character, such as a line break; remove it"


@pytest.mark.parametrize("option", ["--url", "--pepper-file"])
def test_a_control_character_in_an_option_is_refused(
    keyguard: Program, tmp_path: Path, option: str
) -> None:
    done = keyguard("init", option, "keys\n.db")

    assert done.status == 2
    assert done.sentence.startswith(f"{option} holds a control character")
    assert list(tmp_path.iterdir()) == []


def test_init_writes_a_settings_file_that_begins_with_a_rule_for_every_path(
    keyguard: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = keyguard("init", "--config")

    file = tmp_path / "keyguard.toml"
    assert f"  export KEYGUARD_CONFIG={file}\n" in done.stdout
    assert "KEYGUARD_URL" not in done.stdout  # the file names the store
    assert (tmp_path / "keys.db").exists()
    settings = Settings.from_file(file)
    assert settings.rules == (Rule("/{path:path}", scopes=["admin"]),)
    for path in ("/", "/data/-/query.json"):
        assert settings.rule_book().find(path, "GET") == settings.rules[0]
    # What is commented out is valid as it stands, but for the words about it.
    lines = [line.removeprefix("# ") for line in file.read_text().splitlines()]
    whole = tmp_path / "whole.toml"
    whole.write_text("\n".join(line for line in lines if re.match(r"[\w\":]+ = |\[", line)))
    assert len(list(Settings.from_file(whole).rules)) == 3
    named = set(re.findall(r"^(?:# )?(\w+) = ", file.read_text(), re.MULTILINE))
    settings_of_file = {field.name for field in fields(Settings)} - ONLY_IN_THE_REFERENCE
    # Those of a table, a rule or the stores, and the catalogue and the rules, which are tables.
    assert named - {"url", "admin", "path", "methods", "scopes", "limits"} == (
        settings_of_file - {"catalogue", "rules"}
    )

    monkeypatch.setenv("KEYGUARD_CONFIG", str(file))
    assert keyguard("org", "create", "acme").status == 0
    file.write_text(f'prefix = "mine_live"\nurl = "{URL}"\n')
    again = keyguard("init", "--config")
    assert "were not changed" in again.stdout
    assert "export" not in again.stdout
    assert "mine_live" in file.read_text()


def test_init_writes_the_settings_file_that_the_environment_names(
    keyguard: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.toml"
    monkeypatch.setenv("KEYGUARD_CONFIG", str(file))

    assert keyguard("org", "list").status == 2
    assert keyguard("init", "--config").status == 0
    assert file.exists()
    assert keyguard("org", "list").status == 0


def test_a_url_with_a_password_goes_into_no_settings_file(
    keyguard: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "sqlite:///keys.db?timeout=hunter2"
    keyguard("init", "--config", "--url", url)  # which fails, and leaves no file
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("KEYGUARD_URL", URL)
    assert keyguard("init", "--config").status == 0
    assert '\n# url = "sqlite' in (tmp_path / "keyguard.toml").read_text()


def test_init_writes_a_pepper_that_only_its_owner_can_read(
    keyguard: Program, store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "pepper"

    done = keyguard("init", "--pepper-file", "pepper", "--json")

    assert done.json == {
        "hasher": "hmac-sha256",
        "pepper_file": str(path),
        "pepper_created": True,
        "settings_file": None,
        "settings_created": False,
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    TokenHasher(peppers=parse_peppers(path.read_text()))


def test_init_does_not_show_the_pepper(keyguard: Program, store: Store, tmp_path: Path) -> None:
    done = keyguard("init", "--pepper-file", "pepper")

    pepper = (tmp_path / "pepper").read_text().strip()
    assert pepper not in done.stdout + done.stderr


def test_init_never_overwrites_a_pepper(keyguard: Program, store: Store, tmp_path: Path) -> None:
    keyguard("init", "--pepper-file", "pepper")
    first = (tmp_path / "pepper").read_text()

    again = keyguard("init", "--pepper-file", "pepper")

    assert again.status == 0
    assert "The pepper in pepper was not changed." in again.stdout
    assert (tmp_path / "pepper").read_text() == first


def test_init_without_a_pepper_says_how_to_get_one(keyguard: Program, store: Store) -> None:
    assert "keyguard init --pepper-file PATH" in keyguard("init").stdout


def test_init_with_a_pepper_in_the_environment_asks_for_no_other(
    keyguard: Program, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYGUARD_PEPPER", "1f0e3dad99908345f7439f8ffabdffc4")
    monkeypatch.setenv("KEYGUARD_PREFIX", "aiaas_live")

    assert keyguard("init").stdout == "The tables are ready.\n"


def test_init_that_fails_leaves_no_pepper_behind(keyguard: Program, tmp_path: Path) -> None:
    done = keyguard("init", "--url", "sqlite:///missing/keys.db", "--pepper-file", "pepper")

    assert done.status == 2
    assert "there is no directory" in done.sentence
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["KEYGUARD_PEPPER", "KEYGUARD_PEPPER_FILE"])
def test_init_makes_no_second_pepper(
    name: str, keyguard: Program, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "what the environment says")

    done = keyguard("init", "--pepper-file", "pepper")

    assert done.status == 2
    assert "already gives a pepper" in done.sentence
    assert not (tmp_path / "pepper").exists()


def test_init_makes_the_pepper_file_that_the_environment_names(
    keyguard: Program, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYGUARD_PEPPER_FILE", str(tmp_path / "pepper"))

    assert keyguard("init", "--pepper-file", "pepper", "--json").json["pepper_created"] is True


def test_init_can_not_write_a_pepper_where_there_is_no_directory(
    keyguard: Program, store: Store
) -> None:
    done = keyguard("init", "--pepper-file", "missing/pepper")

    assert done.status == 2
    assert done.sentence == (
        "the pepper file 'missing/pepper' can't be written (No such file or directory)"
    )


def test_init_does_not_follow_a_dangling_link(
    keyguard: Program, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "pepper").symlink_to("elsewhere")

    done = keyguard("init", "--pepper-file", "pepper")

    assert done.status == 2
    assert "can't be read" in done.sentence
    assert not (tmp_path / "elsewhere").exists()


def test_init_leaves_no_partly_written_pepper(
    keyguard: Program, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)

    done = keyguard("init", "--pepper-file", "pepper")

    assert (done.status, done.sentence) == (
        2,
        "the pepper file 'pepper' can't be written (No space left on device)",
    )
    assert not (tmp_path / "pepper").exists()


def test_init_does_not_repeat_a_url_that_may_hold_a_password(
    keyguard: Program, tmp_path: Path
) -> None:
    done = keyguard("init", "--url", f"{URL}?timeout=7", "--pepper-file", "pepper")

    assert done.status == 0
    assert "timeout" not in done.stdout
    assert "  export KEYGUARD_URL=...  # the URL you passed\n" in done.stdout


def test_keys_made_with_a_pepper_file_are_hashed_under_it(
    keyguard: Program, store: Store, tmp_path: Path
) -> None:
    keyguard("init", "--pepper-file", "pepper")
    keyguard("key", "create", "--org", "acme", "--name", "ci", "--pepper-file", "pepper")

    with sqlite3.connect(store.path) as connection:
        (digest,) = connection.execute("SELECT digest FROM keyguard_keys").fetchone()
    connection.close()
    assert re.match(r"\$hmac-sha256\$", digest)


def test_the_pepper_file_may_be_named_before_the_command(keyguard: Program, store: Store) -> None:
    keyguard("init", "--pepper-file", "pepper")

    token = keyguard(
        "--pepper-file",
        "pepper",
        "key",
        "create",
        "--org",
        "acme",
        "--name",
        "ci",
        "--scope",
        "a:b",
    ).stdout

    assert keyguard("--pepper-file", "pepper", "key", "verify", stdin=token).status == 0
    assert "needs the pepper" in keyguard("key", "verify", stdin=token).sentence


def test_migrate_may_run_again_and_again(keyguard: Program) -> None:
    for _ in range(2):
        done = keyguard("migrate", "--url", URL)
        assert (done.status, done.stdout) == (0, "The tables are up to date.\n")

    assert keyguard("migrate", "--url", URL, "--json").json == {"migrated": True}


def test_a_database_without_tables_is_a_sentence_that_says_to_migrate(
    keyguard: Program, tmp_path: Path
) -> None:
    (tmp_path / "keys.db").touch()
    for command in (("key", "list"), ("org", "create", "acme"), ("key", "show", "0" * 16)):
        done = keyguard(*command, "--url", URL)
        assert done.status == 1
        assert "run `keyguard migrate`" in done.sentence
